"""Keras models: the network that a file describes, with its weights."""
