"""The quantized network for given grids: bytes on its edges, int8 weights, int32 biases."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np

from smallcnn.errors import GraphError
from smallcnn.ir import ops
from smallcnn.ir.graph import Graph, Node, Output, make_node
from smallcnn.ir.rewrite import unused_name
from smallcnn.ir.types import RANGES, Grid
from smallcnn.reference.numbers import stored
from smallcnn.transform.fold import Weights
from smallcnn.transform.quantize.edges import check_integer_forms, find_edges
from smallcnn.transform.quantize.stored import weight_grid

Array = np.ndarray


def insert(
    graph: Graph,
    weights: Weights,
    grids: Mapping[str, Grid],
    keep_float: Collection[str] = (),
    *,
    weight_grids: Mapping[str, Grid] = {},
) -> tuple[Graph, dict[str, Array]]:
    """The quantized form of a ready network (see `ready`), and its weights.

    `grids` gives the grid, of uint8, of each edge (see `find_edges`). Nodes `keep_float` read a dequantize and compute
    float32. Weights have a scale for each output, see `weight_grid`, or the grids given for layers. Layers keep their
    names; a quantize has the name of the activation that it replaces, or its layer's with `_bytes` added.

    Raises GraphError if a grid is missing, if edges of one group have different grids, or for a node without an integer
    form that is not kept in float.
    """
    edges = find_edges(graph, keep_float)
    check_integer_forms(graph, edges.in_float)
    if missing := [name for name in edges.names if name not in grids]:
        raise GraphError(f"{graph.name}: no grid for {missing[0]}")
    for group in edges.groups:
        if other := [name for name in group if grids[name] != grids[group[0]]]:
            raise GraphError(f"{graph.name}: {group[0]} and {other[0]} must share a grid, as they are joined")
    made = _Made(graph)
    values: dict[str, Array] = {}
    ends = {output.node for output in graph.outputs}
    for node in graph:
        in_float = node.name in edges.in_float
        forms = made.real if in_float else made.bytes
        inputs = [forms[name] for name in node.inputs]
        if node.op.bounds and not in_float and _bounded_by(inputs[0].tensor.grid, node.op):
            made.bytes[node.name] = inputs[0]
        else:
            op, own = _stored_layer(node, inputs, weights, None if in_float else weight_grids)
            new = made.add(node.name, op, inputs)
            values |= own
            if not in_float and op.keeps_grid:
                made.bytes[node.name] = new
            elif node.name in edges.of:
                edge = edges.of[node.name]
                replaced = graph[edge].inputs == (node.name,) and _bounded_by(grids[edge], graph[edge].op)
                quantize = ops.Quantize(number="uint8", grid=grids[edge])
                made.bytes[node.name] = made.add(edge if replaced else f"{node.name}_bytes", quantize, [new])
            if in_float or (node.name not in made.bytes and new.tensor.number == "float32"):
                made.real[node.name] = new
        if node.name in ends or any(reader.name in edges.in_float for reader in graph.consumers[node.name]):
            made.dequantize(node.name)
    return made.graph(graph), values


def _bounded_by(grid: Grid | None, op: ops.Op) -> bool:
    """Whether bounding the bytes of a grid by the stored numbers of an operator's bounds changes none."""
    assert grid is not None
    return op.bounds is not None and tuple(stored("uint8", grid, np.array(op.bounds))) == RANGES["uint8"]


def _stored_layer(
    node: Node, inputs: Sequence[Node], weights: Weights, grids: Mapping[str, Grid] | None
) -> tuple[ops.Op, dict[str, Array]]:
    """The operator with its weights on grids, if not None, and these by their full names."""
    keys = [name for name in ("weight", "bias") if f"{node.name}.{name}" in weights]
    own = {key: weights[f"{node.name}.{key}"] for key in keys}
    op = node.op
    if isinstance(op, ops.Conv | ops.Dense) and grids is not None:
        source = inputs[0].tensor.grid
        assert source is not None
        grid = grids.get(node.name) or weight_grid(own["weight"], own.get("bias"), source)
        op = replace(op, number="int8", grid=grid)
        for key, weight in op.weights(inputs[0].tensor).items():
            assert weight.tensor.grid is not None
            own[key] = stored(weight.tensor.number, weight.tensor.grid, own[key])
    return op, {f"{node.name}.{key}": value for key, value in own.items()}


class _Made:
    """The nodes of a new graph; `bytes` and `real` are the forms of each old node's result that exist."""

    def __init__(self, old: Graph) -> None:
        self._old = old
        self._nodes: dict[str, Node] = {}
        self.bytes: dict[str, Node] = {}
        self.real: dict[str, Node] = {}

    def add(self, name: str, op: ops.Op, inputs: Sequence[Node]) -> Node:
        """Adds a node, with underscores added to its name while an old or a new node has it."""
        if name not in {node.name for node in self._old}:
            name = unused_name(self._old, name)
        while name in self._nodes:
            name += "_"
        self._nodes[name] = make_node(name, op, inputs)
        return self._nodes[name]

    def dequantize(self, name: str) -> None:
        """Adds the real form of an old node's result, unless it has one: that of its bytes, or else of its sums."""
        if name not in self.real:
            self.real[name] = self.add(f"{name}_real", ops.Dequantize(), [self.bytes.get(name) or self._nodes[name]])

    def graph(self, old: Graph) -> Graph:
        """The new graph: outputs are real, and a tap is what its readers read."""
        outputs = tuple(Output(output.name, self.real[output.node].name) for output in old.outputs)
        ends = [self.bytes.get(tap) or self.real.get(tap) or self._nodes[tap] for tap in old.taps]
        taps = tuple(dict.fromkeys(node.name for node in ends))
        return Graph(old.name, tuple(self._nodes.values()), outputs, taps)
