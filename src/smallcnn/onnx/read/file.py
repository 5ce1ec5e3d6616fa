"""Parses an ONNX file into steps and stored tensors; every size is checked before memory is allocated.

Unsupported content (other domains, sparse tensors) is refused by name.
"""

import heapq
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto

from smallcnn.errors import FileError
from smallcnn.foreign.views import Array, decimal
from smallcnn.ir.checks import MOST_STORED, shown
from smallcnn.onnx.read.external import Beside
from smallcnn.onnx.read.functions import inlined
from smallcnn.onnx.read.outline import outline
from smallcnn.onnx.read.tails import Cut, cut

OPSETS = range(1, 27)
"""Supported operator sets; newer ones may have changed meanings."""

_MOST_AXES = 16

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


@dataclass(frozen=True)
class Step:
    """One operator of the file; "" stands for an omitted input."""

    kind: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, AttributeProto]


@dataclass(frozen=True)
class ImageInput:
    """The file's input: name, number type and sides, None where they are open."""

    name: str
    type: int
    sides: tuple[int | None, ...]


@dataclass(frozen=True)
class File:
    """The content of an ONNX file that a network needs.

    `outputs`: tensors by the names of the graph's outputs. `labels` come from a classifier's tail.
    """

    name: str
    producer: str
    opset: int
    image: ImageInput
    outputs: Mapping[str, str]
    steps: tuple[Step, ...]
    constants: Mapping[str, Array]
    metadata: Mapping[str, str]
    labels: tuple[str, ...] | None
    beside: Beside

    @property
    def is_ours(self) -> bool:
        """Whether smallcnn wrote it."""
        return "smallcnn.format" in self.metadata

    @property
    def gives_probabilities(self) -> bool:
        """Whether a file of ours applies the ending of its classifier."""
        return self.metadata.get("smallcnn.output") == "probabilities"


def parse(content: bytes) -> onnx.ModelProto:
    """The file's message; FileError if the bytes are not one, or hold far more than a small CNN."""
    outline(content)
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        return onnx.ModelProto.FromString(content)
    except (DecodeError, RecursionError) as error:
        raise FileError("damaged or not an ONNX file") from error


def unpack(model: onnx.ModelProto, beside: Beside | None = None) -> File:
    """Checks and sorts the content of `model`; FileError naming anything unsupported."""
    beside = beside or Beside(None)
    if not model.graph.node:
        raise FileError("damaged or not an ONNX file: it holds no operators")
    model = inlined(model)
    graph = model.graph
    if graph.sparse_initializer:
        raise FileError("stores sparse tensors; store them densely")
    opset = _opset(model)
    metadata = {_words(entry.key): _words(entry.value) for entry in model.metadata_props}
    ours = "smallcnn.format" in metadata
    end = Cut({value.name: value.name for value in graph.output}, None) if ours else cut(graph)
    steps = _steps(graph, end.outputs.values())
    read = {name for step in steps for name in step.inputs} | {*end.outputs.values()}
    constants: dict[str, Array] = {}
    for stored in graph.initializer:
        if stored.name in constants:
            raise FileError(f"stores two tensors {shown(stored.name)}")
        if stored.name in read:
            constants[stored.name] = tensor(stored, shown(stored.name), beside)
    made = {name for step in steps for name in step.outputs} | constants.keys() | {value.name for value in graph.input}
    for step in steps:
        if missing := [name for name in step.inputs if name and name not in made]:
            raise FileError(
                f"{shown(step.kind)} ({shown(step.name)}): reads {shown(missing[0])}, which no operator produces"
            )
    inputs = [value for value in graph.input if value.name not in {stored.name for stored in graph.initializer}]
    used = [value for value in inputs if value.name in read]
    if len(used) != 1:
        raise FileError(
            f"takes {len(inputs)} inputs ({_some(v.name for v in inputs)}); a classifier takes one image"
            if len(used) > 1
            else "its output does not depend on the image"
        )
    return File(
        name=_words(graph.name),
        producer=f"{_words(model.producer_name)} {_words(model.producer_version)}".strip(),
        opset=opset,
        image=_image(used[0]),
        outputs=end.outputs,
        steps=steps,
        constants=constants,
        metadata=metadata,
        labels=end.labels,
        beside=beside,
    )


def _opset(model: onnx.ModelProto) -> int:
    versions = {int(entry.version) for entry in model.opset_import if entry.domain in ("", "ai.onnx")}
    if not model.opset_import and model.ir_version < 3:  # the format had no operator sets yet
        return 1
    if len(versions) != 1 or not versions.issubset(OPSETS):
        found = " and ".join(map(str, sorted(versions)[:3])) or "none"
        raise FileError(f"uses operator set {found}; {OPSETS[0]} to {OPSETS[-1]} are read")
    return versions.pop()


def _image(value: onnx.ValueInfoProto) -> ImageInput:
    kind = value.type.tensor_type
    if not value.type.HasField("tensor_type"):
        raise FileError(f"its input {shown(value.name)} is not a tensor")
    if not kind.HasField("shape"):
        return ImageInput(value.name, kind.elem_type, (None,) * 4)
    sides = tuple(dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else None for dim in kind.shape.dim)
    return ImageInput(value.name, kind.elem_type, sides)


def _steps(graph: onnx.GraphProto, outputs: Iterable[str]) -> tuple[Step, ...]:
    """The steps `outputs` depend on, each after its inputs, otherwise in file order."""
    taken = {value.name for value in (*graph.input, *graph.initializer)}
    maker: dict[str, int] = {}
    for i, node in enumerate(graph.node):
        for name in filter(None, node.output):
            if name in maker or name in taken:
                raise FileError(f"produces {shown(name)} twice")
            maker[name] = i
    wanted: set[int] = set()
    ahead = [maker[output] for output in outputs if output in maker]
    while ahead:
        at = ahead.pop()
        if at not in wanted:
            wanted.add(at)
            ahead += [maker[name] for name in graph.node[at].input if name in maker]
    return tuple(_step(graph.node[i]) for i in _in_order(graph, wanted, maker))


def _in_order(graph: onnx.GraphProto, wanted: set[int], maker: Mapping[str, int]) -> list[int]:
    """The `wanted` nodes by index, each after its inputs; FileError if there is a cycle."""
    before = {i: {maker[name] for name in graph.node[i].input if name in maker} for i in wanted}
    after: dict[int, list[int]] = {i: [] for i in wanted}
    for i, sources in before.items():
        for source in sources:
            after[source].append(i)
    ready = [i for i, sources in before.items() if not sources]
    heapq.heapify(ready)
    order = []
    while ready:
        at = heapq.heappop(ready)
        order.append(at)
        for i in after[at]:
            before[i].discard(at)
            if not before[i]:
                heapq.heappush(ready, i)
    if len(order) < len(wanted):
        stuck = graph.node[min(wanted.difference(order))]
        raise FileError(f"its operators read each other in a circle, at {shown(_words(stuck.name or stuck.op_type))}")
    return order


def _step(node: onnx.NodeProto) -> Step:
    outputs = tuple(node.output)
    name = _words(node.name or next(filter(None, outputs), ""))
    if node.domain not in ("", "ai.onnx"):
        raise FileError(f"{shown(name)}: the operator {shown(node.op_type)} of {shown(node.domain)} is not supported")
    attributes = {attribute.name: attribute for attribute in node.attribute}
    if len(attributes) != len(node.attribute):
        raise FileError(f"{shown(name)}: has an attribute twice")
    return Step(node.op_type, name, tuple(node.input), outputs, attributes)


def tensor(stored: onnx.TensorProto, what: str, beside: Beside) -> Array:
    """The values of a stored tensor; FileError unless it is numeric and in this file or one next to it."""
    if stored.data_type not in _NUMBERS:
        raise FileError(f"{what} is stored as {number_type(stored.data_type)}; floats of 16, 32 and 64 bits are read")
    dtype, field = _NUMBERS[stored.data_type]
    shape = tuple(stored.dims)
    empty_but_large = 0 in shape and prod(filter(None, shape)) > MOST_STORED  # which NumPy refuses as well
    if len(shape) > _MOST_AXES or min(shape, default=0) < 0 or empty_but_large:
        raise FileError(f"{what} claims the shape {shown(shape)}")
    values: Array
    size = prod(shape) * np.dtype(dtype).itemsize
    little = np.dtype(dtype).newbyteorder("<")
    if stored.data_location == TensorProto.EXTERNAL or stored.external_data:
        values = beside.bytes_of(stored, what, size).view(little).astype(dtype, copy=False)
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


def number_type(code: int) -> str:
    """ONNX's name of a number type, such as "FLOAT16"."""
    return TensorProto.DataType.Name(code) if code in TensorProto.DataType.values() else f"type {code}"


class Attributes:
    """An operator's attributes, taken one by one; `finish` refuses unused ones."""

    def __init__(self, attributes: Mapping[str, AttributeProto], beside: Beside) -> None:
        self._left = dict(attributes)
        self._beside = beside

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
                return tensor(found.t, name, self._beside)
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


def _words(said: str | bytes) -> str:
    """Printable text; protobuf returns bytes where the file is not UTF-8."""
    return said if isinstance(said, str) else said.decode("utf-8", "replace")


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(map(shown, names[:3])) + (", ..." if len(names) > 3 else "")
