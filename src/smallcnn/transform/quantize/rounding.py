"""Weights rounded one input after the other, each error passed on to the weights that are not rounded yet.

Rounding to the nearest ignores that a layer's inputs go together: an error of one weight can be made up for by others
of the same filter. Minimising the squared error of the layer's result over calibration inputs gives the update of
optimal brain surgeon (Hassibi and Stork 1993), as used for rounding by Frantar et al. 2022, "GPTQ" (arXiv 2210.17323,
section 3): with H the covariance of the inputs and U the upper Cholesky factor of its inverse,

    w_j -= U_ij / U_ii * (w_i - rounded w_i)      for all j after i, inputs of large variance first

The mean of the inputs is left out, as the bias takes up a shift of the mean.
"""

import numpy as np

from smallcnn.ir import ops
from smallcnn.transform.quantize.values import Bytes

Array = np.ndarray

_MOST_INPUTS = 4608
"""Inputs of a filter beyond which its weights are rounded to the nearest: a covariance takes their square."""
_MOST_NUMBERS = 1 << 24
_MOST_WINDOWS = 1 << 13
_BLOCK = 64


def compensated(op: ops.Conv | ops.Dense, weight: Array, scale: Array, source: Array | Bytes) -> Array:
    """Stored weights, int8 of the shape of `weight`, for inputs (N, ...) and a scale per output, or one for all."""
    groups = op.groups if isinstance(op, ops.Conv) else 1
    inputs = weight[0].size
    if inputs > _MOST_INPUTS:
        return _nearest(weight.reshape(len(weight), -1), scale[:, None]).reshape(weight.shape)
    windows = _windows(op, source, groups)
    windows = windows - windows.mean(1, keepdims=True)
    covariance = windows.swapaxes(1, 2) @ windows / windows.shape[1]
    own = np.broadcast_to(scale, (len(weight),)).reshape(groups, -1, 1)
    rounded = _rounded(weight.reshape(groups, len(weight) // groups, -1), own, covariance, windows.shape[1])
    return rounded.reshape(weight.shape)


def _rounded(weight: Array, scale: Array, covariance: Array, windows: int) -> Array:
    """(groups, out, in) weights on the grid of `scale` (groups, out, 1)."""
    inputs = weight.shape[-1]
    variance = np.einsum("gii->gi", covariance)
    # an estimate from few windows must not be trusted: the fewer, the closer to rounding to the nearest
    spread = np.maximum(variance.mean(1), 1e-30)[:, None, None] * np.eye(inputs)
    inverse = np.linalg.inv(covariance + (0.01 + 0.1 * inputs / windows) * spread)
    order = np.argsort(-variance.mean(0), kind="stable")
    upper = np.linalg.cholesky(inverse[:, order][:, :, order]).swapaxes(1, 2)
    left = weight[:, :, order].astype(np.float64)
    result = np.empty(weight.shape, np.int8)
    for start in range(0, inputs, _BLOCK):
        stop = min(start + _BLOCK, inputs)
        errors = np.empty((*weight.shape[:2], stop - start))
        for i in range(start, stop):
            result[:, :, i] = _nearest(left[:, :, i], scale[:, :, 0])
            factor = upper[:, i, i, None]
            errors[:, :, i - start] = (left[:, :, i] - result[:, :, i] * scale[:, :, 0]) / factor
            left[:, :, i:stop] -= errors[:, :, i - start, None] * upper[:, None, i, i:stop]
        left[:, :, stop:] -= errors @ upper[:, start:stop, stop:]
    return result[:, :, np.argsort(order)]


def _nearest(weight: Array, scale: Array) -> Array:
    return np.clip(np.rint(weight / scale), -127, 127).astype(np.int8)


def _windows(op: ops.Conv | ops.Dense, source: Array | Bytes, groups: int) -> Array:
    """Inputs of a layer's filters at some positions, float64 (groups, windows, inputs of a filter)."""
    if not isinstance(op, ops.Conv):
        return source[:][None].astype(np.float64)
    (kernel_h, kernel_w), (stride_h, stride_w), (step_h, step_w) = op.kernel, op.stride, op.dilation
    held, border = (source.stored, source.grid.zero[0]) if isinstance(source, Bytes) else (source, 0)
    padded = np.pad(held, ((0, 0), *op.padding, (0, 0)), constant_values=border)
    count, height, width, channels = padded.shape
    height, width = (height - op.reach[0]) // stride_h + 1, (width - op.reach[1]) // stride_w + 1
    most = max(1, min(count * height * width, _MOST_WINDOWS, _MOST_NUMBERS // (kernel_h * kernel_w * channels)))
    places = np.random.default_rng(0).permutation(count * height * width)[:most]
    image, row, column = np.unravel_index(places, (count, height, width))
    rows = row[:, None] * stride_h + step_h * np.arange(kernel_h)
    columns = column[:, None] * stride_w + step_w * np.arange(kernel_w)
    found = padded[image[:, None, None], rows[:, :, None], columns[:, None, :]]  # (windows, kernel, kernel, channels)
    found = source.real(found) if isinstance(source, Bytes) else found
    grouped = found.reshape(most, kernel_h * kernel_w, groups, channels // groups)
    return grouped.transpose(2, 0, 3, 1).reshape(groups, most, -1).astype(np.float64)
