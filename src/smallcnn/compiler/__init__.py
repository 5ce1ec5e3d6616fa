"""Machine code from graph and weights: Halide kernels, a plan of steps, and the C that runs them."""
