"""One operator of the file that depends on the image, with checks of its inputs."""

from dataclasses import dataclass, replace

from smallcnn.errors import FileError
from smallcnn.foreign.views import Array, View, along
from smallcnn.ir.checks import shown
from smallcnn.ir.ops import NO_PADDING, Padding
from smallcnn.ir.types import Tensor
from smallcnn.onnx.read.codes import Coded
from smallcnn.onnx.read.constants import Constants, whole

Value = View | Array | Coded

_ON_BYTES = ("Clip", "MaxPool", "Pad", "Resize")
"""Operators that compute on bytes as on the real numbers they stand for; others that do only move them."""


@dataclass(frozen=True)
class Call(Constants):
    """An operator of the file with at least one input that depends on the image."""

    values: list[Value | None]
    label: str

    def value(self, index: int) -> View | Array:
        """An input that computations may read, or a constant."""
        value = self.values[index] if index < len(self.values) else None
        if value is None:
            raise FileError(f"lacks input {index + 1}")
        if isinstance(value, View) and value.pixels:
            raise FileError("computes with bytes; cast them to float first")
        if isinstance(value, View) and value.ended:
            raise FileError(f"reads the result of {value.ended}, which is supported only as the last operator")
        if isinstance(value, View) and value.margins != NO_PADDING:
            raise FileError("reads an input padded with minus infinity; only a max pool can")
        if isinstance(value, View) and value.node.tensor.number != "float32" and self.kind not in _ON_BYTES:
            raise FileError(f"needs float32, not {value.node.tensor.number}; a DequantizeLinear must come first")
        if isinstance(value, Coded):
            self.budget.spend(value.codes.size)
            return value.real()
        return value

    def operand(self, index: int) -> View | Array:
        """An input of real numbers, a result or a constant."""
        value = self.value(index)
        if not isinstance(value, View) and value.dtype.kind != "f":
            raise FileError(f"computes with a constant of {value.dtype}")
        return value

    def view(self, index: int = 0) -> View:
        """An input that depends on the image."""
        value = self.value(index)
        if not isinstance(value, View):
            raise FileError(f"reads a constant as its input {index + 1}")
        return value

    def any_view(self, index: int = 0) -> View:
        """An input, for operators that only move it."""
        value = self.values[index]
        if not isinstance(value, View):
            raise FileError(f"reads a constant as its input {index + 1}")
        if value.margins != NO_PADDING:
            raise FileError("reads an input padded with minus infinity; only a max pool can")
        return value

    def maximised(self) -> tuple[View, Padding]:
        """The first input of a max pool, and margins around its plane that never win."""
        value = self.values[0]
        if not isinstance(value, View) or value.margins == NO_PADDING:
            return self.view(), NO_PADDING
        return replace(value, margins=NO_PADDING), value.margins

    def weight(self, index: int, what: str) -> Array:
        """An input that must be a constant of real numbers."""
        value = self.value(index)
        if isinstance(value, View):
            raise FileError(f"has a {what} that depends on the image")
        if value.dtype.kind != "f":
            raise FileError(f"has a {what} of {value.dtype}; floats of 16, 32 and 64 bits are read")
        return value

    def stored(self, index: int, outputs: int) -> tuple[Array, Tensor]:
        """A layer's weight as the file stores it, with its axis of `outputs`, 0 or the last of two, first."""
        value = self.values[index] if index < len(self.values) else None
        if isinstance(value, Coded) and value.is_per(outputs):
            weight = value.codes.T if outputs else value.codes
            return weight, Tensor(weight.shape, value.number, value.grid)
        weight = self.weight(index, "weight")
        weight = weight.T if outputs else weight
        return weight, Tensor(weight.shape)

    def bias(self, index: int) -> Array | None:
        """An optional weight."""
        absent = index >= len(self.values) or self.values[index] is None
        return None if absent else self.weight(index, "bias")

    def number(self, index: int, what: str, default: float) -> float:
        """An optional constant of one number."""
        if index >= len(self.values) or self.values[index] is None:
            return default
        value = self.weight(index, what)
        if value.size != 1:
            raise FileError(f"has a {what} of shape {shown(value.shape)}, not one number")
        return float(value.reshape(()))

    def constant(self, index: int) -> list[int] | None:
        """An input of whole numbers; None if it is omitted."""
        if index < len(self.values) and isinstance(self.values[index], View):
            raise FileError(f"has an input {index + 1} that depends on the image")
        value = self.get(index)
        return None if value is None else whole(value, f"its input {index + 1}")

    def axes(self, index: int, name: str = "axes") -> list[int] | None:
        """Axes of the first input, counted from the front: an input in newer operator sets, an attribute before."""
        given = self.constant(index)
        given = self.attributes.ints(name) if given is None else given
        return None if given is None else [along(axis, len(self.any_view().dims)) for axis in given]
