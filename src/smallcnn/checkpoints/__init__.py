"""Public checkpoints: where they are, how to read them, and how to match them to a network."""
