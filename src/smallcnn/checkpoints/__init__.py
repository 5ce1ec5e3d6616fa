"""Public checkpoints: reading them, laying them onto a network, fetching them."""
