"""Public checkpoints: reading them, laying them onto a network, knowing where they are."""
