"""Writes a model as one ONNX file, straight from the graph.

Input `images`: uint8 (N, H, W, C) RGB or grey, any N; normalisation is inside. Outputs by the names and in the number
types of the graph's, channels last; a classifier's file may give `probabilities`, after the model's ending, softmax or
sigmoid, instead. Batch norm is folded and dropout removed. For its metadata see `model.metadata`.

A network of whole numbers is written as QuantizeLinear and DequantizeLinear, which engines run on integer kernels.

Every export is run in ONNX Runtime and compared with the reference of the unfolded network before it is written.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from smallcnn.errors import ExportError
from smallcnn.ir.graph import Graph
from smallcnn.ir.predictors import detector
from smallcnn.ir.types import Shape
from smallcnn.model.metadata import describe
from smallcnn.model.model import Model
from smallcnn.model.probe import probe_answer, probe_image, relative_error, rounding, tolerance
from smallcnn.model.sightings import telling
from smallcnn.model.store import check_finite
from smallcnn.onnx.nodes import NUMBERS, Nodes, renamed
from smallcnn.system.cpu import sums_bytes_exactly
from smallcnn.system.files import atomic
from smallcnn.tasks import ending
from smallcnn.tasks.classification import Classification, classification
from smallcnn.transform.fold import fold

OPSET, IR_VERSION = 17, 8
"""Old enough for every runtime in use, new enough for HardSwish (14)."""

_IMAGES = "images"


def export(model: Model, path: Path | str, *, probabilities: bool = False) -> float:
    """Checks and writes the file; returns the relative error found. A classifier's ends in `probabilities` or logits.

    Raises ExportError, without writing, if probabilities are requested of a network that gives scores, or if an answer
    of ONNX Runtime is off by more than `probe.tolerance` or, in a network of bytes, than `probe.rounding` explains.
    """
    model = model.in_rgb()
    check_finite(model, model.graph.name)
    file = to_onnx(model, probabilities=probabilities)
    answer = probe_answer(model.graph, model.weights, model.preprocessing)
    if probabilities:
        (logits,) = answer.values()
        answer = {"probabilities": ending.probabilities(logits, _for_probabilities(model).ending)}
    helper.set_model_props(file, describe(model, probabilities=probabilities, answer=answer))
    content = file.SerializeToString()
    error, allowed = _error(content, model, answer), tolerance(integer=model.graph.integer)
    if error > allowed and model.graph.integer and not detector(model.graph):
        allowed = max(allowed, rounding(_runner(content, optimise=False), model.graph.input_shape))
    if twin := telling(model.graph, answer):
        other = replace(model, graph=twin)
        wanted = probe_answer(other.graph, other.weights, other.preprocessing)
        error = max(error, _error(to_onnx(other).SerializeToString(), other, wanted))
    if not error <= allowed:
        raise ExportError(
            f"the exported {model.graph.name} is off by {error:.1e} of its largest output in ONNX Runtime "
            f"(allowed: {allowed:.0e}); nothing written"
        )
    with atomic(path) as temporary:
        temporary.write_bytes(content)
    return error


def _for_probabilities(model: Model) -> Classification:
    """The model's task, whose ending gives probabilities."""
    task = classification(model.task, "probabilities")
    if task.ending == "none":
        raise ExportError(f"{model.graph.name} gives scores (ending none), not probabilities")
    return task


def _error(content: bytes, model: Model, answer: Mapping[str, np.ndarray]) -> float:
    return relative_error(_runner(content)(probe_image(model.graph.input_shape)), answer)


def _runner(content: bytes, *, optimise: bool = True) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """ONNX Runtime's answer to one image by output, without the batch."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    if not optimise:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    if not sums_bytes_exactly():  # as the engine does
        options.add_session_config_entry("session.x64quantprecision", "1")
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda images: {
        name: np.asarray(value)[0] for name, value in zip(names, session.run(names, {_IMAGES: images}), strict=True)
    }


def to_onnx(model: Model, *, probabilities: bool = False) -> onnx.ModelProto:
    """The file in memory, structurally checked but not run; without the probe's answer, which `export` adds."""
    last = _for_probabilities(model).ending.capitalize() if probabilities else "Identity"
    model = model.in_rgb()
    graph, weights = fold(model.graph, model.weights)
    names = {"probabilities": graph.output} if probabilities else {out.name: out.node for out in graph.outputs}
    nodes = Nodes(graph, weights, taken={_IMAGES, *names})
    scale, shift = model.preprocessing.scale_and_shift()
    x = nodes.emit("Transpose", [_IMAGES], perm=[0, 3, 1, 2])
    x = nodes.emit("Cast", [x], to=TensorProto.FLOAT)
    x = nodes.emit("Mul", [x, nodes.constant("/scale", scale.reshape(1, -1, 1, 1))])
    nodes.values["input"] = nodes.emit("Add", [x, nodes.constant("/shift", shift.reshape(1, -1, 1, 1))])
    for node in graph.nodes[1:]:
        nodes.values[node.name] = nodes.node(node)
    outputs = []
    for name, end in names.items():
        tensor = graph[end].tensor
        if tensor.number == "int32":
            raise ExportError(f"the output {name} of {graph.name} is whole sums, which ONNX has no form for")
        if len(tensor.shape) == 3:
            nodes.emit("Transpose", [nodes.values[end]], name, perm=[0, 2, 3, 1])
        else:
            nodes.emit(last, [nodes.values[end]], name)
        outputs.append(_value(name, NUMBERS[tensor.number], tensor.shape))
    onnx_graph = helper.make_graph(
        nodes.made,
        graph.name or "network",  # the format requires a name
        [_value(_IMAGES, TensorProto.UINT8, graph.input_shape)],
        outputs,
        list(nodes.constants.values()),
    )
    file = helper.make_model(
        onnx_graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="smallcnn"
    )
    helper.set_model_props(file, describe(model, probabilities=probabilities))
    onnx.checker.check_model(file)
    return file


def add_outputs(file: onnx.ModelProto, graph: Graph, nodes: Sequence[str], prefix: str) -> None:
    """Adds the results of nodes, float32 and not maps, to the outputs of the graph's file."""
    for node in nodes:
        made = renamed(node, {_IMAGES, *graph.results})
        file.graph.node.append(helper.make_node("Identity", [made], [prefix + node]))
        file.graph.output.append(_value(prefix + node, TensorProto.FLOAT, graph[node].shape))


def _value(name: str, number: int, shape: Shape) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, number, ["N", *shape])
