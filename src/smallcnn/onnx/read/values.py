"""The values in an ONNX file: stored tensors and attributes; every size is checked before memory is allocated."""

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto

from smallcnn.errors import FileError
from smallcnn.foreign.views import Array, decimal
from smallcnn.ir.checks import MOST_STORED, shown
from smallcnn.onnx.read.external import DataFiles

MOST_AXES = 16

# the file's number type -> numpy's, and the field that holds values without `raw_data`
_NUMBERS: dict[int, tuple[type, str]] = {
    TensorProto.FLOAT: (np.float32, "float_data"),
    TensorProto.DOUBLE: (np.float64, "double_data"),
    TensorProto.FLOAT16: (np.float16, "int32_data"),
    TensorProto.INT64: (np.int64, "int64_data"),
    TensorProto.INT32: (np.int32, "int32_data"),
    TensorProto.UINT8: (np.uint8, "int32_data"),
    TensorProto.INT8: (np.int8, "int32_data"),
    TensorProto.BOOL: (np.bool_, "int32_data"),
}


def tensor(stored: onnx.TensorProto, what: str, data: DataFiles) -> Array:
    """The values of a stored tensor; FileError unless it is numeric and in this file or one next to it."""
    if stored.data_type not in _NUMBERS:
        raise FileError(f"{what} is stored as {number_type(stored.data_type)}; floats of 16, 32 and 64 bits are read")
    dtype, field = _NUMBERS[stored.data_type]
    shape = tuple(stored.dims)
    empty_but_large = 0 in shape and prod(filter(None, shape)) > MOST_STORED  # which NumPy refuses as well
    if len(shape) > MOST_AXES or min(shape, default=0) < 0 or empty_but_large:
        raise FileError(f"{what} claims the shape {shown(shape)}")
    values: Array
    size = prod(shape) * np.dtype(dtype).itemsize
    little = np.dtype(dtype).newbyteorder("<")
    if stored.data_location == TensorProto.EXTERNAL or stored.external_data:
        values = data.bytes_of(stored, what, size).view(little).astype(dtype, copy=False)
    elif stored.HasField("raw_data"):
        if size != len(stored.raw_data):
            raise FileError(f"{what} holds {len(stored.raw_data)} bytes, which does not match {shown(shape)}")
        values = np.frombuffer(stored.raw_data, little).astype(dtype, copy=False)
    else:
        held = getattr(stored, field)
        if prod(shape) != len(held):
            raise FileError(f"{what} holds {len(held)} values, which does not match {shown(shape)}")
        bits: Array = np.array(held, np.int64 if field == "int32_data" else dtype)
        values = bits.astype(np.uint16).view(np.float16) if dtype is np.float16 else bits.astype(dtype)
    return values.reshape(shape)


def dtype_of(code: int) -> type | None:
    """NumPy's number type for ONNX's code; None if it is not read."""
    return _NUMBERS[code][0] if code in _NUMBERS else None


def number_type(code: int) -> str:
    """ONNX's name of a number type, such as "FLOAT16"."""
    return TensorProto.DataType.Name(code) if code in TensorProto.DataType.values() else f"type {code}"


class Attributes:
    """An operator's attributes, taken one by one; `finish` refuses unused ones."""

    def __init__(self, attributes: Mapping[str, AttributeProto], data: DataFiles) -> None:
        self._left = dict(attributes)
        self._files = data

    def drop(self, *names: str) -> None:
        """Ignores attributes without a meaning here."""
        for name in names:
            self._left.pop(name, None)

    def has(self, name: str) -> bool:
        """Whether an attribute of this name exists."""
        return name in self._left

    def number_type(self, name: str) -> int:
        """A number type by its code or, in old operator sets, its name."""
        if name in self._left and self._left[name].type == AttributeProto.STRING:
            word = self.text(name, "")
            return TensorProto.DataType.Value(word) if word in TensorProto.DataType.keys() else 0  # noqa: SIM118
        return self.whole(name)

    def whole(self, name: str, default: int | None = None) -> int:
        """A whole number."""
        value = self._take(name, AttributeProto.INT, "i", default)
        if value is None:
            raise FileError(f"lacks {name}")
        return int(value)

    def ints(self, name: str, default: list[int] | None = None) -> list[int] | None:
        """Whole numbers, or `default`."""
        value = self._take(name, AttributeProto.INTS, "ints", default)
        return value if value is None else list(value)

    def real(self, name: str, default: float) -> float:
        """The decimal number that was rounded to float32, such as 1e-5."""
        return decimal(self._take(name, AttributeProto.FLOAT, "f", default))

    def text(self, name: str, default: str) -> str:
        """A word."""
        value = self._take(name, AttributeProto.STRING, "s", default)
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else value

    def array(self, name: str) -> Array | None:
        """A tensor, a number or a list of numbers; None if absent."""
        found = self._left.pop(name, None)
        if found is None:
            return None
        match found.type:
            case AttributeProto.TENSOR:
                return tensor(found.t, name, self._files)
            case AttributeProto.FLOAT | AttributeProto.FLOATS:
                return np.array(found.f if found.type == AttributeProto.FLOAT else found.floats, np.float32)
            case AttributeProto.INT | AttributeProto.INTS:
                return np.array(found.i if found.type == AttributeProto.INT else found.ints, np.int64)
        raise FileError(f"{name} is not a number, a list of numbers or a tensor")

    def finish(self) -> None:
        """FileError if an attribute is left."""
        if self._left:
            raise FileError(f"has an unexpected attribute {shown(next(iter(self._left)))}")

    def _take(self, name: str, kind: int, field: str, default: Any) -> Any:
        found = self._left.pop(name, None)
        if found is None:
            return default
        if found.type != kind:
            raise FileError(f"{name} is of the wrong type")
        return getattr(found, field)
