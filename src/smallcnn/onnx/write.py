"""Writes an artifact as one ONNX file, straight from the graph.

Input `images`: uint8 (N, H, W, C) RGB or grey, any N; normalisation is inside. Output `logits`, or `probabilities`
after the model's ending, softmax or sigmoid: float32 (N, classes). Batch norm is folded and dropout removed. For its
metadata see `model.metadata`.

Every export is run in ONNX Runtime and compared with the reference of the unfolded network before it is written.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import onnx
from onnx import TensorProto, helper, numpy_helper
from smallcnn.errors import ExportError
from smallcnn.ir import ops
from smallcnn.ir.graph import Graph, Node
from smallcnn.model.metadata import describe
from smallcnn.model.model import Model
from smallcnn.model.probe import TOLERANCE, agrees, output_error, probe_answer, probe_image
from smallcnn.model.store import check_finite
from smallcnn.system.files import atomic
from smallcnn.tasks.classification import classification
from smallcnn.tasks.ending import probabilities as answers
from smallcnn.transform.fold import fold

OPSET, IR_VERSION = 17, 8
"""Old enough for every runtime in use, new enough for HardSwish (14)."""

_ENDS = ("images", "logits", "probabilities")
"""Names of the file's input and outputs; a graph node with one of them is renamed."""


def export(artifact: Model, path: Path | str, *, probabilities: bool = False) -> float:
    """Checks and writes the file; returns the relative error found. It ends in `probabilities` or in logits.

    Raises ExportError, without writing, if probabilities are requested of a network that gives scores, or if ONNX
    Runtime's answer is off by more than `probe.TOLERANCE`.
    """
    artifact = artifact.in_rgb()
    check_finite(artifact, artifact.graph.name)
    model = to_onnx(artifact, probabilities=probabilities)
    answer = probe_answer(artifact.graph, artifact.weights, artifact.preprocessing)
    if probabilities:
        ending = classification(artifact.task, "probabilities").ending
        (logits,) = answer.values()
        answer = {"probabilities": answers(logits, ending)}
    helper.set_model_props(model, describe(artifact, probabilities=probabilities, answer=answer))
    content = model.SerializeToString()
    error = output_error(_run(content, probe_image(artifact.graph.input_shape))[0], *answer.values())
    if not agrees(error):
        raise ExportError(
            f"the exported {artifact.graph.name} is off by {error:.1e} of its largest output in ONNX Runtime "
            f"(allowed: {TOLERANCE:.0e}); nothing written"
        )
    with atomic(path) as beside:
        beside.write_bytes(content)
    return error


def _run(content: bytes, images: np.ndarray) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"images": images})[0])


def _output(probabilities: bool) -> str:
    return "probabilities" if probabilities else "logits"


def to_onnx(artifact: Model, *, probabilities: bool = False) -> onnx.ModelProto:
    """The model in memory, structurally checked but not run; without the probe's answer, which `export` adds."""
    ending = classification(artifact.task, "probabilities").ending if probabilities else "none"
    if probabilities and ending == "none":
        raise ExportError(f"{artifact.graph.name} gives scores (ending none), not probabilities")
    artifact = artifact.in_rgb()
    graph, weights = fold(artifact.graph, artifact.weights)
    writer = _Writer(graph, weights)
    height, width, channels = graph.input_shape
    scale, shift = artifact.preprocessing.scale_and_shift()
    x = writer.emit("Transpose", ["images"], perm=[0, 3, 1, 2])
    x = writer.emit("Cast", [x], to=TensorProto.FLOAT)
    x = writer.emit("Mul", [x, writer.constant("/scale", scale.reshape(1, -1, 1, 1))])
    x = writer.emit("Add", [x, writer.constant("/shift", shift.reshape(1, -1, 1, 1))])
    writer.values["input"] = x
    for node in graph.nodes[1:]:
        writer.values[node.name] = writer.node(node)
    output = _output(probabilities)
    last = ending.capitalize() if probabilities else "Identity"
    writer.emit(last, [writer.values[graph.output]], name=output)
    onnx_graph = helper.make_graph(
        writer.nodes,
        graph.name or "network",  # the format requires a name
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", height, width, channels])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["N", *graph.output_shape])],
        list(writer.constants.values()),
    )
    model = helper.make_model(
        onnx_graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="smallcnn"
    )
    helper.set_model_props(model, describe(artifact, probabilities=probabilities))
    onnx.checker.check_model(model)
    return model


@dataclass
class _Writer:
    """Collects ONNX nodes, channels first inside; `values` maps our node names to ONNX tensor names."""

    graph: Graph
    weights: Mapping[str, np.ndarray]
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, onnx.TensorProto] = field(default_factory=dict)
    values: dict[str, str] = field(default_factory=dict)

    def emit(self, kind: str, inputs: list[str], name: str | None = None, **attributes: Any) -> str:
        """Adds one ONNX node with one output and returns the output's name."""
        name = name or f"/{kind}_{len(self.nodes)}"  # our node names never contain /
        self.nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def constant(self, name: str, value: np.ndarray) -> str:
        """Adds a stored tensor, once per name."""
        self.constants[name] = numpy_helper.from_array(np.asarray(value, order="C"), name)
        return name

    def weight(self, node: Node, key: str) -> list[str]:
        """The node's stored tensor, as an input; none if it has no such tensor."""
        name = f"{node.name}.{key}"
        return [self.constant(name, self.weights[name])] if name in self.weights else []

    def node(self, node: Node) -> str:
        """Adds the operators of `node`, named after it, and returns the output's name."""
        inputs = [self.values[name] for name in node.inputs]
        name = f"/{node.name}" if node.name in _ENDS else node.name
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
                return self.emit("Pad", [*inputs, margins], name)
            case ops.Pool(function="max") as op:
                return self.emit("MaxPool", self._held(inputs), name, **_window(op))
            case ops.Pool() as op:
                counts = int(op.count_padding)
                return self.emit("AveragePool", self._held(inputs), name, count_include_pad=counts, **_window(op))
            case ops.GlobalPool():
                return self.emit("Flatten", [self.emit("GlobalAveragePool", inputs)], name)
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

    def _held(self, inputs: list[str]) -> list[str]:
        """A pool's input; if it is padded with zeros, clipped to bounds that no number exceeds.

        ONNX Runtime otherwise moves the zeros into the pool's own padding, which never wins a maximum.
        """
        if all(node.op_type != "Pad" for node in self.nodes if node.output[0] == inputs[0]):
            return inputs
        largest = float(np.finfo(np.float32).max)
        return [self.emit("Clip", inputs + self._bounds(-largest, largest))]

    def _bounds(self, low: float, high: float) -> list[str]:
        """Clip's two inputs, shared by equal bounds."""
        return [self.constant(f"/bound_{value!r}", np.array(value, np.float32)) for value in (float(low), float(high))]

    def _shuffle(self, op: ops.Shuffle, node: Node, inputs: list[str], name: str) -> str:
        height, width, channels = node.shape
        apart = np.array([0, op.groups, channels // op.groups, height, width])
        together = np.array([0, channels, height, width])
        x = self.emit("Reshape", [inputs[0], self.constant(f"{node.name}.apart", apart)])
        x = self.emit("Transpose", [x], perm=[0, 2, 1, 3, 4])
        return self.emit("Reshape", [x, self.constant(f"{node.name}.together", together)], name)


def _window(op: ops.Conv | ops.Pool) -> dict[str, list[int]]:
    (top, bottom), (left, right) = op.padding
    return {"kernel_shape": list(op.kernel), "strides": list(op.stride), "pads": [top, left, bottom, right]}
