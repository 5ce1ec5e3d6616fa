"""Whole numbers for the network of a quantized file.

Quantized files compute real numbers between a dequantize and a quantize. Here an operator takes the bytes themselves
where it has an integer form (see `reference.integer`), and the dequantizes and quantizes in between go.

A quantize moves before the operators that only move, choose or bound numbers: rounding keeps their order, so each gives
the same bytes. Bounds at the ends of what a byte can hold are then its saturation, and vanish. Bytes of int8 become
uint8 by adding 128 to number and zero. Weights become int8 with zero 0 where they fit. A layer with a real bias stays
float if its sums could exceed int32.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from smallcnn.errors import GraphError
from smallcnn.foreign.simplify import features_of
from smallcnn.foreign.views import Array
from smallcnn.ir import ops
from smallcnn.ir.graph import Graph, Node, Output, make_node
from smallcnn.ir.ops.op import BYTES
from smallcnn.ir.types import RANGES, Grid, Number
from smallcnn.reference.numbers import stored

_Weights = Mapping[str, Array]
_DEEPEST = 50
"""Operators in a row that a quantize may move before."""
_ON_BYTES = ops.Add | ops.Sub | ops.Scale | ops.Pool | ops.GlobalPool | ops.PRelu | ops.Activation
"""Operators that compute with bytes, besides those with weights on a grid."""


def integers(
    graph: Graph, weights: _Weights, biases: _Weights, explicit: Collection[str] | None = None
) -> tuple[Graph, dict[str, Array]]:
    """The network on whole numbers as far as possible, and its weights.

    `biases` are float64 by node where float32 is not exact. In a file of ours the dequantizes named `explicit` stay,
    and so do all number types.
    The end of its features is found again.
    """
    if not any(isinstance(node.op, ops.Quantize) for node in graph):
        return graph, dict(weights)
    made = _Made(graph, weights, biases, explicit)
    return made.graph(), made.weights


@dataclass(frozen=True, eq=False)
class _Value:
    """A real result of the old graph: what a new node holds or stands for, or an operator `op` on other values.

    `name` is its node in the old graph.
    """

    name: str
    held: Node | None
    op: ops.Op | None = None
    inputs: tuple["_Value", ...] = ()
    depth: int = 0


class _Made:
    """The new network, node by node."""

    def __init__(self, old: Graph, weights: _Weights, biases: _Weights, explicit: Collection[str] | None) -> None:
        self._old, self._given, self._biases, self._explicit = old, weights, biases, explicit or ()
        self._ours = explicit is not None
        self._names = {node.name for node in old}
        self._groups = {name[:i] for name in self._names for i, letter in enumerate(name) if letter == "."}
        self._nodes: dict[str, Node] = {}
        self._real: dict[str, Node] = {}
        self.weights: dict[str, Array] = {}
        self._values: dict[str, _Value] = {}
        for node in old:
            self._values[node.name] = self._value(node, [self._values[name] for name in node.inputs])

    def graph(self) -> Graph:
        """The nodes that the outputs depend on."""
        old, outputs = self._old, []
        for output in old.outputs:
            value = self._values[output.node]
            whole = old[output.node].tensor.number != "float32"
            outputs.append(Output(output.name, (self._holding(value) if whole else self._as_real(value)).name))
        used = {output.node for output in outputs}
        for node in reversed(self._nodes.values()):
            if node.name in used:
                used.update(node.inputs)
        nodes = tuple(node for node in self._nodes.values() if node.name in used)
        graph = Graph(old.name, nodes, tuple(outputs), (features_of(nodes),))
        self.weights = {name: self.weights[name] for name in graph.weights}
        return graph

    def _value(self, node: Node, inputs: Sequence[_Value]) -> _Value:
        match node.op:
            case ops.Quantize(number=number, grid=grid):
                held = self._as_bytes(inputs[0], *self._usual(number, grid), node.name)
                return _Value(node.name, held)
            case ops.Dequantize() if node.name in self._explicit:
                return _Value(node.name, self._add(node.name, node.op, [self._holding(inputs[0])]))
            case ops.Dequantize():
                return _Value(node.name, self._holding(inputs[0]))
        sources = [value.held for value in inputs if value.held is not None and value.held.tensor.number in BYTES]
        on_bytes = bool(inputs) and len(sources) == len(inputs)
        if inputs and node.op.keeps_grid:
            if on_bytes and len({(source.tensor.number, source.tensor.grid) for source in sources}) == 1:
                return _Value(node.name, self._kept(node.name, node.op, sources))
            if self._only_quantized(node) and (depth := 1 + max(value.depth for value in inputs)) < _DEEPEST:
                return _Value(node.name, None, node.op, tuple(inputs), depth)
        if (
            on_bytes
            and isinstance(node.op, ops.Conv | ops.Dense)
            and (made := self._weighted(node, node.op, sources[0]))
        ):
            return _Value(node.name, made)
        whole = on_bytes and isinstance(node.op, _ON_BYTES)
        made = self._add(node.name, node.op, sources if whole else [self._as_real(value) for value in inputs])
        for key in self._old.weights_of(node):
            self.weights[f"{made.name}.{key}"] = self._given[f"{node.name}.{key}"]
        return _Value(node.name, made)

    def _usual(self, number: Number, grid: Grid) -> tuple[Number, Grid]:
        """A grid of int8 as one of uint8."""
        if number == "int8" and not self._ours:
            return "uint8", Grid(grid.scale, tuple(zero + 128 for zero in grid.zero))
        return number, grid

    def _only_quantized(self, node: Node) -> bool:
        """Whether the result is read only by quantizes and by operators that keep the grid of their bytes."""
        readers = self._old.consumers[node.name]
        ends = {output.node for output in self._old.outputs}
        return node.name not in ends and all(
            isinstance(reader.op, ops.Quantize) or reader.op.keeps_grid for reader in readers
        )

    def _holding(self, value: _Value) -> Node:
        """The node of a result that the old graph has as whole numbers."""
        assert value.held is not None
        return value.held

    def _as_real(self, value: _Value) -> Node:
        """The node that gives the result as real numbers."""
        held = value.held
        if held is None:
            assert value.op is not None
            if value.name not in self._real:
                inputs = [self._as_real(each) for each in value.inputs]
                self._real[value.name] = self._add(value.name, value.op, inputs)
            return self._real[value.name]
        if held.tensor.number == "float32":
            return held
        if held.name not in self._real:
            label = f"{value.name}_real" if value.name == held.name else value.name
            self._real[held.name] = self._add(label, ops.Dequantize(), [held])
        return self._real[held.name]

    def _as_bytes(self, value: _Value, number: Number, grid: Grid, name: str) -> Node:
        """The node that gives the result as bytes on a grid."""
        if value.held is None:
            assert value.op is not None
            alone = len(value.inputs) == 1
            inputs = [
                self._as_bytes(each, number, grid, name if alone else f"{each.name}_bytes") for each in value.inputs
            ]
            return self._kept(value.name, value.op, inputs)
        tensor = value.held.tensor
        if (tensor.number, tensor.grid) == (number, grid):
            return value.held
        source = self._as_real(value) if tensor.number in BYTES else value.held
        return self._add(name, ops.Quantize(number=number, grid=grid), [source])

    def _kept(self, name: str, op: ops.Op, sources: Sequence[Node]) -> Node:
        """An operator that keeps the grid of its bytes; the bytes themselves if it bounds none of them."""
        tensor = sources[0].tensor
        assert tensor.grid is not None
        if bounds := op.bounds:
            low, high = stored(tensor.number, tensor.grid, np.array(bounds))
            if (low, high) == RANGES[tensor.number]:
                return sources[0]
        return self._add(name, op, sources)

    def _weighted(self, node: Node, op: ops.Conv | ops.Dense, source: Node) -> Node | None:
        """A layer on bytes; None if its weights are not whole, or its bias or its sums do not fit int32."""
        if op.number not in BYTES or op.grid is None:
            return None
        assert source.tensor.grid is not None
        weight = self._given[f"{node.name}.weight"]
        whole = weight.astype(np.int64) - np.array(op.grid.zero).reshape(-1, *[1] * (weight.ndim - 1))
        if not self._ours and whole.min() >= -128 and whole.max() <= 127:
            weight = whole.astype(np.int8)
            op = replace(op, number="int8", grid=Grid(op.grid.scale, (0,) * len(op.grid.zero)))
        try:
            bias = op.weights(source.tensor).get("bias")
        except GraphError:  # a product of scales that float32 cannot hold
            return None
        own = {"weight": weight}
        if bias is not None:
            assert bias.tensor.grid is not None
            real = self._given[f"{node.name}.bias"]
            exact = self._biases.get(node.name)  # unless a shift was merged into it since
            stays = exact is not None and (exact.astype(np.float32) == real).all()
            numbers = np.rint((exact if stays else real.astype(np.float64)) / np.array(bias.tensor.grid.scale))
            (zero,), (least, most) = source.tensor.grid.zero, RANGES[source.tensor.number]
            sums = np.abs(whole).reshape(len(whole), -1).sum(1) * max(zero - least, most - zero)
            if (np.abs(numbers) + (0 if stays else sums)).max() > RANGES["int32"][1]:
                return None
            own["bias"] = numbers.astype(np.int32)
        made = self._add(node.name, op, [source])
        self.weights |= {f"{made.name}.{key}": value for key, value in own.items()}
        return made

    def _add(self, name: str, op: ops.Op, inputs: Sequence[Node]) -> Node:
        """Adds a node, with underscores added to a name that is taken; old nodes keep theirs."""
        while name in self._nodes or name in self._groups:
            name += "_"
            while name in self._names:
                name += "_"
        self._nodes[name] = make_node(name, op, inputs)
        return self._nodes[name]
