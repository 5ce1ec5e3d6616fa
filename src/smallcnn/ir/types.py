"""What an edge of a network carries, and what a stored weight is: a shape, a number type, a grid.

A tensor of float32 holds real numbers. One of whole numbers with a grid stands for the real numbers

    real = scale * (stored - zero)

which is the affine quantization of Jacob et al. 2018 (arXiv 1712.05877, equation 1).
"""

import struct
from dataclasses import dataclass
from math import inf, prod
from typing import Literal, get_args

from smallcnn.errors import GraphError
from smallcnn.ir import checks

Shape = tuple[int, ...]
Number = Literal["float32", "uint8", "int8", "int32"]

LOGITS = "logits"
"""Name of a classifier's output."""
NUMBERS: tuple[Number, ...] = get_args(Number)
SIZES: dict[Number, int] = {"float32": 4, "uint8": 1, "int8": 1, "int32": 4}
"""Bytes of one number."""
RANGES: dict[Number, tuple[int, int]] = {"uint8": (0, 255), "int8": (-128, 127), "int32": (-(2**31), 2**31 - 1)}
"""Least and greatest stored value of the whole numbers."""

_MOST_ENTRIES = 2**16  # channels
_LEAST_SCALE, _MOST_SCALE = 2.0**-126, (2 - 2.0**-23) * 2.0**127  # the normal numbers of float32


@dataclass(frozen=True, slots=True)
class Grid:
    """real = scale * (stored - zero): one entry for the whole tensor, or one per channel.

    Scales are numbers of float32, and rounded to such.
    """

    scale: tuple[float, ...]
    zero: tuple[int, ...]

    def __post_init__(self) -> None:
        if not (isinstance(self.scale, tuple) and isinstance(self.zero, tuple) and self.scale):
            raise GraphError("a grid needs tuples of scales and zeros")
        if len(self.scale) != len(self.zero):
            raise GraphError(f"{len(self.scale)} scales for {len(self.zero)} zeros")
        if len(self.scale) > _MOST_ENTRIES:
            raise GraphError(f"a grid of {len(self.scale):,} entries; at most {_MOST_ENTRIES:,} are allowed")
        object.__setattr__(self, "scale", tuple(map(_as_float32, self.scale)))


def _as_float32(scale: object) -> float:
    """The nearest number of float32. Raises GraphError unless it is above 0 and neither subnormal nor infinite."""
    checks.above_zero("a scale", scale)
    assert isinstance(scale, int | float)
    try:
        rounded: float = struct.unpack("<f", struct.pack("<f", scale))[0]
    except OverflowError:
        rounded = inf
    if not _LEAST_SCALE <= rounded <= _MOST_SCALE:
        raise GraphError(f"a scale must be from {_LEAST_SCALE:.3g} to {_MOST_SCALE:.3g}, not {checks.shown(scale)}")
    return rounded


@dataclass(frozen=True, slots=True)
class Tensor:
    """What an edge carries, channels last and without the batch, and what a weight is."""

    shape: Shape
    number: Number = "float32"
    grid: Grid | None = None

    @property
    def bytes(self) -> int:
        """Size of one such tensor."""
        return prod(self.shape) * SIZES[self.number]


def check_grid(number: Number, grid: Grid, *entries: int) -> None:
    """Requires a grid for whole numbers of this type, with one of these numbers of entries. Raises GraphError."""
    if number not in RANGES:
        raise GraphError(f"a grid is for {', '.join(RANGES)}, not for {checks.shown(number)}")
    if len(grid.scale) not in entries:
        raise GraphError(f"a grid of {len(grid.scale)} entries; {' or '.join(map(str, entries))} are allowed")
    low, high = RANGES[number]
    for zero in grid.zero:
        if not (isinstance(zero, int) and not isinstance(zero, bool) and low <= zero <= high):
            raise GraphError(
                f"a zero of {number} must be a whole number from {low} to {high}, not {checks.shown(zero)}"
            )
