"""What an edge of a network carries, and what a stored weight is: a shape, a number type, a grid.

A tensor of float32 holds real numbers. One of whole numbers with a grid stands for the real numbers

    real = scale * (stored - zero)

which is the affine quantization of Jacob et al. 2018 (arXiv 1712.05877, equation 1).
"""

from dataclasses import dataclass
from math import prod
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


@dataclass(frozen=True, slots=True)
class Grid:
    """real = scale * (stored - zero): one entry for the whole tensor, or one per channel."""

    scale: tuple[float, ...]
    zero: tuple[int, ...]

    def __post_init__(self) -> None:
        if not (isinstance(self.scale, tuple) and isinstance(self.zero, tuple) and self.scale):
            raise GraphError("a grid needs tuples of scales and zeros")
        if len(self.scale) != len(self.zero):
            raise GraphError(f"{len(self.scale)} scales for {len(self.zero)} zeros")
        for scale in self.scale:
            checks.above_zero("a scale", scale)


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
