"""Training: how (recipe), what happens to the pictures (augment), the one loop (loop), resuming (checkpoint)."""
