"""Matches a TensorFlow Lite file to a network layer by layer in execution order, including wiring and shapes.

The file's batch norms are folded, so the result is the folded network. An integer file rounds each layer's output to
the 256 values of its type and saturates outside them. The network here does not round, but a `Clip` saturates at the
same limits, in place of the activation or after the layer.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from math import inf

import numpy as np

from smallcnn.checkpoints.tflite import Layer, TFLite
from smallcnn.errors import FileError, GraphError
from smallcnn.ir import ops
from smallcnn.ir.builder import same_padding
from smallcnn.ir.graph import Graph, Node, make_node
from smallcnn.ir.rewrite import After, only_reader, rewrite
from smallcnn.tflite.file import Grid

_Tensor = tuple[int, int]  # index of the file, index of the tensor in it
_LIMITS = {None: (-inf, inf), "relu": (0.0, inf), "relu6": (0.0, 6.0)}


def lay_layers(graph: Graph, files: Sequence[TFLite]) -> tuple[Graph, dict[str, np.ndarray]]:
    """The folded `graph` with the files' limits, and its weights; the files are consecutive parts of one network.

    Raises FileError at the first layer that does not match the network, showing both sides.
    """
    return _Walk(graph, files).walk()


class _Walk:
    """Walks the network and the files in parallel."""

    def __init__(self, graph: Graph, files: Sequence[TFLite]) -> None:
        self.graph = graph
        self.layers = [(number, layer) for number, file in enumerate(files) for layer in file.layers]
        self.done = 0
        self.ops: dict[str, ops.Op] = {}  # operators that replace the network's
        self.after: dict[str, After] = {}  # limits added after a node
        self.where: dict[str, _Tensor] = {graph.nodes[0].name: (0, files[0].input)}
        self.end: _Tensor = (len(files) - 1, files[-1].output)
        self.joints = {(i + 1, after.input): (i, before.output) for i, (before, after) in enumerate(pairwise(files))}
        self.grids: dict[str, Grid | None] = {graph.nodes[0].name: files[0].grid}
        self.fused: dict[str, Layer] = {}  # nodes whose layer in the file has an activation not yet matched
        self.weights: dict[str, np.ndarray] = {}

    def walk(self) -> tuple[Graph, dict[str, np.ndarray]]:
        graph = self.graph
        for node in graph:
            match node.op:
                case ops.Input():
                    pass
                case ops.Dropout() | ops.Flatten():
                    self._is_same(node)
                case ops.Activation():
                    self._activation(node, node.op)
                case _:
                    self._layer(node, self._next(node))
        if self.fused:
            name, layer = next(iter(self.fused.items()))
            raise self._error(name, f"the file applies {layer.activation} after it, the network does not")
        if self.done < len(self.layers):
            rest = self.layers[self.done :]
            raise FileError(
                f"the file continues after {graph.output}: {len(rest)} more layers, first {_shown(rest[0][1])}"
            )
        if self.where[graph.output] != self.end:
            raise self._error(graph.output, "the network ends here, but the file's output is another tensor")
        result = rewrite(graph, ops=self.ops, after=self.after)
        return result, {name: self.weights[name] for name in result.weights}

    def _next(self, node: Node) -> tuple[int, Layer]:
        if self.done == len(self.layers):
            raise self._error(node.name, f"the file ends before it, after {len(self.layers)} layers")
        self.done += 1
        return self.layers[self.done - 1]

    def _layer(self, node: Node, found: tuple[int, Layer]) -> None:
        number, layer = found
        wanted = [self.where[name] for name in node.inputs]
        got = [self.joints.get((number, tensor), (number, tensor)) for tensor in layer.inputs]
        self._check(node, layer)
        if sorted(wanted) != sorted(got):
            raise self._error(node.name, f"in the file, layer {self.done} reads different layers")
        self.where[node.name], self.grids[node.name] = (number, layer.output), layer.grid
        if layer.weight is not None:
            weight = layer.weight
            bias = np.zeros(len(weight), np.float32) if layer.bias is None else layer.bias
            dense = isinstance(node.op, ops.Dense)
            self.weights[f"{node.name}.weight"] = weight.reshape(len(weight), -1) if dense else weight
            self.weights[f"{node.name}.bias"] = bias
        if layer.activation or self._expressed(node, layer):
            self.fused[node.name] = replace(layer, activation=layer.activation or self._expressed(node, layer))
        elif layer.grid and not (isinstance(node.op, ops.GlobalPool) and layer.grid == self.grids[node.inputs[0]]):
            limits = _clip(layer.grid, None)
            self.after[node.name] = lambda made: [make_node(f"{made.name}_range", limits, [made])]

    def _expressed(self, node: Node, layer: Layer) -> str | None:
        """The activation after `node`, if the file expresses it as its 8-bit tensor's range: from 0, up to 6."""
        reader = only_reader(self.graph, node)
        if layer.grid is None or layer.grid.zero or reader is None or not isinstance(reader.op, ops.Activation):
            return None
        function = reader.op.function
        to_six = layer.grid.high <= 6 + layer.grid.scale / 2
        return function if function == "relu" or (function == "relu6" and to_six) else None

    def _activation(self, node: Node, op: ops.Activation) -> None:
        layer = self.fused.pop(node.inputs[0], None)
        if layer is None or layer.activation != op.function:
            file = layer.activation if layer else "nothing"
            raise self._error(node.name, f"the network applies {op.function} here, the file {file}")
        if layer.grid:
            self.ops[node.name] = _clip(layer.grid, op.function)
        self._is_same(node)

    def _is_same(self, node: Node) -> None:
        """Notes that in the file a node's result is the tensor it reads."""
        self.where[node.name] = self.where[node.inputs[0]]
        self.grids[node.name] = self.grids[node.inputs[0]]

    def _check(self, node: Node, layer: Layer) -> None:
        """Raises FileError unless the layer computes the same as the node."""
        shape = self.graph.input_shapes(node)[0]
        match node.op:
            case ops.Conv() as op:
                one_by_one = op.is_depthwise(shape) or (layer.kind == "depthwise" and shape[2] == 1)  # a grey stem
                right = layer.kind == ("depthwise" if one_by_one else "conv") and layer.stride == op.stride
                if right and _padding(layer, shape, op.kernel) != op.padding:
                    raise self._error(
                        node.name, f"the file pads {_padding(layer, shape, op.kernel)}, the network {op.padding}"
                    )
            case ops.Dense():
                right = layer.kind == "dense" or (layer.kind == "conv" and layer.weight is not None and (
                    layer.weight.shape[2:] == (1, 1)
                ))  # fmt: skip
            case ops.Add():
                right = layer.kind == "add"
            case ops.GlobalPool():
                right = layer.kind == "mean" or (layer.kind == "average" and layer.window == shape[:2])
            case op:
                raise self._error(node.name, f"{op.kind} is not supported in TensorFlow Lite files")
        wanted = self.graph.weights_of(node)
        if layer.weight is not None and right:
            size = layer.weight.reshape(len(layer.weight), -1).shape if isinstance(node.op, ops.Dense) else None
            right = "weight" in wanted and (size or layer.weight.shape) == wanted["weight"].shape
            right = right and (layer.bias is None or layer.bias.shape == (len(layer.weight),))
        if not right:
            weight = f" {wanted['weight'].shape}" if wanted else ""
            raise self._error(node.name, f"the network has {node.op.kind}{weight}, the file {_shown(layer)}")

    def _error(self, name: str, what: str) -> FileError:
        return FileError(f"does not fit {self.graph.name}: at {name}, {what}")


def _clip(grid: Grid, function: str | None) -> ops.Clip:
    """An activation, if any, combined with the limits of the 8-bit tensor that stores its result."""
    low, high = _LIMITS[function]
    try:
        return ops.Clip(low=max(grid.low, low), high=min(grid.high, high))
    except GraphError as error:
        raise FileError(f"{function} never acts on an 8-bit tensor from {grid.low:g} to {grid.high:g}") from error


def _padding(layer: Layer, shape: ops.Shape, kernel: ops.Pair) -> ops.Padding:
    """The padding that the file's layer adds to a map of this shape."""
    if layer.padding == "VALID":
        return layer.before
    (height, width), (down, right) = shape[:2], layer.stride
    return same_padding(height, kernel[0], down), same_padding(width, kernel[1], right)


def _shown(layer: Layer) -> str:
    weight = "" if layer.weight is None else f" {layer.weight.shape}"
    return f"{layer.kind}{weight}, stride {layer.stride[0]}"
