"""Training: a recipe (recipe), what happens to the pictures (augment), the one loop (loop), and resuming (checkpoint)."""
