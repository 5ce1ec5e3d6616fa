"""Weights as bytes: symmetric int8 on a grid per output, and a bias that its int32 can hold."""

import numpy as np

from smallcnn.ir.types import Grid

Array = np.ndarray

_MOST_BIAS = 2.0**30
"""Half of what int32 holds; the other half is for the sums."""
_MOST_SUM = 2.0**31 - 1
_LEAST_PRODUCT = 2.0**-100
"""Least scale of a sum: far above what float32 can hold, so that multipliers are normal numbers."""


def weight_grid(
    weight: Array, bias: Array | None, source: Grid, *, per_tensor: bool = False, ratios: Array | None = None
) -> Grid:
    """The grid of a layer's weights (out, ...): zero 0, scale = max |weight| / 127 per output, or one for all.

    With `ratios` (out,), the scales are in these ratios, none smaller than it would be by itself. `source` is the grid
    of the input. A scale is larger where the bias, or the largest possible sum of bytes, would not fit int32: a filter
    that is zero or almost zero.
    """
    flat = np.abs(weight.reshape(len(weight), -1).astype(np.float64))
    offset = np.zeros(len(flat)) if bias is None else np.abs(bias.astype(np.float64))
    scale = np.maximum(flat.max(1), np.maximum(offset / _MOST_BIAS, _LEAST_PRODUCT) / source.scale[0] * 127) / 127
    step = max(source.zero[0], 255 - source.zero[0])  # the input's largest distance from its zero
    largest = (np.rint(flat / scale[:, None]).sum(1) * step + offset / (scale * source.scale[0])) / _MOST_SUM
    scale *= np.maximum(1, largest * (1 + 1e-3))
    if per_tensor:
        scale = scale.max(keepdims=True)
    elif ratios is not None:
        scale = ratios * (scale / ratios).max()
    return Grid(tuple(scale.tolist()), (0,) * len(scale))
