"""Graph and weights in, graph and weights out."""
