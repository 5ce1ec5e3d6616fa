"""The ONNX operators of each of ours; maps are channels first between them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from smallcnn.ir import ops
from smallcnn.ir.graph import Graph, Node
from smallcnn.ir.types import RANGES, Grid, Number, Tensor

NUMBERS: dict[Number, int] = {
    "float32": TensorProto.FLOAT,
    "uint8": TensorProto.UINT8,
    "int8": TensorProto.INT8,
    "int32": TensorProto.INT32,
}
"""ONNX's code of each number type."""


@dataclass
class Nodes:
    """The nodes of an ONNX graph while it is made; `values` maps our node names to ONNX tensor names.

    A node named like one of the names `taken`, the file's input and outputs, is renamed.
    """

    graph: Graph
    weights: Mapping[str, np.ndarray]
    taken: set[str]
    made: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, onnx.TensorProto] = field(default_factory=dict)
    values: dict[str, str] = field(default_factory=dict)

    def emit(
        self, kind: str, inputs: list[str], name: str | None = None, *, label: str | None = None, **attributes: Any
    ) -> str:
        """Adds one ONNX node with one output and returns the output's name; `label` is the node's, if another."""
        name = name or f"/{kind}_{len(self.made)}"  # our node names never contain /
        self.made.append(helper.make_node(kind, inputs, [name], name=label or name, **attributes))
        return name

    def constant(self, name: str, value: np.ndarray) -> str:
        """Adds a stored tensor, once per name."""
        self.constants[name] = numpy_helper.from_array(np.asarray(value, order="C"), name)
        return name

    def weight(self, node: Node, key: str) -> list[str]:
        """The node's stored tensor, as an input of real numbers; none if it has no such tensor."""
        name = f"{node.name}.{key}"
        if name not in self.weights:
            return []
        value, tensor = self.constant(name, self.weights[name]), self.graph.weights[name].tensor
        return [self._dequantized(value, f"{name}.real", tensor)]

    def _dequantized(self, value: str, name: str, tensor: Tensor) -> str:
        """The real numbers that a stored tensor's stand for; a grid of several entries is along its first axis."""
        if tensor.grid is None:
            return value
        axis: dict[str, Any] = {"axis": 0} if len(tensor.grid.scale) > 1 else {}
        return self.emit("DequantizeLinear", [value, *self._grid(name, tensor.number, tensor.grid)], name, **axis)

    def _grid(self, name: str, number: Number, grid: Grid) -> list[str]:
        """Scale and zero point, one number or a list of them."""
        values: tuple[np.ndarray, ...] = (np.array(grid.scale, np.float32), np.array(grid.zero, number))
        if len(grid.scale) == 1:
            values = tuple(value.reshape(()) for value in values)
        return [self.constant(f"{name}.{key}", value) for key, value in zip(("scale", "zero"), values, strict=True)]

    def node(self, node: Node) -> str:
        """Adds the operators of `node`, named after it, and returns the output's name."""
        inputs = [self.values[name] for name in node.inputs]
        name = f"/{node.name}" if node.name in self.taken else node.name
        source = self.graph[node.inputs[0]].tensor
        match node.op:
            case ops.Conv() as op:
                inputs += self.weight(node, "weight") + self.weight(node, "bias")
                return self.emit("Conv", inputs, name, group=op.groups, **_window(op))
            case ops.Dense():
                inputs += self.weight(node, "weight") + self.weight(node, "bias")
                return self.emit("Gemm", inputs, name, transB=1)
            case ops.BatchNorm() as op:
                for key in ("weight", "bias", "running_mean", "running_var"):
                    inputs += self.weight(node, key)
                return self.emit("BatchNormalization", inputs, name, epsilon=op.epsilon)
            case ops.Activation() as op:
                return self._activation(op, inputs, name)
            case ops.Clip(low=low, high=high):
                return self.emit("Clip", inputs + self._bounds(low, high), name)
            case ops.Pad(padding=((top, bottom), (left, right))):
                margins = self.constant(f"{name}.margins", np.array([0, 0, top, left, 0, 0, bottom, right]))
                zero = (
                    [self.constant(f"{name}.zero", np.array(source.grid.zero[0], source.number))] if source.grid else []
                )
                return self.emit("Pad", [*inputs, margins, *zero], name)
            case ops.Pool(function="max") as op:
                return self.emit("MaxPool", self._held(inputs, source.number), name, **_window(op))
            case ops.Pool() as op:
                counts = int(op.count_padding)
                return self.emit(
                    "AveragePool", self._held(inputs, source.number), name, count_include_pad=counts, **_window(op)
                )
            case ops.GlobalPool():
                pooled = self.emit("GlobalAveragePool", inputs, label=name)
                return self.emit("Flatten", [pooled], name, label=f"/{name}.flatten")
            case ops.Flatten():
                return self.emit("Flatten", [self.emit("Transpose", inputs, perm=[0, 2, 3, 1])], name)
            case ops.Add():
                return self.emit("Add" if len(inputs) == 2 else "Sum", inputs, name)
            case ops.Scale():
                axes = self.constant("/axes_of_plane", np.array([2, 3]))
                return self.emit("Mul", [inputs[0], self.emit("Unsqueeze", [inputs[1], axes])], name)
            case ops.Concat():
                return self.emit("Concat", inputs, name, axis=1)
            case ops.Shuffle() as op:
                return self._shuffle(op, node, inputs, name)
            case ops.Slice() as op:
                ends = (("start", op.start), ("stop", op.stop), ("axis", 1))
                inputs += [self.constant(f"{name}.{key}", np.array([value])) for key, value in ends]
                return self.emit("Slice", inputs, name)
            case ops.LocalResponseNorm() as op:
                return self.emit("LRN", inputs, name, size=op.size, alpha=op.alpha, beta=op.beta, bias=op.bias)
            case ops.Dropout():
                return inputs[0]
            case ops.Quantize(number=number, grid=grid):
                return self.emit("QuantizeLinear", [*inputs, *self._grid(name, number, grid)], name)
            case ops.Dequantize():
                return self._dequantized(inputs[0], name, source)
            case op:
                raise NotImplementedError(f"no ONNX form of {op.kind}")

    def _activation(self, op: ops.Activation, inputs: list[str], name: str) -> str:
        match op.function:
            case "relu":
                return self.emit("Relu", inputs, name)
            case "relu6":
                return self.emit("Clip", inputs + self._bounds(0, 6), name)
            case "leaky_relu":
                return self.emit("LeakyRelu", inputs, name, alpha=op.slope)
            case "hard_swish":
                return self.emit("HardSwish", inputs, name)
            case "hard_sigmoid":
                return self.emit("HardSigmoid", inputs, name, alpha=1 / 6, beta=0.5)
            case "sigmoid":
                return self.emit("Sigmoid", inputs, name)

    def _held(self, inputs: list[str], number: Number) -> list[str]:
        """A pool's input; if it is padded with zeros, clipped to bounds that no number exceeds.

        ONNX Runtime otherwise moves the zeros into the pool's own padding, which never wins a maximum.
        """
        if all(node.op_type != "Pad" for node in self.made if node.output[0] == inputs[0]):
            return inputs
        largest = float(np.finfo(np.float32).max)
        low, high = RANGES.get(number, (-largest, largest))
        return [self.emit("Clip", inputs + self._bounds(low, high, number))]

    def _bounds(self, low: float, high: float, number: Number = "float32") -> list[str]:
        """Clip's two inputs, shared by equal bounds."""
        bounds = [np.array(value, number) for value in (low, high)]
        return [self.constant(f"/bound_{value.item()!r}", value) for value in bounds]

    def _shuffle(self, op: ops.Shuffle, node: Node, inputs: list[str], name: str) -> str:
        height, width, channels = node.shape
        apart = np.array([0, op.groups, channels // op.groups, height, width])
        together = np.array([0, channels, height, width])
        x = self.emit("Reshape", [inputs[0], self.constant(f"{node.name}.apart", apart)])
        x = self.emit("Transpose", [x], perm=[0, 2, 1, 3, 4])
        return self.emit("Reshape", [x, self.constant(f"{node.name}.together", together)], name)


def _window(op: ops.Conv | ops.Pool) -> dict[str, Any]:
    (top, bottom), (left, right) = op.padding
    return {"kernel_shape": list(op.kernel), "strides": list(op.stride), "pads": [top, left, bottom, right]}
