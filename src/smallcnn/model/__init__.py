"""The model: a network with everything needed to use it, and its files."""
