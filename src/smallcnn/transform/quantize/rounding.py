"""Weights rounded one input after the other, each error passed on to the weights that are not rounded yet.

Rounding to the nearest ignores that a layer's inputs go together: an error of one weight can be made up for by others
of the same filter. Minimising the squared error of the layer's result over calibration inputs gives the update of
optimal brain surgeon (Hassibi and Stork 1993), as used for rounding by Frantar et al. 2022, "GPTQ" (arXiv 2210.17323,
section 3): with H the covariance of the inputs and U the upper Cholesky factor of its inverse,

    w_j -= U_ij / U_ii * (w_i - rounded w_i)      for all j after i, inputs of large variance first

The mean of the inputs is left out, as the bias takes up a shift of the mean.
"""

from dataclasses import dataclass
from typing import Protocol

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
    inputs = statistics(op, weight, source)
    if inputs is None:
        return _nearest(weight.reshape(len(weight), -1), scale[:, None]).reshape(weight.shape)
    own = np.broadcast_to(scale, (len(weight),)).reshape(len(inputs.covariance), -1, 1)
    found = passed_on(inputs.grouped(weight), inputs, lambda column, *_: _nearest(column, own) * own)
    return np.rint(found / own).astype(np.int8).reshape(weight.shape)


@dataclass(frozen=True)
class Inputs:
    """The covariance (groups, inputs, inputs) of the inputs of a layer's filters, from so many windows.

    `lost` is the covariance of what the inputs lack with the inputs themselves, if that is known. `doubt` says how far
    the estimate is trusted: `trusted` adds that much of the mean variance, and that much per input in a window.
    """

    covariance: Array
    windows: int
    lost: Array | None = None
    doubt: tuple[float, float] = (0.01, 0.1)

    def grouped(self, weight: Array) -> Array:
        """Weights (out, ...) as (groups, out, inputs)."""
        return weight.reshape(len(self.covariance), -1, self.covariance.shape[-1])

    def repairing(self, weight: Array) -> Array:
        """The weights whose results for these inputs are closest to those for the exact inputs; zeros stay zero."""
        if self.lost is None:
            return weight
        repair = np.linalg.solve(self.trusted(), self.lost.swapaxes(1, 2)).swapaxes(1, 2)
        flat = self.grouped(weight)
        return np.where(flat == 0, 0, flat + flat @ repair).reshape(weight.shape)

    def factor(self, sort: bool = True) -> tuple[Array, Array]:
        """An order of the inputs, large variance first with `sort`, and the upper factor of the inverse in it."""
        inverse = np.linalg.inv(self.trusted())
        order = np.arange(inverse.shape[-1])
        if sort:
            order = np.argsort(-np.einsum("gii->gi", self.covariance).mean(0), kind="stable")
        return order, np.linalg.cholesky(inverse[:, order][:, :, order]).swapaxes(1, 2)

    def trusted(self) -> Array:
        """The covariance plus a multiple of the identity.

        An estimate from few windows must not be trusted: the fewer, the closer to rounding to the nearest.
        """
        variance = np.einsum("gii->gi", self.covariance)
        spread = np.maximum(variance.mean(1), 1e-30)[:, None, None] * np.eye(self.covariance.shape[-1])
        always, sampled = self.doubt
        return self.covariance + (always + sampled * len(spread[0]) / self.windows) * spread


def statistics(
    op: ops.Conv | ops.Dense, weight: Array, source: Array | Bytes, exact: Array | None = None
) -> Inputs | None:
    """The statistics of a layer's inputs (N, ...), and of how the `exact` ones differ; None for filters too large."""
    groups = op.groups if isinstance(op, ops.Conv) else 1
    if weight[0].size > _MOST_INPUTS:
        return None
    windows = _windows(op, source, groups)
    windows = windows - windows.mean(1, keepdims=True)
    covariance = windows.swapaxes(1, 2) @ windows / windows.shape[1]
    lost = None
    if exact is not None and exact is not source:
        wanted = _windows(op, exact, groups)
        lost = (wanted - wanted.mean(1, keepdims=True) - windows).swapaxes(1, 2) @ windows / windows.shape[1]
    return Inputs(covariance, windows.shape[1], lost)


class Rounded(Protocol):
    """Rounds the weights (groups, out, n) of a few inputs."""

    def __call__(self, weight: Array, added: Array, places: Array, /) -> Array:
        """The rounded weights, of the same shape.

        `added` (groups, 1, n) is how much a squared error of one of them adds to that of the result, `places` (n,) are
        the inputs among those of the filter.
        """


def passed_on(weight: Array, inputs: Inputs, rounded: Rounded, together: int = 1) -> Array:
    """(groups, out, inputs) weights, float64, each rounded by `rounded` with the errors of those before it passed on.

    As many inputs are rounded `together`; if it is more than one, inputs are taken in their order.
    """
    count = weight.shape[-1]
    order, upper = inputs.factor(sort=together == 1)
    left = weight[:, :, order].astype(np.float64)
    result = np.empty_like(left)
    block = max(1, _BLOCK // together) * together
    for start in range(0, count, block):
        stop = min(start + block, count)
        errors = np.empty((*weight.shape[:2], stop - start))
        for i in range(start, stop, together):
            end = min(i + together, stop)
            own = upper[:, i:end, i:end]
            added = 1 / np.einsum("gii->gi", own)[:, None] ** 2
            result[:, :, i:end] = rounded(left[:, :, i:end], added, order[i:end])
            wrong = left[:, :, i:end] - result[:, :, i:end]
            error = (
                wrong / own
                if together == 1
                else np.linalg.solve(own.swapaxes(1, 2), wrong.swapaxes(1, 2)).swapaxes(1, 2)
            )
            errors[:, :, i - start : end - start] = error
            left[:, :, i:stop] -= (
                error * upper[:, i, None, i:stop] if together == 1 else error @ upper[:, i:end, i:stop]
            )
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
