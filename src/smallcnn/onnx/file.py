"""The bytes of an ONNX file -> its steps and stored tensors, with every size checked before memory is taken for it.

What is not plain (parts in other files, functions, other domains, sparse tensors) is refused by name.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto

from smallcnn.checks import shown
from smallcnn.errors import FileError

Array = np.ndarray

OPSETS = range(7, 27)
"""Broadcasting has today's meaning since 7; newer sets than the last may have changed a meaning again."""

_MOST_STEPS = 10_000
_MOST_AXES = 16

# number type in the file -> in numpy, and the field that holds values if `raw_data` does not
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


@dataclass(frozen=True)
class Step:
    """One operator of the file; "" among the inputs is one left out."""

    kind: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, AttributeProto]


@dataclass(frozen=True)
class Picture:
    """The file's input: its name, number type and sides, None where they are open."""

    name: str
    type: int
    sides: tuple[int | None, ...]


@dataclass(frozen=True)
class File:
    """What an ONNX file holds, as far as a network needs it."""

    name: str
    producer: str
    opset: int
    picture: Picture
    output: str
    steps: tuple[Step, ...]
    constants: Mapping[str, Array]
    metadata: Mapping[str, str]


def parse(content: bytes) -> onnx.ModelProto:
    """The file's message; FileError if the bytes are none."""
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        return onnx.ModelProto.FromString(content)
    except (DecodeError, RecursionError) as error:
        raise FileError("damaged or not an ONNX file") from error


def unpack(model: onnx.ModelProto) -> File:
    """Checks and sorts what is in `model`; FileError naming what cannot be read."""
    graph = model.graph
    if not graph.node:
        raise FileError("damaged or not an ONNX file: it holds no operators")
    if len(graph.node) > _MOST_STEPS:
        raise FileError(f"has {len(graph.node)} operators; at most {_MOST_STEPS} are read")
    if model.functions:
        raise FileError(f"defines functions of its own ({shown(model.functions[0].name)}); inline them first")
    if graph.sparse_initializer:
        raise FileError("stores sparse tensors; store them densely")
    constants: dict[str, Array] = {}
    for stored in graph.initializer:
        if stored.name in constants:
            raise FileError(f"stores two tensors {shown(stored.name)}")
        constants[stored.name] = tensor(stored, shown(stored.name))
    inputs = [value for value in graph.input if value.name not in constants]
    if len(inputs) != 1:
        raise FileError(
            f"takes {len(inputs)} inputs ({_some(v.name for v in inputs)}); one picture is all there can be"
        )
    if len(graph.output) != 1:
        names = _some(value.name for value in graph.output)
        raise FileError(f"gives {len(graph.output)} outputs ({names}); keep the one with the classes")
    return File(
        name=_words(graph.name),
        producer=f"{_words(model.producer_name)} {_words(model.producer_version)}".strip(),
        opset=_opset(model),
        picture=_picture(inputs[0]),
        output=graph.output[0].name,
        steps=_steps(graph),
        constants=constants,
        metadata={_words(entry.key): _words(entry.value) for entry in model.metadata_props},
    )


def _opset(model: onnx.ModelProto) -> int:
    versions = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    if len(versions) != 1 or versions[0] not in OPSETS:
        found = " and ".join(map(str, versions)) or "none"
        raise FileError(f"uses operator set {found}; {OPSETS[0]} to {OPSETS[-1]} are read")
    return int(versions[0])


def _picture(value: onnx.ValueInfoProto) -> Picture:
    kind = value.type.tensor_type
    if not value.type.HasField("tensor_type") or not kind.HasField("shape"):
        raise FileError(f"its input {shown(value.name)} is no tensor with a declared shape")
    sides = tuple(dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else None for dim in kind.shape.dim)
    return Picture(value.name, kind.elem_type, sides)


def _steps(graph: onnx.GraphProto) -> tuple[Step, ...]:
    """Those the output depends on, in their order, each after what it reads."""
    made: set[str] = {value.name for value in (*graph.input, *graph.initializer)}
    for node in graph.node:
        for name in node.output:
            if name in made:
                raise FileError(f"makes {shown(name)} twice")
            if name:
                made.add(name)
    wanted = {value.name for value in graph.output}
    steps = []
    for node in reversed(graph.node):
        if wanted.isdisjoint(name for name in node.output if name):
            continue
        wanted.update(name for name in node.input if name)
        steps.append(_step(node))
    return tuple(reversed(steps))


def _step(node: onnx.NodeProto) -> Step:
    outputs = tuple(node.output)
    name = _words(node.name or next(filter(None, outputs), ""))
    if node.domain not in ("", "ai.onnx"):
        raise FileError(f"{shown(name)}: the operator {shown(node.op_type)} of {shown(node.domain)} is not known")
    attributes = {attribute.name: attribute for attribute in node.attribute}
    if len(attributes) != len(node.attribute):
        raise FileError(f"{shown(name)}: has an attribute twice")
    return Step(node.op_type, name, tuple(node.input), outputs, attributes)


def tensor(stored: onnx.TensorProto, what: str) -> Array:
    """The values of a stored tensor; FileError unless it is one of numbers, all in this file."""
    if stored.data_location == TensorProto.EXTERNAL or stored.external_data:
        raise FileError(f"{what} is stored in another file; save the model in one file")
    if stored.data_type not in _NUMBERS:
        raise FileError(f"{what} is stored as {number_type(stored.data_type)}; floats of 16, 32 and 64 bits are read")
    dtype, field = _NUMBERS[stored.data_type]
    shape = tuple(stored.dims)
    if len(shape) > _MOST_AXES or min(shape, default=0) < 0:
        raise FileError(f"{what} claims the shape {shown(shape)}")
    values: Array
    if stored.HasField("raw_data"):
        size = np.dtype(dtype).itemsize
        if prod(shape) * size != len(stored.raw_data):
            raise FileError(f"{what} holds {len(stored.raw_data)} bytes, not those of {shown(shape)}")
        values = np.frombuffer(stored.raw_data, np.dtype(dtype).newbyteorder("<")).astype(dtype, copy=False)
    else:
        held = getattr(stored, field)
        if prod(shape) != len(held):
            raise FileError(f"{what} holds {len(held)} values, not those of {shown(shape)}")
        bits: Array = np.array(held, np.int64 if field == "int32_data" else dtype)
        values = bits.astype(np.uint16).view(np.float16) if dtype is np.float16 else bits.astype(dtype)
    return values.reshape(shape)


def number_type(code: int) -> str:
    """ONNX's name of a number type, as "FLOAT16"."""
    return TensorProto.DataType.Name(code) if code in TensorProto.DataType.values() else f"type {code}"


class Attributes:
    """An operator's attributes, taken one by one; `finish` refuses those that nobody asked for."""

    def __init__(self, attributes: Mapping[str, AttributeProto]) -> None:
        self._left = dict(attributes)

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
        """The decimal number that was rounded to float32, as 1e-5."""
        return decimal(self._take(name, AttributeProto.FLOAT, "f", default))

    def text(self, name: str, default: str) -> str:
        """A word."""
        value = self._take(name, AttributeProto.STRING, "s", default)
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else value

    def array(self, name: str) -> Array | None:
        """A tensor, a number or a list of numbers; None if there is none of this name."""
        found = self._left.pop(name, None)
        if found is None:
            return None
        match found.type:
            case AttributeProto.TENSOR:
                return tensor(found.t, name)
            case AttributeProto.FLOAT | AttributeProto.FLOATS:
                return np.array(found.f if found.type == AttributeProto.FLOAT else found.floats, np.float32)
            case AttributeProto.INT | AttributeProto.INTS:
                return np.array(found.i if found.type == AttributeProto.INT else found.ints, np.int64)
        raise FileError(f"{name} is no number, list of numbers or tensor")

    def finish(self) -> None:
        """FileError if an attribute is left."""
        if self._left:
            raise FileError(f"has an attribute {shown(next(iter(self._left)))} that it should not have")

    def _take(self, name: str, kind: int, field: str, default: Any) -> Any:
        found = self._left.pop(name, None)
        if found is None:
            return default
        if found.type != kind:
            raise FileError(f"{name} is of the wrong type")
        return getattr(found, field)


def decimal(value: float) -> float:
    """The shortest decimal number that float32 rounds to this one: what somebody wrote."""
    return float(str(np.float32(value)))


def _words(said: str | bytes) -> str:
    """Text for people; protobuf hands out bytes where a file holds no UTF-8."""
    return said if isinstance(said, str) else said.decode("utf-8", "replace")


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(map(shown, names[:3])) + (", ..." if len(names) > 3 else "")
