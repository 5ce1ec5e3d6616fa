"""Fewer different numbers in the weights of a network: shared values, zeros, shared vectors, thin factors."""
