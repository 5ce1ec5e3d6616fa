"""ONNX files of every kind of writer, read into a graph whose answers are ONNX Runtime's."""

import io
import warnings

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from torch.nn import functional

from artifacts import artifact
from networks import every_op
from onnx_files import STEM, STORED, TOLERANCE, answer, checked, head, kinds, made, node, random
from smallcnn.cost.profile import profile
from smallcnn.errors import FileError
from smallcnn.image import imagenet
from smallcnn.image.fit import Preprocessing
from smallcnn.image.overrides import Overrides
from smallcnn.ir import ops
from smallcnn.model.model import Model
from smallcnn.model.probe import output_error, probe_answer, relative_error
from smallcnn.model.store import load
from smallcnn.onnx import export, from_onnx, read_onnx, to_onnx
from smallcnn.reference import floating as reference
from smallcnn.tasks.classification import Classification
from smallcnn.transform.fold import fold
from zoo_models import MODELS, SMALL, build

# files of our own


def computes(graph, weights, known):
    """A number for what a network computes: the same for the same operators on the same weights, whatever the names."""
    number = {}
    for n in graph:
        own = tuple(np.asarray(weights[f"{n.name}.{key}"], np.float32).tobytes() for key in graph.weights_of(n))
        if isinstance(n.op, ops.Dropout):
            number[n.name] = number[n.inputs[0]]
        else:
            number[n.name] = known.setdefault((n.op, tuple(number[name] for name in n.inputs), own), len(known))
    return number[graph.output]


@pytest.mark.parametrize("text", ["every_op", *MODELS, *SMALL])
def test_our_own_network_comes_back(text):
    plane = (72, 65) if text.startswith("alexnet") and text not in SMALL else (40, 33)
    graph = every_op() if text == "every_op" else build(text, resolution=plane, classes=7)
    rng = np.random.default_rng(0)  # its own numbers for every tensor, quickly: there are many
    weights = {name: rng.random(weight.shape, np.float32) + 0.5 for name, weight in graph.weights.items()}
    labels = tuple(f"class {i}" for i in range(graph.output_shape[0]))
    read = from_onnx(
        to_onnx(Model(graph, weights, Classification(labels), Preprocessing(graph.input_shape[:2])), probabilities=True)
    )
    known: dict = {}
    folded, folded_weights = fold(graph, weights)
    assert computes(read.graph, read.weights, known) == computes(folded, folded_weights, known)
    assert profile(read.graph).mult_adds == profile(folded).mult_adds
    assert profile(read.graph).parameters == profile(folded).parameters
    assert read.dropped == "Softmax"


def test_our_own_file_comes_back(tmp_path):
    original = artifact(every_op(), note="kept")
    export(original, tmp_path / "m.onnx")
    read = read_onnx(tmp_path / "m.onnx")
    assert (read.labels, read.preprocessing, read.facts) == (original.labels, original.preprocessing, {"note": "kept"})
    assert read.graph.name == "every_op"
    got, wanted = (probe_answer(made.graph, made.weights, made.preprocessing) for made in (read, original))
    assert relative_error(got, wanted) < TOLERANCE


def test_names_of_layers_come_back():
    names = {n.name for n in from_onnx(to_onnx(artifact(every_op()))).graph}
    assert {"stem.conv", "pool.max", "few.depthwise", "shuffle", "se.reduce", "se.scale", "classifier"} <= names


def test_a_file_of_ours_that_was_changed_is_refused(tmp_path):
    export(artifact(), tmp_path / "m.onnx")
    model = onnx.load(tmp_path / "m.onnx")
    for tensor in model.graph.initializer:
        if tensor.name == "/scale":
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * 2, "/scale"))
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(FileError, match="it prepares images differently from its metadata"):
        read_onnx(tmp_path / "m.onnx")


# PyTorch's exporter


class Net(nn.Module):
    """Three channels to eight, some block, and a classifier; `forward` of the block is a function."""

    def __init__(self, block, head=None, **layers):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.layers = nn.ModuleDict(layers)
        self.block, self.head = block, head
        self.classifier = nn.Linear(8, 5)

    def forward(self, x):
        x = self.block(self.layers, self.stem(x))
        return self.head(self.layers, x) if self.head else self.classifier(x.mean((2, 3)))


def shuffled(_, x):
    n, c, h, w = x.shape
    return x.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, -1, h, w)


def megvii_shuffle(layers, x):
    n, c, h, w = x.shape
    x = x.reshape(n * c // 2, 2, h * w).permute(1, 0, 2).reshape(2, -1, c // 2, h, w)
    return torch.cat((x[0], layers["a"](x[1])), 1)


def excited(layers, x):
    y = functional.adaptive_avg_pool2d(x, 1)
    return x * torch.sigmoid(layers["b"](functional.relu(layers["a"](y))))


def excited_dense(layers, x):
    n, c = x.shape[:2]
    y = layers["b"](functional.relu(layers["a"](x.mean((2, 3)))))
    return x * functional.hardsigmoid(y).view(n, c, 1, 1)


TORCH = {
    "shuffle": (Net(lambda m, x: m["a"](shuffled(m, x)), a=nn.Conv2d(8, 8, 1)), ["shuffle", "conv"]),
    "shuffle before the classifier, whose columns are exchanged instead": (Net(shuffled), []),
    "megvii's shuffle": (Net(megvii_shuffle, a=nn.Conv2d(4, 4, 1)), ["shuffle", "slice", "slice", "conv", "concat"]),
    "squeeze-excite by 1x1 convolutions": (
        Net(excited, a=nn.Conv2d(8, 2, 1), b=nn.Conv2d(2, 8, 1)),
        ["global_pool", "dense", "relu", "dense", "sigmoid", "scale"],
    ),
    "squeeze-excite by dense layers": (
        Net(excited_dense, a=nn.Linear(8, 2), b=nn.Linear(2, 8)),
        ["global_pool", "dense", "relu", "dense", "hard_sigmoid", "scale"],
    ),
    "hard swish": (Net(lambda _, x: functional.hardswish(x)), ["hard_swish"]),
    "x * relu6(x + 3) / 6": (Net(lambda _, x: x * functional.relu6(x + 3) / 6), ["hard_swish"]),
    "x * (relu6(x + 3) / 6)": (Net(lambda _, x: x * (functional.relu6(x + 3) * (1 / 6))), ["hard_swish"]),
    "clamp((x + 3) / 6, 0, 1)": (Net(lambda _, x: torch.clamp((x + 3) / 6, 0, 1)), ["hard_sigmoid"]),
    "clamp(0.5 + x / 6, 0, 1)": (Net(lambda _, x: torch.clamp(x / 6 + 0.5, 0, 1)), ["hard_sigmoid"]),
    "bias, then hard swish": (
        Net(lambda m, x: functional.hardswish(m["a"](x) + 3) - 3, a=nn.Conv2d(8, 8, 1)),
        ["conv", "hard_swish", "batch_norm"],
    ),
    "relu6": (Net(lambda _, x: functional.relu6(x - 1)), ["batch_norm", "relu6"]),
    "clamp": (Net(lambda _, x: torch.clamp(x, 0.1, 0.5)), ["clip"]),
    "clamp from below": (Net(lambda _, x: torch.clamp(x - 1, min=-0.5)), ["batch_norm", "clip"]),
    "leaky relu": (Net(lambda _, x: functional.leaky_relu(x - 0.5, 0.2)), ["batch_norm", "leaky_relu"]),
    "chunk": (
        Net(lambda m, x: torch.cat((m["a"](x.chunk(2, 1)[0]), x.chunk(2, 1)[1]), 1), a=nn.Conv2d(4, 4, 3, 1, 1)),
        ["slice", "slice", "conv", "concat"],
    ),
    "slices": (Net(lambda _, x: torch.cat((x[:, 5:], x[:, :5]), 1)), ["slice", "slice", "concat"]),
    "rows and columns cut off": (Net(lambda _, x: x[:, :, 1:, :-2]), ["pad", "pad"]),
    "max pool rounded up": (Net(lambda _, x: functional.max_pool2d(x, 3, 2, ceil_mode=True)), ["pool"]),
    "mean rounded up": (Net(lambda _, x: functional.avg_pool2d(x, 2, 2, ceil_mode=True)), ["pool"]),
    "mean with padding, rounded up": (
        Net(lambda _, x: functional.avg_pool2d(x, 3, 3, 1, ceil_mode=True)),
        ["pad", "pool"],
    ),
    "mean that counts padding": (Net(lambda _, x: functional.avg_pool2d(x, 3, 2, 1)), ["pool"]),
    "mean that does not": (Net(lambda _, x: functional.avg_pool2d(x, 3, 2, 1, count_include_pad=False)), ["pool"]),
    "zeros, then a convolution": (
        Net(lambda m, x: m["a"](functional.pad(x, (0, 1, 2, 1))), a=nn.Conv2d(8, 8, 3, 2)),
        ["conv"],
    ),
    "zeros, then a maximum": (
        Net(lambda _, x: functional.max_pool2d(functional.pad(x - 1, (0, 1, 0, 1)), 3, 2)),
        ["batch_norm", "pad", "pool"],
    ),
    "minus infinity, then a maximum": (
        Net(lambda _, x: functional.max_pool2d(functional.pad(x, (0, 1, 0, 1), value=-torch.inf), 3, 2)),
        ["pool"],
    ),
    "groups": (Net(lambda m, x: m["a"](x), a=nn.Conv2d(8, 8, (1, 5), (2, 1), (0, 2), groups=4)), ["conv"]),
    "scale and shift": (
        Net(lambda m, x: m["a"](x) * torch.arange(8.0).view(8, 1, 1) / 4 + 1, a=nn.Conv2d(8, 8, 1, bias=False)),
        ["conv"],
    ),
    "sum of three": (Net(lambda _, x: x + (functional.relu(x - 1) + x)), ["batch_norm", "relu", "add", "add"]),
    "one mean after the other": (
        Net(lambda _, x: x, lambda m, x: m["a"](x.mean(3).mean(2)), a=nn.Linear(8, 3)),
        ["pool", "global_pool", "dense"],
    ),
    "rows flattened": (
        Net(lambda _, x: x, lambda m, x: m["a"](x.flatten(1)), a=nn.Linear(8 * 7 * 6, 4)),
        ["flatten", "dense"],
    ),
    "channels last flattened": (
        Net(
            lambda _, x: x,
            lambda m, x: m["a"](x.permute(0, 2, 3, 1).reshape(x.shape[0], -1)),
            a=nn.Linear(8 * 7 * 6, 4),
        ),
        ["flatten", "dense"],
    ),
    "1x1 convolution as classifier": (
        Net(lambda _, x: x, lambda m, x: m["a"](x.mean((2, 3), keepdim=True)).flatten(1), a=nn.Conv2d(8, 4, 1)),
        ["global_pool", "dense"],
    ),
    "mean of class maps": (
        Net(
            lambda _, x: x,
            lambda m, x: functional.adaptive_avg_pool2d(m["a"](x), 1).squeeze(3).squeeze(2),
            a=nn.Conv2d(8, 4, 1),
        ),
        ["conv", "global_pool"],
    ),
    "softmax": (
        Net(lambda _, x: x, lambda m, x: m["a"](x.mean((2, 3))).log_softmax(1), a=nn.Linear(8, 4)),
        ["global_pool", "dense"],
    ),
    "a gate without layers": (
        Net(lambda m, x: m["a"](x) * x.mean((2, 3), keepdim=True), a=nn.Conv2d(8, 8, 1)),
        ["conv", "global_pool", "scale"],
    ),
}


@pytest.mark.parametrize("opset", [11, 17])
@pytest.mark.parametrize("name", TORCH)
def test_what_torch_exports(name, opset):
    torch.manual_seed(0)
    net, expected = TORCH[name]
    for norm in net.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean.normal_(0, 0.1)
            norm.running_var.uniform_(0.5, 1.5)
    x = torch.from_numpy(random(1, 3, 13, 11))
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net.eval(), x, buffer, dynamo=False, opset_version=opset, input_names=["x"], dynamic_axes={"x": {0: "N"}}
        )
    read = from_onnx(onnx.load_from_string(buffer.getvalue()))
    got = reference.answer(read.graph, read.weights, x.numpy().transpose(0, 2, 3, 1))
    with torch.no_grad():
        wanted = net.double()(x.double()).numpy()
    net.float()
    if name == "softmax":
        assert read.dropped == "LogSoftmax"
        got = got - np.log(np.exp(got).sum())
    assert output_error(got, wanted) < TOLERANCE
    body = kinds(read.graph)[2:]  # after the stem
    assert body[: len(expected)] == expected
    assert len(body) == len(expected) + (0 if net.head else 2), body


# other writers


def test_keras_style_channels_last():
    """As tf2onnx writes it: the image and every dense step channels last, transposes around the rest."""
    stored = {
        "pads": np.array([0, 0, 0, 0, 0, 1, 1, 0]),
        "w": random(6, 3, 3, 3),
        "bn": random(6) ** 2 + 1,
        "six": np.float32(6),
        "dw": random(6, 1, 3, 3),
        "bias": random(6),
        "axes": np.array([1, 2]),
        "dense": random(6, 4),
        "db": random(4),
    }
    nodes = [
        node("Pad", "x pads", "padded"),
        node("Transpose", "padded", "a", perm=[0, 3, 1, 2]),
        node("Conv", "a w", "b", strides=[2, 2]),
        node("BatchNormalization", "b bn bn bn bn", "c", epsilon=1e-3),
        node("Relu", "c", "d"),
        node("Min", "d six", "e"),
        node("Conv", "e dw", "f", group=6, auto_pad="SAME_UPPER", strides=[2, 2]),
        node("Transpose", "f", "g", perm=[0, 2, 3, 1]),
        node("Add", "g bias", "h"),
        node("Transpose", "h", "i", perm=[0, 3, 1, 2]),
        node("ReduceMean", "i", "j", axes=[2, 3], keepdims=0),
        node("MatMul", "j dense", "k"),
        node("Add", "k db", "l"),
        node("Softmax", "l", "y"),
    ]
    x = random(1, 10, 9, 3)
    read = from_onnx(made(nodes, ["N", 10, 9, 3], stored))
    assert kinds(read.graph) == ["conv", "batch_norm", "relu6", "conv", "global_pool", "dense"]
    assert read.graph.nodes[1].op.padding == ((0, 1), (0, 1))
    got = reference.answer(read.graph, read.weights, x)
    wanted = answer(made(nodes[:-1], ["N", 10, 9, 3], stored, outputs=["l"]), x)
    assert output_error(got, wanted) < TOLERANCE


def test_paddle_style():
    """Constants as steps, hard sigmoid's slope with seven digits, the vector of classes by MatMul and Add."""
    constants = {
        "w": random(4, 3, 3, 3),
        "w2": random(4, 4, 1, 1),
        "dense": random(4, 5),
        "three": np.array([3.0], np.float32),
        "six": np.array([6.0], np.float32),
        "shape": np.array([-1, 4]),
        "bias": random(5),
    }
    nodes = [
        *(helper.make_node("Constant", [], [key], value=numpy_helper.from_array(v)) for key, v in constants.items()),
        node("Conv", "x w", "a", pads=[1, 1, 1, 1], dilations=[1, 1], group=1, kernel_shape=[3, 3], strides=[1, 1]),
        node("Add", "a three", "b"),
        node("Clip", "b zero six0", "c"),
        node("Mul", "a c", "d"),
        node("Div", "d six", "e"),
        node("GlobalAveragePool", "e", "f"),
        node("Conv", "f w2", "g"),
        node("HardSigmoid", "g", "h", alpha=0.1666667, beta=0.5),
        node("Mul", "e h", "i"),
        node("GlobalAveragePool", "i", "j"),
        node("Reshape", "j shape", "k"),
        node("MatMul", "k dense", "l"),
        node("Add", "l bias", "y"),
    ]
    model = made(nodes, ["N", 3, 6, 5], {"zero": np.float32(0), "six0": np.float32(6)})
    graph = checked(model, (1, 3, 6, 5))
    assert kinds(graph) == [
        "conv",
        "hard_swish",
        "global_pool",
        "dense",
        "hard_sigmoid",
        "scale",
        "global_pool",
        "dense",
    ]


def test_a_shuffle_whose_shapes_are_computed():
    """As PyTorch writes it for a batch of any size: the shape of the map, taken apart and put together."""
    stored = {
        "i0": np.array(0),
        "i1": np.array(1),
        "two": np.array(2),
        "hw": np.array([4, 5]),
        "axis": np.array([0]),
        "minus": np.array([-1]),
        "starts": np.array([2]),
        "ends": np.array([9]),
    }
    nodes = [
        node("Shape", "m", "shape"),
        node("Gather", "shape i0", "n"),
        node("Gather", "shape i1", "c"),
        node("Div", "c two", "half"),
        node("Slice", "shape starts ends", "plane"),
        *(node("Unsqueeze", f"{key} axis", f"{key}_") for key in ("n", "two", "half")),
        node("Concat", "n_ two_ half_ plane", "apart", axis=0),
        node("Concat", "n_ minus plane", "together", axis=0),
        node("Reshape", "m apart", "a"),
        node("Transpose", "a", "b", perm=[0, 2, 1, 3, 4]),
        node("Reshape", "b together", "d"),
        node("Conv", "d v", "e"),
        node("GlobalAveragePool", "e", "f"),
        node("Flatten", "f", "y"),
    ]
    model = made(
        [node("Conv", "x w", "m"), *nodes], ["N", 3, 4, 5], stored | {"w": random(6, 3, 1, 1), "v": random(2, 6, 1, 1)}
    )
    assert kinds(checked(model, (1, 3, 4, 5))) == ["conv", "shuffle", "conv", "global_pool"]


ALONE = {
    "local response normalisation": ([node("LRN", "s", "m", size=3, alpha=0.1, beta=0.6, bias=2.0)], {}),
    "division by channel": ([node("Div", "s c", "m")], {"c": random(4, 1, 1) + 3}),
    "a constant minus the map": ([node("Sub", "c s", "m")], {"c": np.float32(2)}),
    "sum of maps and a constant": ([node("Relu", "s", "r"), node("Sum", "s r c", "m")], {"c": random(1, 4, 1, 1)}),
    "batch norm and what follows it": (
        [node("Relu", "s", "r"), node("BatchNormalization", "r v v v p", "b"), node("Mul", "b v4", "m")],
        {"p": random(4) ** 2, "v4": random(4, 1, 1)},
    ),
    "identity, dropout, cast": (
        [node("Identity", "s", "a"), node("Dropout", "a", "b"), node("Cast", "b", "m", to=TensorProto.FLOAT)],
        {},
    ),
    "padding of one side, lower": (
        [node("Conv", "s k", "m", auto_pad="SAME_LOWER", strides=[2, 2])],
        {"k": random(4, 4, 3, 2)},
    ),
    "mean of zeros around": (
        [node("Pad", "s p", "r"), node("AveragePool", "r", "m", kernel_shape=[3, 3])],
        {"p": np.array([0, 0, 1, 0, 0, 0, 1, 2])},
    ),
    "maximum over the lower side": (
        [node("MaxPool", "s", "m", kernel_shape=[2, 3], auto_pad="SAME_LOWER", strides=[2, 2])],
        {},
    ),
    "gates that are a map of one pixel": (
        [node("AveragePool", "s", "a", kernel_shape=[5, 6]), node("Sigmoid", "a", "b"), node("Mul", "b s", "m")],
        {},
    ),
    "split into parts": (
        [node("Split", "s parts", "a b", axis=1), node("Concat", "b a", "m", axis=1)],
        {"parts": np.array([1, 3])},
    ),
    "squeezed and unsqueezed": (
        [
            node("GlobalAveragePool", "s", "a"),
            node("Squeeze", "a hw", "b"),
            node("Relu", "b", "c"),
            node("Unsqueeze", "c hw", "d"),
            node("Mul", "s d", "m"),
        ],
        {"hw": np.array([2, 3])},
    ),
    "shuffled twice": (
        [
            node("Reshape", "s a", "r"),
            node("Transpose", "r", "t", perm=[0, 2, 1, 3, 4]),
            node("Reshape", "t b", "u"),
            node("Relu", "u", "q"),
            node("Reshape", "q a", "r2"),
            node("Transpose", "r2", "t2", perm=[0, 2, 1, 3, 4]),
            node("Reshape", "t2 b", "m"),
        ],
        {"a": np.array([0, 2, 2, 5, 6]), "b": np.array([0, -1, 5, 6])},
    ),
    "float64 weights": (
        [node("Cast", "k", "k32", to=TensorProto.FLOAT), node("Conv", "s k32", "m")],
        {"k": random(4, 4, 1, 1).astype(np.float64)},
    ),
    "float16 weights": (
        [node("Cast", "k", "k32", to=TensorProto.FLOAT), node("Conv", "s k32", "m")],
        {"k": random(4, 4, 1, 1).astype(np.float16)},
    ),
}


@pytest.mark.parametrize("name", ALONE)
def test_operators(name):
    nodes, stored = ALONE[name]
    checked(made([STEM, *nodes, *head()], [1, 3, 5, 6], STORED | stored), (1, 3, 5, 6))


@pytest.mark.parametrize("include", [0, 1])
@pytest.mark.parametrize("kind", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize(
    ("size", "kernel", "stride", "pad"),
    [
        (5, 2, 2, 0),
        (6, 3, 2, 0),
        (7, 3, 2, 1),
        (8, 3, 2, 1),
        (6, 2, 3, 1),
        (7, 2, 3, 0),
        (4, 1, 2, 0),
        (5, 3, 3, 1),
    ],
)
def test_pools_rounded_up(kind, size, kernel, stride, pad, include):
    attributes = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [pad] * 4, "ceil_mode": 1}
    if kind == "AveragePool":
        attributes["count_include_pad"] = include
    checked(made([STEM, node(kind, "s", "m", **attributes), *head()], [1, 3, size, size], STORED), (1, 3, size, size))


def test_old_operator_sets_have_attributes_for_inputs():
    stored = STORED | {"zero": np.float32(0)}
    nodes = [
        STEM,
        node("Clip", "s", "a", min=0.0, max=6.0),
        node("Pad", "a", "b", pads=[0, 0, 1, 1, 0, 0, 0, 0]),
        node("Slice", "b", "c", axes=[1], starts=[1], ends=[4]),
        node("Split", "c", "d e", axis=1, split=[1, 2]),
        node("Concat", "e d d", "m", axis=1),
        node("GlobalAveragePool", "m", "p"),
        node("Squeeze", "p", "q", axes=[2, 3]),
        node("Dropout", "q", "r", ratio=0.3),
        node("Gemm", "r dense zero", "t", transB=1),
        node("Softmax", "t", "y"),
    ]
    model = made(nodes, [1, 3, 5, 6], stored, opset=9)
    read = from_onnx(model)
    logits = reference.answer(read.graph, read.weights, random(1, 3, 5, 6).transpose(0, 2, 3, 1))
    expected = np.exp(logits) / np.exp(logits).sum()
    np.testing.assert_allclose(answer(model, random(1, 3, 5, 6)), expected, atol=1e-6)
    assert read.dropped == "Softmax"


# what comes with the network


def plain(**options):
    return made([STEM, node("Relu", "s", "m"), *head()], [1, 3, 5, 6], STORED, **options)


def saved(model, folder):
    (folder / "net.onnx").write_bytes(model.SerializeToString())
    return folder / "net.onnx"


def test_another_writers_file_becomes_an_artifact(tmp_path):
    made_by = plain()
    made_by.producer_name, made_by.producer_version = "somebody", "1.2"
    read = read_onnx(saved(made_by, tmp_path))
    assert read.graph.name == "net"
    assert read.graph.features == "Relu_m"
    assert read.labels == ("class 0", "class 1")
    assert (read.preprocessing.mean, read.preprocessing.size) == ((0.485, 0.456, 0.406), (5, 6))
    assert read.facts["onnx"] == {
        "producer": "somebody 1.2",
        "opset": 17,
        "dropped": None,
        "pictures": "assumed",
        "fed": "mean 0.485,0.456,0.406 and standard deviation 0.229,0.224,0.225 of pixels of 0..1, RGB",
    }


def test_a_thousand_classes_are_imagenets(tmp_path):
    model = made([STEM, node("Relu", "s", "m"), *head()], [1, 3, 5, 6], STORED | {"dense": random(1000, 4)})
    assert read_onnx(saved(model, tmp_path)).labels == imagenet.labels()


def test_bytes_are_prepared_as_the_file_says(tmp_path):
    mean, std = np.array([0.1, 0.2, 0.3]), np.array([0.4, 0.5, 0.6])
    stored = STORED | {"mean": (255 * mean).astype(np.float32), "std": (255 * std).astype(np.float32)}
    nodes = [
        node("Cast", "x", "float", to=TensorProto.FLOAT),
        node("Sub", "float mean", "a"),
        node("Div", "a std", "b"),
        node("Transpose", "b", "t", perm=[0, 3, 1, 2]),
        node("Conv", "t w", "m"),
        *head(),
    ]
    model = made(nodes, ["N", 5, 6, 3], stored, kind=TensorProto.UINT8)
    read = read_onnx(saved(model, tmp_path))
    np.testing.assert_allclose([read.preprocessing.mean, read.preprocessing.std], [mean, std], rtol=1e-6)
    assert read.facts["onnx"]["pictures"] == "in the file"
    batch = np.random.default_rng(0).integers(0, 256, (1, 5, 6, 3), np.uint8)
    got = reference.answer(read.graph, read.weights, read.preprocessing.normalise(batch))
    assert output_error(got, answer(model, batch)) < TOLERANCE


def test_an_open_size_needs_a_resolution(tmp_path):
    path = saved(plain(sides=["N", 3, "H", "W"]), tmp_path)
    with pytest.raises(FileError, match=r"net.onnx: takes \?x3x\?x\?, any height and width: choose one"):
        read_onnx(path)
    assert read_onnx(path, Overrides(resolution=9)).graph.input_shape == (9, 9, 3)
    assert read_onnx(path, Overrides(resolution=(9, 12))).graph.input_shape == (9, 12, 3)


def test_a_size_other_than_the_declared_one_is_read_where_the_operators_allow_it(tmp_path):
    assert read_onnx(saved(plain(), tmp_path), Overrides(resolution=(7, 9))).graph.input_shape == (7, 9, 3)
    flat = made(
        [STEM, node("Flatten", "s", "f"), node("Gemm", "f big", "y")], [1, 3, 5, 6], STORED | {"big": random(120, 2)}
    )
    with pytest.raises(FileError, match=r"net.onnx: 'Gemm' \('Gemm_y'\): multiplies \(1, 252\)"):
        read_onnx(saved(flat, tmp_path), Overrides(resolution=(7, 9)))


def test_import_from_the_command_line(smallcnn, refused, tmp_path):
    path, out = saved(plain(), tmp_path), tmp_path / "m.safetensors"
    code, printed, remarks = smallcnn("import", path, "--out", out)
    assert (code, printed) == (0, f"{out}\n")
    first, second = remarks.splitlines()
    assert first.startswith("net from onnx: 2 tensors, 2 classes, input 5x6")
    assert second.startswith(
        "assumed, as the file does not state how its images are prepared: mean 0.485,0.456,0.406 and"
    )
    assert load(out).facts["imported"]["files"][0]["name"] == "net.onnx"
    (tmp_path / "labels.txt").write_text("cat\ndog\n")
    code, _, remarks = smallcnn(
        "import",
        path,
        "--out",
        out,
        "--labels",
        tmp_path / "labels.txt",
        "--mean",
        "0.5",
        "--std",
        "0.5",
        "--crop",
        "1",
        "--interpolation",
        "bicubic",
    )
    assert remarks.splitlines()[1] == (
        "as given, it is fed images with mean 0.5 and standard deviation 0.5 of pixels of 0..1, RGB"
    )
    net = load(out)
    assert (net.labels, net.preprocessing.mean, net.preprocessing.crop) == (("cat", "dog"), (0.5,) * 3, 1.0)
    assert "no --as" in refused("import", path, "--as", "mobilenet_v1", "--out", out)
    assert "no such file" in refused("import", tmp_path / "no.onnx", "--out", out).lower()


def test_tensorflows_background_is_left_out(smallcnn, tmp_path):
    model = made([STEM, node("Relu", "s", "m"), *head()], [1, 3, 5, 6], STORED | {"dense": random(1001, 4)})
    path, out = saved(model, tmp_path), tmp_path / "m.safetensors"
    assert smallcnn("import", path, "--out", out)[0] == 0
    assert load(out).labels == imagenet.labels()
    np.testing.assert_array_equal(load(out).weights["Gemm_y.weight"], random(1001, 4)[1:])
    assert smallcnn("import", path, "--keep-background", "--out", out)[0] == 0
    assert len(load(out).labels) == 1001


# what is refused

K = {"k": random(4, 4, 3, 3)}
REFUSED = {
    "an unknown operator": ([node("Erf", "s", "m")], {}, r"'Erf' \('Erf_m'\): no operator of the graph computes this"),
    "swish": ([node("Sigmoid", "s", "a"), node("Mul", "s a", "m")], {}, "multiplies two results"),
    "maximum over the plane": ([node("GlobalMaxPool", "s", "m")], {}, r"'GlobalMaxPool' .* is a mean, not a maximum"),
    "quantized": (
        [node("QLinearConv", "s q z k q z q z", "m")],
        {"q": np.float32(1), "z": np.uint8(0), "k": np.ones((4, 4, 1, 1), np.uint8)},
        r"'QLinearConv' .* integer operators are not supported",
    ),
    "dilation": (
        [node("MaxPool", "s", "m", kernel_shape=[2, 2], dilations=[2, 2])],
        {},
        r"dilations \(2, 2\); a pool's can only",
    ),
    "softmax in the middle": ([node("Softmax", "s", "m", axis=1)], {}, "not all classes"),
    "a softmax that is read": (
        [node("GlobalAveragePool", "s", "a"), node("Softmax", "a", "b", axis=1), node("Mul", "s b", "m")],
        {},
        "reads the result of Softmax",
    ),
    "a transposed map": (
        [node("Transpose", "s", "a", perm=[0, 1, 3, 2]), node("Conv", "a k", "m")],
        K,
        "transpose must come",
    ),
    "mean over channels": ([node("ReduceMean", "s", "m", axes=[1])], {}, "not height and width"),
    "a constant per pixel": ([node("Add", "s c", "m")], {"c": random(5, 6)}, "not one number or one per channel"),
    "zeros around the channels": (
        [node("Pad", "s p", "m")],
        {"p": np.array([0, 1, 0, 0, 0, 1, 0, 0])},
        "pads axis 1",
    ),
    "reflections": (
        [node("Pad", "s p", "m", mode="reflect")],
        {"p": np.array([0, 0, 1, 1, 0, 0, 1, 1])},
        "pads by reflect",
    ),
    "every other row": (
        [node("Slice", "s a b c d", "m")],
        {"a": np.array([0]), "b": np.array([4]), "c": np.array([2]), "d": np.array([2])},
        "takes indices of axis 2 .* not consecutive",
    ),
    "weights of integers": ([node("Conv", "s k", "m")], {"k": np.ones((4, 4, 1, 1), np.int32)}, "weight of int32"),
    "weights that are no numbers": (
        [node("Conv", "s k", "m")],
        {"k": np.full((4, 4, 1, 1), np.nan, np.float32)},
        "infinite or NaN",
    ),
    "weights of another shape": ([node("Conv", "s k", "m")], {"k": random(4, 3, 1, 1)}, r"weight of \(4, 3, 1, 1\)"),
    "an even window": ([node("LRN", "s", "m", size=4)], {}, "size must be odd"),
    "another attribute": ([node("Relu", "s", "m", slope=0.1)], {}, "an unexpected attribute 'slope'"),
    "indices of a maximum": (
        [node("MaxPool", "s", "p i", kernel_shape=[2, 2]), node("Cast", "i", "y2", to=1), node("Add", "p y2", "m")],
        {},
        "'MaxPool' .* reads its output 'i'; only the first 1 outputs are supported",
    ),
    "dropout as it trains": (
        [node("Dropout", "s r t", "m")],
        {"r": np.float32(0.5), "t": np.array(True)},
        "in training mode",
    ),
    "a billion numbers": (
        [node("ConstantOfShape", "n", "c"), node("Add", "s c", "m")],
        {"n": np.array([2**15, 2**15])},
        "the numbers computed from constants to 1,073,741,932; at most 33,",
    ),
    "a trillion numbers": (
        [node("Expand", "v4 n", "c"), node("Add", "s c", "m")],
        {"v4": random(4), "n": np.array([2**38, 4])},
        "the numbers computed from constants to 1,099,511,627,884",
    ),
    "an unknown step of constants": (
        [node("Erf", "v", "c"), node("Add", "s c", "m")],
        {},
        "computes constants with .* 'Erf'",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_named(name):
    nodes, stored, says = REFUSED[name]
    with pytest.raises(FileError, match=says):
        from_onnx(made([STEM, *nodes, *head()], [1, 3, 5, 6], STORED | stored))


def changed(change):
    model = plain()
    change(model)
    return model


def outside(model):
    model.graph.initializer[0].data_location = TensorProto.EXTERNAL
    model.graph.initializer[0].external_data.add(key="location", value="weights.bin")


def two_images(model):
    model.graph.input.add().CopyFrom(model.graph.input[0])
    model.graph.input[1].name = "more"
    model.graph.node[0].input[0] = "both"
    model.graph.node.insert(0, node("Add", "x more", "both"))


def empty_but_large(m):
    """No numbers, in a shape that NumPy has no room for."""
    m.graph.initializer[0].raw_data = b""
    m.graph.initializer[0].dims[:] = [0, 2**31, 2**31]


def calls_itself(model):
    function(model, "f", [helper.make_node("f", ["a"], ["b"], domain="own")])


def function(model, name, nodes):
    opset = helper.make_opsetid("", 17)
    model.functions.append(
        helper.make_function("own", name, ["a"], ["b"], nodes, [opset, helper.make_opsetid("own", 1)])
    )
    model.graph.node[1].CopyFrom(helper.make_node(name, ["s"], ["m"], domain="own"))


def many_calls(model):
    function(model, "f0", [node("Relu", "a", "b")])
    for i in range(1, 40):
        twice = [helper.make_node(f"f{i - 1}", [a], [b], domain="own") for a, b in (("a", "between"), ("between", "b"))]
        function(model, f"f{i}", twice)


def test_functions_take_the_place_of_their_calls():
    model = plain()
    wanted = answer(model, random(1, 3, 5, 6))
    function(model, "positive", [node("Relu", "a", "b")])
    model.opset_import.append(helper.make_opsetid("own", 1))
    read = from_onnx(model)
    assert kinds(read.graph) == ["conv", "relu", "global_pool", "dense"]
    got = reference.answer(read.graph, read.weights, random(1, 3, 5, 6).transpose(0, 2, 3, 1))
    assert output_error(got, wanted) < TOLERANCE


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (outside, "'w' is stored in another file"),
        (lambda m: m.graph.initializer[0].dims.append(2**40), "'w' holds 432 bytes"),
        (lambda m: m.graph.initializer[0].dims.append(-1), "'w' claims the shape"),
        (empty_but_large, "'w' claims the shape"),
        (lambda m: setattr(m.graph.initializer[0], "data_type", TensorProto.BFLOAT16), "'w' is stored as BFLOAT16"),
        (lambda m: setattr(m.graph.initializer[0], "data_type", 77), "'w' is stored as type 77"),
        (lambda m: m.graph.node[1].input.__setitem__(0, "nowhere"), "reads 'nowhere', which no operator produces"),
        (lambda m: m.graph.node[0].input.__setitem__(0, "m"), "read each other in a circle, at 'Conv_s'"),
        (lambda m: m.graph.node[1].output.__setitem__(0, "s"), "produces 's' twice"),
        (lambda m: setattr(m.graph.node[1], "domain", "com.example"), "'Relu' of 'com.example' is not supported"),
        (lambda m: setattr(m.opset_import[0], "version", 27), "operator set 27; 1 to 26"),
        (lambda m: m.graph.ClearField("node"), "no operators"),
        (two_images, r"takes 2 inputs \('x', 'more'\); a classifier takes one image"),
        (lambda m: setattr(m.graph.output[0], "name", "m"), "not one number per class"),
        (lambda m: setattr(m.graph.output[0], "name", "w"), "does not depend on the image"),
        (lambda m: setattr(m.graph.input[0].type.tensor_type, "elem_type", TensorProto.INT64), "takes INT64"),
        (lambda m: setattr(m.graph.input[0].type.tensor_type.shape.dim[1], "dim_value", 4), "one or three channels"),
        (lambda m: setattr(m.graph.input[0].type.tensor_type.shape.dim[2], "dim_value", 2**40), "whole numbers"),
        (lambda m: setattr(m.graph.input[0].type.tensor_type.shape.dim[2], "dim_value", 2**17), "no side may be above"),
        (lambda m: m.graph.input[0].type.tensor_type.shape.dim.add(), "takes 5 axes"),
        (calls_itself, "call each other in a circle"),
        (many_calls, "more than 10,000 operators"),
    ],
)
def test_files_that_are_not_plain(change, says):
    with pytest.raises(FileError, match=says):
        from_onnx(changed(change))


def test_a_chain_of_joins_does_not_grow_for_ever():
    nodes = [
        STEM,
        *(node("Concat", f"{a} {a}", f"j{i}", axis=1) for i, a in enumerate(["s", *(f"j{i}" for i in range(60))])),
    ]
    with pytest.raises(FileError, match=r"gives \(5, 6, 8388608\), 251,658,240 numbers; at most"):
        from_onnx(made([*nodes, node("GlobalAveragePool", "j60", "y")], [1, 3, 5, 6], STORED))


@pytest.mark.parametrize("content", [b"", b"\x08", b"not an ONNX file", b"\xff" * 100])
def test_bytes_of_another_kind(content, tmp_path):
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(FileError, match=r"m.onnx: (damaged|uses|takes)"):
        read_onnx(tmp_path / "m.onnx")


def test_metadata_that_are_damaged(tmp_path):
    export(artifact(), tmp_path / "m.onnx")
    for key, value, says in [
        ("format", "99", "written in format '99'"),
        ("task", "[", "task is not JSON"),
        ("task", '{"kind": "classification", "labels": {}, "ending": "softmax"}', "not a list"),
        ("facts", "[]", "not a JSON object"),
        ("preprocessing", "{}", "not a description of preprocessing"),
        ("task", '{"kind": "classification", "labels": ["a"], "ending": "softmax"}', "1 labels"),
    ]:
        model = onnx.load(tmp_path / "m.onnx")
        for entry in model.metadata_props:
            if entry.key == f"smallcnn.{key}":
                entry.value = value
        with pytest.raises(FileError, match=says):
            read_onnx(saved(model, tmp_path))


def test_layers_whose_names_are_no_names():
    model = plain()
    for step, name in zip(model.graph.node, ["/a/b.c/Conv", "/a/b.c/Conv/x", "9 lives", "", "é" * 500], strict=True):
        step.name = name
    graph = from_onnx(model).graph
    assert [n.name for n in graph] == [
        "input",
        "a.b.c.Conv",
        "a_b_c_Conv_x",
        "global_pool_9_lives",
        "_" * 150,
    ]
    assert graph.features == "a_b_c_Conv_x"
