"""The definitions: what every operator computes, in plain numpy, and the first values of weights."""
