"""Constants on a grid: weights that a file stores as whole numbers."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np

from smallcnn.errors import FileError
from smallcnn.foreign.views import Array, decimal
from smallcnn.ir.checks import shown
from smallcnn.ir.types import RANGES, Grid, Number, Tensor
from smallcnn.reference import numbers

_FIRST = 10
"""The operator set that has these operators first."""


@dataclass(frozen=True)
class Coded:
    """A constant of whole numbers on a grid; several entries are along `axis`."""

    codes: Array
    grid: Grid
    axis: int

    @property
    def number(self) -> Number:
        """Their type."""
        return cast(Number, str(self.codes.dtype))

    def real(self) -> Array:
        """The real numbers, float32; of int32 float64, which is exact."""
        return _first(self._real, self.codes, self.axis)

    def _real(self, rows: Array) -> Array:
        real = numbers.real(Tensor(rows.shape, self.number, self.grid), rows)
        return real if self.number == "int32" else real.astype(np.float32)

    def transposed(self, order: list[int] | None) -> "Coded":
        """With its axes in another order."""
        order = list(range(self.codes.ndim))[::-1] if order is None else order
        if sorted(order) != list(range(self.codes.ndim)):
            raise FileError(f"transposes {shown(self.codes.shape)} by {shown(order)}")
        return Coded(self.codes.transpose(order), self.grid, order.index(self.axis) if order else 0)

    def is_per(self, axis: int) -> bool:
        """Whether the grid has one entry, or one per entry of this axis."""
        return len(self.grid.scale) == 1 or self.axis == axis


def grid_of(scale: Array, zero: Array | None, opset: int) -> Grid:
    """The grid of QuantizeLinear's or DequantizeLinear's inputs."""
    if opset < _FIRST:
        raise FileError(f"is of operator set {_FIRST} and later")
    zero = np.zeros(scale.shape, np.int8) if zero is None else zero
    if scale.dtype.kind != "f" or zero.dtype.kind not in "iu" or scale.ndim > 1 or scale.size != zero.size:
        raise FileError(f"has a scale of {shown(scale.shape)} and a zero point of {shown(zero.shape)}")
    return Grid(tuple(decimal(value) for value in scale.flat), tuple(int(value) for value in zero.flat))


def number_of(zero: Array | None) -> Number:
    """The type that QuantizeLinear gives: its zero point's, bytes by default."""
    given = "uint8" if zero is None else str(zero.dtype)
    for number in RANGES:
        if given == number:
            return number
    raise FileError(f"quantizes to {given}; {', '.join(RANGES)} are supported")


def quantized(values: Array, number: Number, grid: Grid, axis: int) -> Array:
    """The codes of constants."""
    axis = along_entries(values, grid, axis)
    return _first(lambda rows: numbers.stored(number, grid, rows), values, axis)


def along_entries(values: Array, grid: Grid, axis: int) -> int:
    """The axis of a grid's entries, 0 for a single one. FileError if it has another number of them."""
    entries = len(grid.scale)
    if entries == 1:
        return 0
    if not (-values.ndim <= axis < values.ndim and values.shape[axis] == entries):
        raise FileError(f"has {entries} scales for axis {axis} of {shown(values.shape)}")
    return axis % values.ndim


def _first(function: Callable[[Array], Array], values: Array, axis: int) -> Array:
    """A function of arrays with this axis first."""
    return np.moveaxis(function(np.moveaxis(values, axis, 0)), 0, axis) if values.ndim else function(values)
