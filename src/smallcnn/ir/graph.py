"""A network as data: an immutable list of named nodes in execution order.

    Graph.nodes     Node(name, op, inputs, tensor), inputs before their consumers, the Input node first
    Graph.outputs   Output(name, node): the results, by the names that files and engines give them
    Graph.taps      names of the maps that a head may read; the last ends the backbone, the head is everything after it

Everything else in the package reads a graph or turns one into another. Build one with `ir.builder.Builder`.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import islice
from math import prod
from typing import Any, TypeVar

from smallcnn.errors import GraphError
from smallcnn.ir import checks, ops
from smallcnn.ir.checks import shown
from smallcnn.ir.ops import Op, Weight
from smallcnn.ir.types import LOGITS, Grid, Shape, Tensor

_NAME = re.compile(r"[A-Za-z_]\w*(\.\w+)*", re.ASCII)
_LONGEST_NAME = 200
_LONGEST_TITLE = 1000
_LONGEST_JSON = 1000 * checks.MOST_NODES  # a node takes about 250 characters
_JSON_VERSION = 2
T = TypeVar("T")


@dataclass(frozen=True)
class Node:
    """One operator in a network; `tensor` is its result."""

    name: str
    op: Op
    inputs: tuple[str, ...]
    tensor: Tensor

    @property
    def shape(self) -> Shape:
        """Shape of the result, channels last, without the batch."""
        return self.tensor.shape


@dataclass(frozen=True, slots=True)
class Output:
    """A result of the network: the name it has outside, and the node that computes it."""

    name: str
    node: str


def make_node(name: str, op: Op, inputs: Sequence[Node]) -> Node:
    """A node with its result inferred; GraphError naming it if the inputs do not fit the operator."""
    _check_name(name)
    least, most = op.inputs_min, op.inputs_max
    if len(inputs) < least or (most is not None and len(inputs) > most):
        wanted = f"{least}" if least == most else f"at least {least}"
        raise GraphError(f"{name}: {op.kind} takes {wanted} input(s), not {len(inputs)}")
    try:
        tensor = _inferred(op, *(node.tensor for node in inputs))
    except GraphError as error:
        raise GraphError(f"{name}: {error}") from None
    return Node(name, op, tuple(node.name for node in inputs), tensor)


@lru_cache(maxsize=1024)  # a node is made, then checked by its graph, and again by each graph made from that
def _inferred(op: Op, *inputs: Tensor) -> Tensor:
    tensor = op.output(*inputs)
    op.check_bounds(*inputs)
    return tensor


def check_count(nodes: int) -> None:
    """Raises GraphError if a network has more nodes than any small CNN."""
    if nodes > checks.MOST_NODES:
        raise GraphError(f"{nodes:,} nodes; at most {checks.MOST_NODES:,} are allowed")


def _check_name(name: object) -> None:
    if not (isinstance(name, str) and len(name) <= _LONGEST_NAME and _NAME.fullmatch(name)):
        raise GraphError(
            f"{shown(name)} is not a node name: letters, digits and _, dots between parts, at most {_LONGEST_NAME} long"
        )


@dataclass(frozen=True)
class Graph:
    """A checked network. `name` describes it (`mobilenet_v1:width=0.5`) and need not be registered."""

    name: str
    nodes: tuple[Node, ...]
    outputs: tuple[Output, ...]
    taps: tuple[str, ...]

    def __post_init__(self) -> None:
        if not (isinstance(self.name, str) and self.name.isprintable() and len(self.name) <= _LONGEST_TITLE):
            raise GraphError(
                f"a graph's name must be one line of at most {_LONGEST_TITLE:,} characters, not {shown(self.name)}"
            )
        if not self.nodes or not isinstance(self.nodes[0].op, ops.Input):
            raise GraphError("a graph starts with its input node")
        check_count(len(self.nodes))
        seen: dict[str, Node] = {}
        for node in self.nodes:
            if node.name in seen:
                raise GraphError(f"{node.name}: two nodes have this name")
            if missing := [name for name in node.inputs if name not in seen]:
                raise GraphError(f"{node.name}: its input {missing[0]!r} is not an earlier node")
            if (made := make_node(node.name, node.op, [seen[name] for name in node.inputs])).tensor != node.tensor:
                if made.shape != node.shape:
                    raise GraphError(f"{node.name}: shape {node.shape} differs from its operator's result")
                raise GraphError(f"{node.name}: {node.tensor.number} differs from its operator's result")
            seen[node.name] = node
        for name in seen:
            parts = name.split(".")
            if clash := next((p for i in range(1, len(parts)) if (p := ".".join(parts[:i])) in seen), None):
                raise GraphError(f"{name}: {clash} is a node itself, so it cannot also be a group of nodes")
        self._check_ends(seen)

    def _check_ends(self, seen: dict[str, Node]) -> None:
        if not self.outputs or not self.taps:
            raise GraphError("a graph has at least one output and one tap")
        if len(self.outputs) > checks.MOST_NODES:
            raise GraphError(f"{len(self.outputs):,} outputs; at most {checks.MOST_NODES:,} are allowed")
        for output in self.outputs:
            _check_name(output.name)
            if output.node not in seen:
                raise GraphError(f"output {shown(output.node)} is not a node")
        for what, names in (("outputs", [output.name for output in self.outputs]), ("taps", self.taps)):
            if twice := next((name for name, count in Counter(names).items() if count > 1), None):
                raise GraphError(f"two {what} are called {shown(twice)}")
        for tap in self.taps:
            if tap not in seen:
                raise GraphError(f"tap {shown(tap)} is not a node")
        if sum(isinstance(node.op, ops.Input) for node in self.nodes) > 1:
            raise GraphError("a graph has one input node")
        if (numbers := sum(prod(node.shape) for node in self.nodes)) > checks.MOST_NUMBERS_IN_ALL:
            raise GraphError(
                f"its results hold {numbers:,} numbers per image; at most {checks.MOST_NUMBERS_IN_ALL:,} are allowed"
            )
        used = {name for node in self.nodes for name in node.inputs} | {output.node for output in self.outputs}
        if unused := [node.name for node in self.nodes if node.name not in used]:
            raise GraphError(f"{unused[0]}: nothing uses this node")
        position = {name: i for i, name in enumerate(seen)}
        if list(self.taps) != sorted(self.taps, key=position.__getitem__):
            raise GraphError(f"taps {', '.join(self.taps)} are not in the order of the nodes")
        split, taps = position[self.features], set(self.taps)
        for node in self.nodes[split + 1 :]:
            if early := [name for name in node.inputs if position[name] < split and name not in taps]:
                raise GraphError(f"{node.name}: reads {early[0]} past the end of the features, {self.features}")

    def __repr__(self) -> str:
        results = ", ".join(str(self[output.node].shape) for output in self.outputs)
        return f"<Graph {self.name}: {len(self.nodes)} nodes, {self.input_shape} -> {results}>"

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)

    def __getitem__(self, name: str) -> Node:
        return self._by_name[name]

    @cached_property
    def _by_name(self) -> dict[str, Node]:
        return {node.name: node for node in self.nodes}

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of one image."""
        height, width, channels = self.nodes[0].shape
        return height, width, channels

    @property
    def output(self) -> str:
        """The node of the only output. Raises GraphError if there are several."""
        if len(self.outputs) > 1:
            names = ", ".join(output.name for output in self.outputs)
            raise GraphError(f"{self.name} has {len(self.outputs)} outputs ({names}), not one")
        return self.outputs[0].node

    @property
    def output_shape(self) -> Shape:
        """Shape of the only output; (classes,) for a classifier. Raises GraphError if there are several."""
        return self[self.output].shape

    @property
    def results(self) -> dict[str, Tensor]:
        """What each output carries, by its name."""
        return {output.name: self[output.node].tensor for output in self.outputs}

    @property
    def features(self) -> str:
        """The last tap: the node that ends the backbone."""
        return self.taps[-1]

    @property
    def integer(self) -> bool:
        """Whether an operator computes with whole numbers: a quantized network, defined by `reference.integer`."""

        def computes(op: Op) -> bool:
            chooses = op.keeps_grid and op.bounds is None
            return not (chooses or isinstance(op, ops.Quantize | ops.Dequantize))

        return any(computes(node.op) and any(self[name].tensor.grid for name in node.inputs) for node in self)

    @cached_property
    def consumers(self) -> dict[str, tuple[Node, ...]]:
        """The nodes that read each node's result, in order."""
        readers: dict[str, list[Node]] = {node.name: [] for node in self.nodes}
        for node in self.nodes:
            for name in dict.fromkeys(node.inputs):
                readers[name].append(node)
        return {name: tuple(nodes) for name, nodes in readers.items()}

    def input_shapes(self, node: Node) -> tuple[Shape, ...]:
        """Shapes of the inputs of `node`."""
        return tuple(self[name].shape for name in node.inputs)

    def is_depthwise(self, node: Node) -> bool:
        """Whether `node` is a convolution in which every input channel has its own filters."""
        return isinstance(node.op, ops.Conv) and node.op.is_depthwise(*self.input_shapes(node))

    def weights_of(self, node: Node) -> dict[str, Weight]:
        """The tensors stored for `node`: 'weight', 'bias', ..."""
        return node.op.weights(*(self[name].tensor for name in node.inputs))

    @cached_property
    def weights(self) -> dict[str, Weight]:
        """Every stored tensor by its full name, `node.tensor`, in order: the state dict of the network."""
        return {f"{n.name}.{key}": weight for n in self.nodes for key, weight in self.weights_of(n).items()}

    def to_json(self) -> str:
        """The graph as a JSON object; shapes and defaults are omitted, as they follow from the rest."""
        return self._json([ops.to_json(node.op) for node in self.nodes])

    def to_json_and_scales(self) -> tuple[str, tuple[float, ...]]:
        """The JSON without the grids of weights that have a scale per output and zeros 0, and these scales in order."""
        records, scales = [], list[float]()
        for node in self.nodes:
            record = ops.to_json(node.op)
            if (grid := _per_output(node.op)) is not None:
                del record["grid"]
                scales += grid.scale
            records.append(record)
        return self._json(records), tuple(scales)

    def _json(self, records: Sequence[dict[str, Any]]) -> str:
        nodes = [
            {"name": node.name, "inputs": node.inputs, **record}
            for node, record in zip(self.nodes, records, strict=True)
        ]
        outputs = [{"name": output.name, "node": output.node} for output in self.outputs]
        record = {"version": _JSON_VERSION, "name": self.name, "outputs": outputs, "taps": self.taps, "nodes": nodes}
        return json.dumps(record, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str, scales: Iterable[float] = ()) -> "Graph":
        """The inverse of `to_json`, or with `scales` of `to_json_and_scales`.

        Version 1, which had one output and one tap, is read too. Raises GraphError, naming the node, if anything is
        missing, unknown, surplus or does not fit.
        """
        if len(text) > _LONGEST_JSON:
            raise GraphError(f"a graph's JSON of {len(text):,} characters; at most {_LONGEST_JSON:,} are allowed")
        try:
            record = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise GraphError(f"not the JSON of a graph: {error}") from error
        version = _entry(record, "version", object)
        if version not in (1, _JSON_VERSION) or isinstance(version, bool):
            raise GraphError(f"graph of version {shown(version)}; this smallcnn reads versions 1 to {_JSON_VERSION}")
        nodes: dict[str, Node] = {}
        entries = _entry(record, "nodes", list)
        check_count(len(entries))
        left = map(float, scales)
        for entry in entries:
            node = _node_from_json(entry, nodes, left)
            if node.name in nodes:
                raise GraphError(f"{node.name}: two nodes have this name")
            nodes[node.name] = node
        if next(left, None) is not None:
            raise GraphError("more scales than its weights have outputs")
        if version == 1:
            outputs, taps = [{"name": LOGITS, "node": _entry(record, "output", str)}], [_entry(record, "features", str)]
        else:
            outputs, taps = _entry(record, "outputs", list), _entry(record, "taps", list)
        if not all(isinstance(tap, str) for tap in taps):
            raise GraphError(f"not the JSON of a graph: 'taps' is {shown(taps)}, not a list of names")
        ends = tuple(Output(_entry(output, "name", str), _entry(output, "node", str)) for output in outputs)
        return cls(_entry(record, "name", str), tuple(nodes.values()), ends, tuple(taps))


def _per_output(op: Op) -> Grid | None:
    """The grid of an operator's weights, if it has a scale for each of several outputs and zeros 0."""
    grid = op.grid if isinstance(op, ops.Conv | ops.Dense) else None
    return grid if grid is not None and len(grid.scale) > 1 and not any(grid.zero) else None


def _node_from_json(entry: object, earlier: dict[str, Node], scales: Iterator[float]) -> Node:
    """The node of an entry; `scales` go to weights on a grid that the entry does not give."""
    name, inputs = _entry(entry, "name", str), _entry(entry, "inputs", list)
    _check_name(name)
    for source in inputs:
        if not (isinstance(source, str) and source in earlier):
            raise GraphError(f"{name}: its input {shown(source)} is not an earlier node")
    assert isinstance(entry, dict)
    attributes = {key: value for key, value in entry.items() if key not in ("name", "inputs")}
    if "number" in attributes and "grid" not in attributes and checks.is_whole(out := attributes.get("out")):
        attributes["grid"] = {"scale": list(islice(scales, out))}
        if len(attributes["grid"]["scale"]) != out:
            raise GraphError(f"{name}: weights of {shown(attributes['number'])} need a grid")
    try:
        op = ops.from_json(attributes)
    except GraphError as error:
        raise GraphError(f"{name}: {error}") from None
    return make_node(name, op, [earlier[source] for source in inputs])


def _entry(record: object, key: str, kind: type[T]) -> T:
    """`record[key]`; GraphError unless it is there and of this kind."""
    if not isinstance(record, dict) or key not in record:
        raise GraphError(f"not the JSON of a graph: {shown(record)} has no {key!r}")
    value = record[key]
    if not isinstance(value, kind):
        raise GraphError(f"not the JSON of a graph: {key!r} is {shown(value)}, not a {kind.__name__}")
    return value
