"""Parses an ONNX file into steps and stored tensors.

Unsupported content (other domains, sparse tensors) is refused by name.
"""

import heapq
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import onnx
from onnx import AttributeProto

from smallcnn.errors import FileError
from smallcnn.foreign.views import Array
from smallcnn.ir.checks import shown
from smallcnn.onnx.read.external import DataFiles
from smallcnn.onnx.read.functions import inlined
from smallcnn.onnx.read.outline import outline
from smallcnn.onnx.read.parts import parts_of
from smallcnn.onnx.read.tails import Cut, cut
from smallcnn.onnx.read.values import tensor

OPSETS = range(1, 27)
"""Supported operator sets; newer ones may have changed meanings."""


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

    `outputs`: tensors by the names of the graph's outputs, or of a detector's `PARTS`, which the file joins. `labels`
    come from a classifier's tail.
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
    data: DataFiles
    detector: bool = False

    @property
    def is_ours(self) -> bool:
        """Whether smallcnn wrote it."""
        return "smallcnn.format" in self.metadata

    @property
    def is_quantized_by_others(self) -> bool:
        """Whether another program added grids: `onnx.write` names each after its node."""
        grids = ((step.name, step.inputs[1:2]) for step in self.steps if step.kind == "DequantizeLinear")
        return any([*scale] != [f"{name}.scale"] for name, scale in grids)

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


def unpack(model: onnx.ModelProto, data: DataFiles | None = None) -> File:
    """Checks and sorts the content of `model`; FileError naming anything unsupported."""
    data = data or DataFiles(None)
    if not model.graph.node:
        raise FileError("damaged or not an ONNX file: it holds no operators")
    model = inlined(model)
    graph = model.graph
    if graph.sparse_initializer:
        raise FileError("stores sparse tensors; store them densely")
    opset = _opset(model)
    metadata = {_words(entry.key): _words(entry.value) for entry in model.metadata_props}
    ours = "smallcnn.format" in metadata
    parts = None if ours else parts_of(graph)
    end = Cut(parts or {value.name: value.name for value in graph.output}, None) if ours or parts else cut(graph)
    steps = _steps(graph, end.outputs.values())
    read = {name for step in steps for name in step.inputs} | {*end.outputs.values()}
    constants: dict[str, Array] = {}
    for stored in graph.initializer:
        if stored.name in constants:
            raise FileError(f"stores two tensors {shown(stored.name)}")
        if stored.name in read:
            constants[stored.name] = tensor(stored, shown(stored.name), data)
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
        data=data,
        detector=parts is not None,
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


def _words(said: str | bytes) -> str:
    """Printable text; protobuf returns bytes where the file is not UTF-8."""
    return said if isinstance(said, str) else said.decode("utf-8", "replace")


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(map(shown, names[:3])) + (", ..." if len(names) > 3 else "")
