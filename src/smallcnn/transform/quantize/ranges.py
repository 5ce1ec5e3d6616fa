"""The range of real numbers that the bytes of an edge stand for, chosen from what calibration images give.

    min-max        everything that was seen
    99.9 %, ...    a percentile at both ends
    mse            of the ranges that are shares of min-max, the one of least mean squared error

`best` takes the one among these with the least error, measured on the values that were seen.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from smallcnn.ir.types import Grid

Array = np.ndarray
RangeChoice = Literal["best", "min-max", "percentile", "mse"]

_BINS = 4096
_MOST_VALUES = 1 << 21
_PERCENTILES = (99.9, 99.99, 99.999)
_SHARES = np.linspace(0.3, 1, 71)


@dataclass(frozen=True)
class Seen:
    """A histogram of values: the middle of each bin, and how many fell into it; `low` and `high` are exact."""

    low: float
    high: float
    middles: Array
    counts: Array


def look(values: Array) -> Seen:
    """The histogram of an array; of every n-th value if there are many."""
    flat = values.reshape(-1)
    low, high = float(flat.min()), float(flat.max())
    counts, ends = np.histogram(flat[:: flat.size // _MOST_VALUES | 1], _BINS, (low, high))
    return Seen(low, high, (ends[1:] + ends[:-1]) / 2, counts)


def together(seen: Sequence[Seen]) -> Seen:
    """Values of several edges that will share a grid; an edge counts as much as any other."""
    total = sum(int(one.counts.sum()) for one in seen)
    return Seen(
        min(one.low for one in seen),
        max(one.high for one in seen),
        np.concatenate([one.middles for one in seen]),
        np.concatenate([one.counts * (total / max(int(one.counts.sum()), 1)) for one in seen]),
    )


def choose_grid(seen: Seen, choice: RangeChoice = "best") -> Grid:
    """The grid of uint8 for these values; of equally good ones the widest."""
    candidates: list[tuple[float, float]] = []
    if choice in ("best", "min-max"):
        candidates.append((seen.low, seen.high))
    if choice in ("best", "percentile"):
        candidates += [_percentile(seen, share) for share in (_PERCENTILES if choice == "best" else _PERCENTILES[1:2])]
    if choice in ("best", "mse"):
        candidates += [(seen.low * share, seen.high * share) for share in _SHARES]
    grids = [grid_between(low, high) for low, high in candidates]
    return min(grids, key=lambda grid: (_error(seen, grid), -grid.scale[0]))


def grid_between(low: float, high: float) -> Grid:
    """The grid of uint8 whose bytes cover `low` to `high` and 0, which is one of its numbers.

    The zero is 0 if nothing is below 0. A range of nothing but 0 has a scale of 1.
    """
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / 255
    if scale < 1e-30:
        return Grid((1.0,), (0,))
    return Grid((scale,), (round(-low / scale),))


def _percentile(seen: Seen, percent: float) -> tuple[float, float]:
    order = np.argsort(seen.middles, kind="stable")
    shares = np.cumsum(seen.counts[order]) / max(seen.counts.sum(), 1)
    rest = (100 - percent) / 100
    ends = np.searchsorted(shares, [rest, 1 - rest]).clip(0, len(order) - 1)
    low, high = seen.middles[order][ends]
    return max(float(low), seen.low), min(float(high), seen.high)


def _error(seen: Seen, grid: Grid) -> float:
    """Mean squared error of the values on the grid."""
    scale, zero = grid.scale[0], grid.zero[0]
    steps = np.clip(np.rint(seen.middles / scale), -zero, 255 - zero)
    return float(((steps * scale - seen.middles) ** 2) @ seen.counts / max(seen.counts.sum(), 1))
