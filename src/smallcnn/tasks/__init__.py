"""What a network's outputs mean, and how good they are."""
