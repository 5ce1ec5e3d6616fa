"""Compiles graph and weights to one native file: Halide kernels, a plan of steps, and the C that runs them."""
