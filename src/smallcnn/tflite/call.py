"""One operator of the file while the network is built: checks of its inputs, and its settings."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from smallcnn.errors import FileError
from smallcnn.foreign.network import Network
from smallcnn.foreign.views import View
from smallcnn.ir import types as ir
from smallcnn.ir.checks import shown
from smallcnn.tflite.file import Array, Operator, Tensor

Value = View | Array | None
"""A result that depends on the image, a constant, or None: shapes that the file computes on the way."""


@dataclass(frozen=True)
class Call:
    """An operator, the file's tensors, the values so far, and a label for new nodes."""

    operator: Operator
    tensors: tuple[Tensor, ...]
    values: Mapping[int, Value]
    label: str
    integer: bool = True
    """Whether weights of bytes stay bytes."""

    @property
    def output(self) -> Tensor:
        """The file's record of the first output."""
        return self.tensors[self.operator.outputs[0]]

    def has(self, index: int) -> bool:
        """Whether this input is given."""
        return index < len(self.operator.inputs) and self.operator.inputs[index] >= 0

    def tensor(self, index: int) -> Tensor:
        """The file's record of an input."""
        if not self.has(index):
            raise FileError(f"lacks input {index + 1}")
        return self.tensors[self.operator.inputs[index]]

    def depends(self, index: int) -> bool:
        """Whether this input depends on the image."""
        return self.has(index) and isinstance(self.values.get(self.operator.inputs[index]), View)

    def value(self, index: int) -> View | Array:
        """An input: a result for a computation, or a constant as real numbers."""
        tensor = self.tensor(index)
        value = self.values.get(self.operator.inputs[index])
        if isinstance(value, View) and value.ended:
            raise FileError(f"reads the result of {value.ended}, which is supported only as the last operator")
        return tensor.real() if value is None else value

    def view(self, index: int = 0) -> View:
        """An input that depends on the image."""
        value = self.value(index)
        if not isinstance(value, View):
            raise FileError(f"reads a constant as its input {index + 1}")
        return value

    def moved(self) -> View:
        """The first input, for operators that only move data and may follow a softmax."""
        self.tensor(0)
        value = self.values.get(self.operator.inputs[0])
        if not isinstance(value, View):
            raise FileError("reads a constant as its input 1")
        return value

    def real(self, index: int, what: str) -> Array:
        """A constant as real numbers."""
        value = self.value(index)
        if isinstance(value, View):
            raise FileError(f"has a {what} that depends on the image")
        return value

    def stored(self, index: int, what: str, outputs: int) -> tuple[Array, ir.Tensor]:
        """A layer's weight, and how it holds its numbers: as bytes with a grid, if one per slice of `outputs`."""
        grid = self.tensor(index).on_grid(outputs) if self.integer and not self.has_value(index) else None
        if grid is None:
            weight = self.real(index, what)
            return weight, ir.Tensor(weight.shape)
        codes = self.tensor(index).stored()
        return codes, ir.Tensor(codes.shape, "int8" if codes.dtype == np.int8 else "uint8", grid)

    def has_value(self, index: int) -> bool:
        """Whether an operator before this one gives an input."""
        return self.operator.inputs[index] in self.values

    def number(self, index: int, what: str) -> float:
        """A constant of one number."""
        value = self.real(index, what)
        if value.size != 1:
            raise FileError(f"has a {what} of shape {shown(value.shape)}, not one number")
        return float(value.reshape(()))

    def whole(self, index: int, what: str) -> list[int]:
        """A constant of whole numbers."""
        tensor = self.tensor(index)
        if self.operator.inputs[index] in self.values:
            raise FileError(f"has {what} that the file computes")
        array = tensor.stored()
        if array.dtype.kind not in "iu" or array.size > 1000:
            raise FileError(f"has {what} of {array.size} values of type {array.dtype}")
        return [int(value) for value in array.reshape(-1)]

    def option(self, name: str, default: float = 0) -> int:
        """A whole number among the settings."""
        return int(self.operator.options.get(name, default))

    def setting(self, name: str, default: float) -> float:
        """A real number among the settings."""
        value = float(self.operator.options.get(name, default))
        if not np.isfinite(value):
            raise FileError(f"has a {name} of {value}")
        return value


Reader = Callable[[Network, Call], View | list[View]]
"""Adds an operator to the network and returns its result, or one for each of its outputs."""
