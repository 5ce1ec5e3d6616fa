"""The ONNX operators of each of ours; maps are channels first between them."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from smallcnn.ir import ops
from smallcnn.ir.graph import Graph, Node
from smallcnn.ir.ops.op import BYTES
from smallcnn.ir.types import Grid, Number, Tensor
from smallcnn.onnx import detection
from smallcnn.reference.numbers import stored

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
        self,
        kind: str,
        inputs: list[str],
        name: str | None = None,
        *,
        label: str | None = None,
        more: Sequence[str] = (),
        **attributes: Any,
    ) -> str:
        """Adds one ONNX node and returns its first output's name; `more` are those of others, and `label` is the
        node's, if another."""
        name = name or f"/{kind}_{len(self.made)}"  # our node names never contain /
        self.made.append(helper.make_node(kind, inputs, [name, *more], name=label or name, **attributes))
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
        """Scale and zero point, one number or a list of them; whole sums have no zero point."""
        values = {"scale": np.array(grid.scale, np.float32), "zero": np.array(grid.zero, number)}
        if number == "int32":
            del values["zero"]
        if len(grid.scale) == 1:
            values = {key: value.reshape(()) for key, value in values.items()}
        return [self.constant(f"{name}.{key}", value) for key, value in values.items()]

    def node(self, node: Node) -> str:
        """Adds the operators of `node`, named after it, and returns the output's name.

        Operators that keep the grid of their bytes run on the bytes. All others read real numbers, so bytes are
        dequantized before each of them: the form that engines recognise and run on integer kernels.
        """
        name = renamed(node.name, self.taken)
        inputs = [self.values[source] for source in node.inputs]
        if node.tensor.number not in BYTES and not isinstance(node.op, ops.Dequantize):
            for i, source in enumerate(self.graph[source].tensor for source in node.inputs):
                if source.number in BYTES:
                    inputs[i] = self._dequantized(inputs[i], f"{name}/input{i}", source)
        return self._operators(node, inputs, name)

    def _operators(self, node: Node, inputs: list[str], name: str) -> str:
        """The operators of `node` on these inputs."""
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
                return self._activation(op, source, inputs, name)
            case ops.PRelu():
                return self.emit("PRelu", inputs + self._slopes(node, source), name)
            case ops.Exp():
                return self.emit("Exp", inputs, name)
            case ops.Resize() as op:
                return self._resize(op, source, inputs, name)
            case ops.Clip(low=low, high=high):
                return self.emit("Clip", inputs + self._bounds(source, low, high), name)
            case ops.Pad(padding=((top, bottom), (left, right))):
                margins = self.constant(f"{name}.margins", np.array([0, 0, top, left, 0, 0, bottom, right]))
                inputs.append(margins)
                if source.number in BYTES and source.grid:
                    inputs.append(self.constant(f"{name}.zero", np.array(source.grid.zero[0], source.number)))
                return self.emit("Pad", inputs, name)
            case ops.Pool(function="max") as op:
                return self.emit("MaxPool", self._held(source, inputs), name, **_window(op))
            case ops.Pool() as op:
                attributes = _window(op) | {"count_include_pad": int(op.count_padding)}
                return self.emit("AveragePool", self._held(source, inputs), name, **attributes)
            case ops.GlobalPool():
                pooled = self.emit("GlobalAveragePool", inputs, label=name)
                return pooled if self._quantized_next(node) else self._flat(pooled, name)
            case ops.Flatten():
                last = self.emit("Transpose", inputs, perm=[0, 2, 3, 1]) if len(source.shape) == 3 else inputs[0]
                return self.emit("Flatten", [last], name)
            case ops.Add():
                return self.emit("Add" if len(inputs) == 2 else "Sum", inputs, name)
            case ops.Sub():
                return self.emit("Sub", inputs, name)
            case ops.Scale():
                axes = self.constant("/axes_of_plane", np.array([2, 3]))
                return self.emit("Mul", [inputs[0], self.emit("Unsqueeze", [inputs[1], axes])], name)
            case ops.Concat():
                return self.emit("Concat", inputs, name, axis=_channel_axis(node))
            case ops.Rows(columns=columns):
                shape = self.constant(f"{name}.shape", np.array([0, -1, columns]))
                return self.emit("Reshape", [self.emit("Transpose", inputs, perm=[0, 2, 3, 1]), shape], name)
            case ops.Join():
                return self.emit("Concat", inputs, name, axis=1)
            case ops.Detect() as op:
                classes = op.found_classes(self.graph.input_shapes(node)[1])
                return detection.detect(self, op, inputs, classes, name)
            case ops.Count():
                return detection.count(self, inputs, name)
            case ops.Shuffle() as op:
                return self._shuffle(op, node, inputs, name)
            case ops.Slice() as op:
                ends = (("start", op.start), ("stop", op.stop), ("axis", _channel_axis(node)))
                inputs += [self.constant(f"{name}.{key}", np.array([value])) for key, value in ends]
                return self.emit("Slice", inputs, name)
            case ops.LocalResponseNorm() as op:
                return self.emit(
                    "LRN", inputs, name, size=op.size, alpha=float(op.alpha), beta=float(op.beta), bias=float(op.bias)
                )
            case ops.Dropout():
                return inputs[0]
            case ops.Quantize(number=number, grid=grid):
                inputs += self._grid(name, number, grid)
                before = self.graph[node.inputs[0]]
                if isinstance(before.op, ops.GlobalPool) and self._quantized_next(before):
                    return self._flat(self.emit("QuantizeLinear", inputs, label=name), name)
                return self.emit("QuantizeLinear", inputs, name)
            case ops.Dequantize():  # sums are real numbers in the file
                return inputs[0] if source.number == "int32" else self._dequantized(inputs[0], name, source)
            case op:
                raise NotImplementedError(f"no ONNX form of {op.kind}")

    def _slopes(self, node: Node, source: Tensor) -> list[str]:
        """PRelu's second input, which is aligned with the last axes of its first."""
        name = f"{node.name}.slope"
        return [self.constant(name, self.weights[name].reshape(-1, *[1] * (2 if len(source.shape) == 3 else 0)))]

    def _resize(self, op: ops.Resize, source: Tensor, inputs: list[str], name: str) -> str:
        """Resize by scales, as sizes would include the batch.

        Nearest pixels are gathered instead if the rounding of a scale could decide which they are.
        """
        sides = tuple(zip(source.shape[:2], (op.height, op.width), strict=True))
        if op.mode == "nearest" and not all(_sure(op, *side) for side in sides):
            rows, columns = (np.array([low for low, _, _ in op.taps(*side)]) for side in sides)
            x = self.emit("Gather", [*inputs, self.constant(f"{name}.rows", rows)], axis=2)
            return self.emit("Gather", [x, self.constant(f"{name}.columns", columns)], name, axis=3)
        scales = [np.float32(after / before) for before, after in sides]
        for i, (before, after) in enumerate(sides):
            if float(scales[i]) < Fraction(after, before):  # sizes are rounded down
                scales[i] = np.nextafter(scales[i], np.float32(np.inf))
        inputs += ["", self.constant(f"{name}.scales", np.array([1, 1, *scales], np.float32))]
        how = {"mode": "nearest", "nearest_mode": op.rounding} if op.mode == "nearest" else {"mode": "linear"}
        return self.emit("Resize", inputs, name, coordinate_transformation_mode=op.coordinates, **how)

    def _activation(self, op: ops.Activation, source: Tensor, inputs: list[str], name: str) -> str:
        match op.function:
            case "relu" if source.number not in BYTES:
                return self.emit("Relu", inputs, name)
            case "relu" | "relu6":
                high = 6.0 if op.function == "relu6" else np.inf
                return self.emit("Clip", inputs + self._bounds(source, 0.0, high), name)
            case "leaky_relu":
                return self.emit("LeakyRelu", inputs, name, alpha=op.slope)
            case "hard_swish":
                return self.emit("HardSwish", inputs, name)
            case "hard_sigmoid":
                return self.emit("HardSigmoid", inputs, name, alpha=1 / 6, beta=0.5)
            case "sigmoid":
                return self.emit("Sigmoid", inputs, name)

    def _quantized_next(self, node: Node) -> bool:
        """Whether only quantizes read the result, which is then recognised only if nothing comes between."""
        readers = self.graph.consumers[node.name]
        return bool(readers) and all(isinstance(reader.op, ops.Quantize) for reader in readers)

    def _flat(self, value: str, name: str) -> str:
        """(N, C, 1, 1) -> (N, C)."""
        return self.emit("Flatten", [value], name, label=f"/{name}.flatten")

    def _held(self, source: Tensor, inputs: list[str]) -> list[str]:
        """A pool's input; if it is padded with zeros, clipped to bounds that no number exceeds.

        ONNX Runtime otherwise moves the zeros into the pool's own padding, which never wins a maximum.
        """
        if all(node.op_type != "Pad" for node in self.made if node.output[0] == inputs[0]):
            return inputs
        largest = float(np.finfo(np.float32).max)
        return [self.emit("Clip", inputs + self._bounds(source, -largest, largest))]

    def _bounds(self, source: Tensor, low: float, high: float) -> list[str]:
        """Clip's two inputs, shared by equal bounds: of bytes, the stored numbers nearest to the bounds."""
        bounds = np.array([low, high], np.float32)
        if source.number in BYTES and source.grid:
            bounds = stored(source.number, source.grid, bounds)
        return [self.constant(f"/bound_{bound.dtype}_{bound.item()!r}", bound) for bound in bounds]

    def _shuffle(self, op: ops.Shuffle, node: Node, inputs: list[str], name: str) -> str:
        height, width, channels = node.shape
        apart = np.array([0, op.groups, channels // op.groups, height, width])
        together = np.array([0, channels, height, width])
        x = self.emit("Reshape", [inputs[0], self.constant(f"{node.name}.apart", apart)])
        x = self.emit("Transpose", [x], perm=[0, 2, 1, 3, 4])
        return self.emit("Reshape", [x, self.constant(f"{node.name}.together", together)], name)


def _sure(op: ops.Resize, before: int, after: int) -> bool:
    """Whether no rounding of the scale to float32 can change the nearest pixels along an axis."""
    if op.coordinates == "align_corners" or Fraction(float(np.float32(after / before))) == Fraction(after, before):
        return True
    half = Fraction(0 if op.rounding in ("floor", "ceil") else 1, 2)
    return all((op.position(pixel, before, after) + half).denominator > 1 for pixel in range(1, after))


def renamed(name: str, taken: Collection[str]) -> str:
    """The ONNX name of a node's result, where the file's input and outputs have taken some."""
    return f"/{name}" if name in taken else name


def _channel_axis(node: Node) -> int:
    """The axis of a result's channels: rows, like vectors, have them last."""
    return 2 if len(node.shape) == 2 else 1


def _window(op: ops.Conv | ops.Pool) -> dict[str, Any]:
    (top, bottom), (left, right) = op.padding
    dilation = {"dilations": list(op.dilation)} if isinstance(op, ops.Conv) and op.dilation != (1, 1) else {}
    pads = [top, left, bottom, right]
    return {"kernel_shape": list(op.kernel), "strides": list(op.stride), "pads": pads, **dilation}
