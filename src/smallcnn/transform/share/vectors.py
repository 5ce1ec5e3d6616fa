"""Weights as vectors along their input channels, as product quantization takes them (Wu et al. 2016, section 3).

(out, in, height, width) or (out, in)  ->  (positions, subspaces, length)      positions = out * height * width
"""

import numpy as np

Array = np.ndarray


def to_vectors(weight: Array, length: int) -> Array:
    """The weights cut into vectors of `length` input channels, which must divide the number of channels."""
    return np.moveaxis(weight, 1, -1).reshape(-1, weight.shape[1] // length, length)


def from_vectors(vectors: Array, shape: tuple[int, ...]) -> Array:
    """The inverse of `to_vectors` for weights of `shape`."""
    turned = (shape[0], *shape[2:], shape[1])
    return np.ascontiguousarray(np.moveaxis(vectors.reshape(turned), -1, 1))
