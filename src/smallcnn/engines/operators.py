"""Single operators in ONNX Runtime, for what looks at every result of a network (see `transform.quantize.values`)."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from smallcnn.ir import ops
from smallcnn.ir.graph import Graph, Node
from smallcnn.onnx.nodes import Nodes
from smallcnn.onnx.write import IR_VERSION, OPSET
from smallcnn.system.cpu import core_limit
from smallcnn.system.denormals import flushed

_TOGETHER = 8
"""Images that an operator computes at a time; more take memory and no less time."""


class Operators:
    """Computes the nodes of one float network on batches, channels last; weights are given with each call."""

    def __init__(self, graph: Graph, threads: int | None = None) -> None:
        self._graph, self._threads = graph, threads
        self._sessions: dict[str, Any] = {}

    def __call__(self, node: Node, inputs: list[np.ndarray], weights: Mapping[str, np.ndarray]) -> np.ndarray:
        """The result of a node, float32 (N, ...)."""
        if isinstance(node.op, ops.Dropout):
            return inputs[0]
        session = self._sessions.get(node.name) or self._sessions.setdefault(node.name, self._start(node))
        feeds = dict(zip(map(_input, node.inputs), inputs, strict=True))  # one that is read twice is given once
        own = {f"{node.name}.{key}": value for key, value in weights.items()}
        result = np.empty((len(inputs[0]), *node.shape), np.float32)
        with flushed():
            for start in range(0, len(result), _TOGETHER):
                some = slice(start, start + _TOGETHER)
                (result[some],) = session.run(None, {name: value[some] for name, value in feeds.items()} | own)
        return result

    def _start(self, node: Node) -> Any:
        import onnxruntime as ort

        shapes = {name: self._graph[name].shape for name in node.inputs}
        own = {f"{node.name}.{key}": weight.shape for key, weight in self._graph.weights_of(node).items()}
        nodes = Nodes(self._graph, {name: np.empty(0) for name in own}, taken={"result", *map(_input, shapes)})
        for name, shape in shapes.items():
            first = len(shape) == 3
            nodes.values[name] = nodes.emit("Transpose", [_input(name)], perm=[0, 3, 1, 2]) if first else _input(name)
        made = nodes.node(node)
        if len(node.shape) == 3:
            nodes.emit("Transpose", [made], "result", perm=[0, 2, 3, 1])
        else:
            nodes.emit("Identity", [made], "result")
        given = [_value(_input(name), ["N", *shape]) for name, shape in shapes.items()]
        given += [_value(name, list(shape)) for name, shape in own.items()]
        constants = [value for name, value in nodes.constants.items() if name not in own]
        graph = helper.make_graph(nodes.made, "node", given, [_value("result", ["N", *node.shape])], constants)
        file = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = self._threads or core_limit() or 0
        options.enable_cpu_mem_arena = False  # each session would keep its own
        options.enable_mem_pattern = False
        return ort.InferenceSession(file.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _input(name: str) -> str:
    return f"/{name}"


def _value(name: str, shape: list[Any]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
