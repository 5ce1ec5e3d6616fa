"""ONNX files as others write them, made by hand, and ONNX Runtime's answers to them."""

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from smallcnn.ir import ops
from smallcnn.model.probe import output_error
from smallcnn.onnx import from_onnx
from smallcnn.reference import floating as reference
from smallcnn.reference import integer

# float32 sums over at most a few thousand terms, against float64: about 1e-7 * sqrt(terms)
TOLERANCE = 1e-5


def exact_sums():
    """Options with which ONNX Runtime adds products of bytes in 32 bits; without VNNI they else saturate at 16."""
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", "1")
    return options


def answer(model, x):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def answer_as_written(model, x):
    """ONNX Runtime's answer, computed operator by operator as the file has them."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(model.SerializeToString(), options).run(None, {"x": x})[0]


def integer_layers(graph):
    return [n.name for n in graph if isinstance(n.op, ops.Conv | ops.Dense) and n.op.number in ("int8", "uint8")]


def defined(read, images):
    """The definition's answer for the only output."""
    definition = integer if read.graph.integer else reference
    (answers,) = definition.run(read.graph, read.weights, images).values()
    return answers


def made(nodes, shape, stored=None, *, opset=17, kind=TensorProto.FLOAT, sides=None, outputs=("y",)):
    """A model that turns `x` into `y`; `stored` are tensors by name, `shape` the image's."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", kind, sides or shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (stored or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def node(kind, inputs, output, **attributes):
    return helper.make_node(
        kind, inputs.split(), output.split(), name=f"{kind}_{output.replace(' ', '_')}", **attributes
    )


def random(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def checked(model, shape, channels_last=False):
    """The graph of a model whose answer to a random image is ONNX Runtime's."""
    x = random(*shape, seed=7)
    read = from_onnx(model)
    got = reference.answer(read.graph, read.weights, read.entry.of(x if channels_last else x.transpose(0, 2, 3, 1)))
    assert output_error(got.reshape(-1), answer(model, x).reshape(-1)) < TOLERANCE
    return read.graph


def kinds(graph):
    """Operators in order; an activation by its function."""
    return [n.op.function if isinstance(n.op, ops.Activation) else n.op.kind for n in graph.nodes[1:]]


def head(name="m", channels=4):
    """From a map of `channels` to the classes."""
    return [
        node("GlobalAveragePool", name, "pooled"),
        node("Flatten", "pooled", "flat"),
        node("Gemm", "flat dense", "y", transB=1),
    ]


STEM = node("Conv", "x w", "s", pads=[1, 1, 1, 1])
STORED = {"w": random(4, 3, 3, 3), "dense": random(2, 4), "v": random(4)}
