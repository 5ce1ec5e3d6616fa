"""Damaged ONNX files: each is an error of one line, or a network whose answer is ONNX Runtime's."""

import functools

import numpy as np
import onnx
import pytest
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from artifacts import artifact
from fuzz import damage, survive
from networks import every_op, resized, tiny
from onnx_files import STORED, head, made, node, random
from smallcnn import zoo
from smallcnn.cost.profile import profile
from smallcnn.errors import SmallcnnError
from smallcnn.onnx import from_onnx, to_onnx
from smallcnn.onnx.read.file import parse
from smallcnn.onnx.read.tails import cut
from smallcnn.reference import floating as reference

MODELS = (
    "effnet_cifar:block=revised",
    "mobilenet_v1:width=0.25,small_input=true",
    "mobilenet_v2:width=0.35,small_input=true",
    "mobilenet_v3_small:small_input=true",
    "shufflenet_v1:scale=0.25,small_input=true",
    "shufflenet_v2:scale=0.5,small_input=true",
    "squeezenet_1_1:small_input=true",
)

TOLERANCE = 1e-3
"""Damaged weights make sums that cancel; a wrong layer changes the answer's first digit."""

MOST_MULT_ADDS, MOST_ELEMENTS = 10**8, 10**7  # what is worth running

KINDS = (
    "Add", "AveragePool", "BatchNormalization", "Clip", "Concat", "Conv", "Div", "Flatten", "Gather", "Gemm",
    "GlobalAveragePool", "HardSigmoid", "HardSwish", "Identity", "LRN", "LeakyRelu", "MatMul", "MaxPool", "Mul", "Pad",
    "ReduceMean", "Relu", "Reshape", "Shape", "Sigmoid", "Slice", "Softmax", "Split", "Squeeze", "Sub", "Transpose",
    "Unsqueeze", "Expand", "ConstantOfShape", "Range", "Erf", "If", "ArgMax", "TopK", "ReduceMax", "PRelu", "Neg",
    "GatherND", "CastLike", "Cast", "ImageScaler", "Affine", "Min", "Max", "Sum", "Dropout", "Resize", "Shape",
    "Exp", "Upsample",
)  # fmt: skip
HARMLESS = (
    "Relu", "Identity", "Transpose", "Softmax", "Sigmoid", "GlobalAveragePool", "Flatten", "Squeeze", "HardSwish",
    "Shape", "ReduceMean", "MaxPool", "Dropout", "Clip",
)  # fmt: skip
ODD = (-(2**63), -(2**31), -2, -1, 0, 1, 2, 3, 4, 7, 2**31, 2**40, 2**62)


@functools.cache
def originals() -> tuple[bytes, ...]:
    """Our files, and the same as others write them: a float image, channels first, no metadata."""
    graphs = [every_op(), resized(), tiny(), *(zoo.parse(text).build(resolution=16, classes=3) for text in MODELS)]
    ours = [to_onnx(artifact(graph)) for graph in graphs]
    return tuple(model.SerializeToString() for model in (*ours, *map(foreign, ours), *others()))


def others() -> list[onnx.ModelProto]:
    """Small networks as other writers spell them: scaled inside, gated, gathered, in any order, with a tail."""
    stored = STORED | {
        "k": np.float32(255),
        "i": np.array([2, 1, 0]),
        "p": np.array([3, 1, 0, 2]),
        "mean": random(3, 1, 1) + 100,
        "two": np.array([2]),
        "one": np.float32(0.4),
        "low": np.float32(-0.5),
        "high": np.float32(5),
    }
    stem = node("Conv", "a w", "s", pads=[1, 1, 1, 1])
    scaled = [node("Gather", "x i", "b", axis=1), node("Sub", "b mean", "c"), node("Div", "c k", "a")]
    turned = [node("Mul", "x one", "t"), node("Transpose", "t", "a", perm=[0, 3, 1, 2])]
    gates = [
        [node("HardSigmoid", "s", "h", alpha=0.3, beta=0.4), node("Mul", "h s", "m")],
        [node("Add", "s one", "h"), node("Clip", "h low high", "q"), node("Mul", "q s", "m")],
        [node("Gather", "s p", "r", axis=1), node("Dropout", "r", "m mask")],
        [node("MaxPool", "s", "m places", kernel_shape=[2, 2]), node("Relu", "m", "m2")],
    ]
    made_here = [
        made([*start, stem, *gate, *head()], shape, stored)
        for gate in gates
        for start, shape in ((scaled, [1, 3, 9, 8]), (turned, [1, 9, 8, 3]))
    ]
    for model in made_here[::3]:
        nodes = list(model.graph.node)[::-1]
        del model.graph.node[:]
        model.graph.node.extend(nodes)
    for model, kind in zip(made_here[1::3], ("Softmax", "Sigmoid", "ArgMax"), strict=False):
        model.graph.node.append(node(kind, "y", "end"))
        model.graph.output[0].name = "end"
    old = made([node("Identity", "x", "a"), stem, node("Mul", "s one", "m", broadcast=1), *head()[:2],
                node("Gemm", "flat dense two_", "y", transB=1, broadcast=1)], [1, 3, 9, 8],
               stored | {"two_": random(2)}, opset=6)  # fmt: skip
    return [*made_here, old]


def foreign(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model from behind its normalisation on."""
    other = onnx.ModelProto()
    other.CopyFrom(model)
    height, width, channels = (d.dim_value for d in other.graph.input[0].type.tensor_type.shape.dim[1:])
    other.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", channels, height, width]))
    entry = other.graph.node[3].output[0]
    del other.graph.node[:4]
    for step in other.graph.node:
        step.input[:] = ["x" if name == entry else name for name in step.input]
    del other.metadata_props[:]
    return other


def rearrange(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    """One change to what the model says."""
    graph = model.graph
    node = graph.node[rng.integers(len(graph.node))]
    names = [name for other in graph.node for name in (*other.input, *other.output)] + ["", "nowhere"]
    match rng.integers(17):
        case 0:
            node.op_type = str(rng.choice(KINDS))
        case 1 if node.input:
            node.input[rng.integers(len(node.input))] = names[rng.integers(len(names))]
        case 2:
            node.output[0] = names[rng.integers(len(names))]
        case 3:
            graph.node.remove(node)
        case 4:
            graph.node.add().CopyFrom(node)
        case 5 if node.attribute:
            attribute(node.attribute[rng.integers(len(node.attribute))], rng)
        case 6 if node.attribute:
            del node.attribute[rng.integers(len(node.attribute))]
        case 7:
            added = node.attribute.add(
                name=str(
                    rng.choice(
                        ["axis", "pads", "perm", "group", "strides", "auto_pad", "to", "broadcast", "is_test", "alpha"]
                    )
                )
            )
            attribute(added, rng)
        case 8 | 9 if graph.initializer:
            stored(graph.initializer[rng.integers(len(graph.initializer))], rng)
        case 10 if graph.initializer:
            del graph.initializer[rng.integers(len(graph.initializer))]
        case 11:
            dims = graph.input[0].type.tensor_type.shape.dim
            dims[rng.integers(len(dims))].dim_value = int(rng.choice(ODD))
        case 12:
            model.opset_import[0].version = int(rng.integers(1, 30))
        case 13:
            between(graph, node, rng)
        case 14:
            graph.node.insert(int(rng.integers(len(graph.node))), node)
        case 15:
            graph.output[0].name = names[rng.integers(len(names))]
        case 16:
            node.input.append(names[rng.integers(len(names))])


def attribute(it: AttributeProto, rng: np.random.Generator) -> None:
    """Another value, sometimes of another type."""
    value = int(rng.choice(ODD)) if rng.random() < 0.5 else int(rng.integers(0, 9))
    match it.type if rng.random() < 0.9 else int(rng.integers(1, 9)):
        case AttributeProto.INT:
            it.type, it.i = AttributeProto.INT, value
        case AttributeProto.INTS:
            it.type = AttributeProto.INTS
            if it.ints and rng.random() < 0.7:
                it.ints[rng.integers(len(it.ints))] = value
            else:
                it.ints.append(value)
        case AttributeProto.FLOAT:
            it.type, it.f = AttributeProto.FLOAT, float(rng.choice([0, -1, 1e-30, 0.5, 3, 6, np.inf, np.nan, 1e30]))
        case kind:
            it.type = kind


def stored(it: TensorProto, rng: np.random.Generator) -> None:
    """Other dims, type or numbers."""
    match rng.integers(6):
        case 0:
            it.dims.append(int(rng.choice(ODD)))
        case 1 if it.dims:
            it.dims[rng.integers(len(it.dims))] = int(rng.choice(ODD))
        case 2:
            it.dims[:] = [int(size) for size in rng.permutation(np.array(it.dims, np.int64))]
        case 3:
            it.data_type = int(rng.integers(0, 24))
        case 4:
            it.raw_data = it.raw_data[: rng.integers(len(it.raw_data) + 1)]
        case 5 if it.data_type == TensorProto.INT64:
            values = numpy_helper.to_array(it).copy().reshape(-1)
            values[rng.integers(values.size)] = rng.choice(ODD) if rng.random() < 0.5 else rng.integers(0, 40)
            it.raw_data = values.tobytes()


def between(graph: onnx.GraphProto, node: onnx.NodeProto, rng: np.random.Generator) -> None:
    """One more operator after `node`."""
    kind = str(rng.choice(HARMLESS))
    added = helper.make_node(kind, [node.output[0]], ["added"])
    if kind == "Transpose":
        added.attribute.append(helper.make_attribute("perm", [int(axis) for axis in rng.permutation(4)]))
    if kind == "MaxPool":
        added.attribute.append(helper.make_attribute("kernel_shape", [int(size) for size in rng.integers(1, 4, 2)]))
    for other in graph.node:
        other.input[:] = ["added" if name == node.output[0] else name for name in other.input]
    graph.node.insert(list(graph.node).index(node) + 1, added)


def judge(case: int, stage) -> str:
    """Damages a file as `case` says, reads it, and compares with ONNX Runtime if that reads it too."""
    rng = np.random.default_rng(case)
    content = originals()[rng.integers(len(originals()))]
    if rng.random() < 0.4:
        content = damage(content, rng)
    else:
        model = onnx.ModelProto.FromString(content)
        for _ in range(rng.integers(1, 3)):
            rearrange(model, rng)
        content = model.SerializeToString()
    try:
        model = parse(content)
        read = from_onnx(model)
    except SmallcnnError as error:
        return "refused" if str(error).isprintable() and len(str(error)) < 1000 else "refused in other than one line"
    largest = max(int(np.prod(node.shape)) for node in read.graph)
    if profile(read.graph).mult_adds > MOST_MULT_ADDS or largest > MOST_ELEMENTS:
        return "too large to run"
    if [*cut(model.graph).outputs.values()] != [model.graph.output[0].name]:
        return "has a tail"
    stage("onnxruntime")
    return compare(content, model, read, rng)


def compare(content, model, read, rng) -> str:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    height, width, channels = read.graph.input_shape
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        place = session.get_inputs()[0]
        first = place.shape[1:] == [channels, height, width] and place.type != "tensor(uint8)"
        shape = (1, channels, height, width) if first else (1, height, width, channels)
        bytes_ = rng.integers(0, 256, shape, np.uint8)
        x = bytes_ if place.type == "tensor(uint8)" else (bytes_ / 128 - 1).astype(np.float32)
        got = session.run(None, {place.name: x})[0].astype(np.float64)
        nearby = x if x.dtype == np.uint8 else x * np.float32(1 + 1e-6)
        moved = np.abs(session.run(None, {place.name: nearby})[0] - got).max()
    except Exception:  # whatever it raises: it does not read the file
        return "refused by onnxruntime"
    picture = x.transpose(0, 2, 3, 1) if first else x
    with np.errstate(all="ignore"):
        wanted = reference.answer(read.graph, read.weights, read.entry.of(picture))
        if read.dropped == "Sigmoid":
            both = wanted.reshape(-1) if got.size > 1 else wanted[:, 1] - wanted[:, 0]
            wanted = 1 / (1 + np.exp(-both))
        elif read.dropped:
            wanted = wanted - wanted.max()
            wanted = wanted - np.log(np.exp(wanted).sum())
            wanted = np.exp(wanted) if read.dropped == "Softmax" else wanted
        if not (np.isfinite(got).all() and np.isfinite(wanted).all()) or np.abs(wanted).max() > 1e30:
            return "beyond float32"
    assert got.size == wanted.size, (got.shape, wanted.shape)
    error = np.abs(got.reshape(-1) - wanted.reshape(-1)).max()
    assert error <= TOLERANCE * np.abs(wanted).max() + 100 * moved, (error, np.abs(wanted).max(), moved)
    return "agrees"


def test_damaged_files():
    outcomes = survive("test_onnx_fuzz", 0, 300)
    assert outcomes["agrees"] > 10, outcomes
    assert outcomes["refused"] > 100, outcomes
    assert not outcomes["refused in other than one line"]


@pytest.mark.long
def test_ten_thousand_damaged_files():
    assert not survive("test_onnx_fuzz", 1000, 10_000)["refused in other than one line"]
