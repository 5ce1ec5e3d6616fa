"""The definition of stored numbers: what real number each stands for, and which stands for a real one."""

import numpy as np

from smallcnn.ir.types import RANGES, Grid, Number, Tensor

Array = np.ndarray


def real(tensor: Tensor, stored: Array) -> Array:
    """The real numbers, float64, that `stored` holds; a grid of several entries has one per entry of the first axis.

    scale * (stored - zero), the scale a float32.
    """
    if tensor.grid is None:
        return np.asarray(stored, np.float64)
    scale, zero = _along(tensor.grid, np.ndim(stored))
    return (np.asarray(stored, np.float64) - zero) * scale.astype(np.float64)


def stored(number: Number, grid: Grid, values: Array) -> Array:
    """The stored numbers that stand for real `values`: rounded to the nearest, ties to even, and saturated.

    value / scale is one division of float32, as in ONNX's QuantizeLinear.
    """
    scale, zero = _along(grid, np.ndim(values))
    steps = np.rint(np.asarray(values, np.float32) / scale).astype(np.float64) + zero
    return np.clip(steps, *RANGES[number]).astype(number)


def _along(grid: Grid, axes: int) -> tuple[Array, Array]:
    """Scale (float32) and zero (float64), broadcast along the first axis."""
    shape = (-1, *[1] * (axes - 1))
    return np.array(grid.scale, np.float32).reshape(shape), np.array(grid.zero, np.float64).reshape(shape)
