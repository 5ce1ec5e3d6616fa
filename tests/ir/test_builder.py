from itertools import product

import pytest

from smallcnn.errors import GraphError
from smallcnn.ir import ops
from smallcnn.ir.builder import Builder, same_padding
from smallcnn.ir.graph import Node
from smallcnn.ir.types import Grid


@pytest.fixture
def g() -> Builder:
    return Builder(input=(8, 9, 6))


def layers(g: Builder, end: Node) -> list[Node]:
    """Every node after the input, once `end` is the output."""
    return list(g.graph(end, features=end, name="net"))[1:]


# --- padding ---


def tensorflow_same(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """The rule as TensorFlow's documentation of tf.nn writes it ("Notes on padding")."""
    total = max(kernel - stride, 0) if size % stride == 0 else max(kernel - size % stride, 0)
    return total // 2, total - total // 2


@pytest.mark.parametrize(("kernel", "stride"), [*product(range(1, 8), range(1, 4))])
def test_same_padding_is_tensorflows(kernel, stride):
    for size in range(1, 40):
        assert same_padding(size, kernel, stride) == tensorflow_same(size, kernel, stride)


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "want"),
    [(224, 3, 2, (0, 1)), (7, 3, 2, (1, 1)), (14, 3, 1, (1, 1)), (224, 7, 2, (2, 3)), (9, 2, 1, (0, 1))],
)
def test_same_padding_by_hand(size, kernel, stride, want):
    assert same_padding(size, kernel, stride) == want


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "want", "shape"),
    [
        (1, 1, "same", ((0, 0), (0, 0)), (8, 9, 4)),
        (3, 2, "same", ((0, 1), (1, 1)), (4, 5, 4)),
        ((1, 3), 1, "same", ((0, 0), (1, 1)), (8, 9, 4)),
        ((3, 1), (2, 1), "same", ((0, 1), (0, 0)), (4, 9, 4)),
        ((2, 5), (1, 3), "same", ((0, 1), (1, 1)), (8, 3, 4)),
        (3, 1, 0, ((0, 0), (0, 0)), (6, 7, 4)),
        (3, 1, 2, ((2, 2), (2, 2)), (10, 11, 4)),
        (3, 2, ((0, 1), (2, 0)), ((0, 1), (2, 0)), (4, 5, 4)),
    ],
    ids=str,
)
def test_convolution_windows(g, kernel, stride, padding, want, shape):
    node = g.conv(g.input, 4, kernel=kernel, stride=stride, padding=padding)
    assert node.op.padding == want
    assert node.shape == shape


@pytest.mark.parametrize(
    ("dilation", "stride", "want", "shape"),
    [
        (2, 1, ((2, 2), (2, 2)), (8, 9, 4)),  # a 3x3 filter reaches over 5x5 pixels
        ((1, 3), 1, ((1, 1), (3, 3)), (8, 9, 4)),
        (2, 2, ((1, 2), (2, 2)), (4, 5, 4)),
    ],
    ids=str,
)
def test_same_padding_of_a_dilated_filter(g, dilation, stride, want, shape):
    node = g.conv(g.input, 4, kernel=3, stride=stride, dilation=dilation)
    assert (node.op.padding, node.shape) == (want, shape)


@pytest.mark.parametrize("method", ["max_pool", "average_pool"])
@pytest.mark.parametrize(
    ("kernel", "stride", "want", "shape"),
    [
        ((2, 1), (2, 1), ((0, 0), (0, 0)), (4, 9, 6)),  # EffNet's pooling along one side
        ((1, 2), (1, 2), ((0, 0), (0, 1)), (8, 5, 6)),
        (3, 2, ((0, 1), (1, 1)), (4, 5, 6)),
        (2, 3, ((0, 0), (0, 0)), (3, 3, 6)),  # a stride above the window skips pixels
    ],
    ids=str,
)
def test_pooling_windows(g, method, kernel, stride, want, shape):
    node = getattr(g, method)(g.input, kernel=kernel, stride=stride)
    assert node.op.padding == want
    assert node.shape == shape


# --- methods ---

ONES = {"kernel": (1, 1), "stride": (1, 1), "padding": ops.NO_PADDING}

# what is called on the (8, 9, 6) input, the operator that must come of it
METHODS = {
    "conv": (lambda g, x: g.conv(x, 4), ops.Conv(out=4)),
    "grouped conv": (lambda g, x: g.conv(x, 4, groups=2, bias=False), ops.Conv(out=4, groups=2, bias=False)),
    "depthwise": (lambda g, x: g.depthwise(x, kernel=1, multiplier=2), ops.Conv(out=12, groups=6)),
    "batch_norm": (lambda g, x: g.batch_norm(x, epsilon=0.5), ops.BatchNorm(epsilon=0.5)),
    "activation": (
        lambda g, x: g.activation(x, "leaky_relu", slope=0.5),
        ops.Activation(function="leaky_relu", slope=0.5),
    ),
    "max_pool": (lambda g, x: g.max_pool(x, kernel=1, stride=1), ops.Pool(function="max", **ONES)),
    "average_pool": (
        lambda g, x: g.average_pool(x, kernel=1, stride=1, count_padding=True),
        ops.Pool(function="average", count_padding=True, **ONES),
    ),
    "prelu": (lambda g, x: g.prelu(x), ops.PRelu()),
    "exp": (lambda g, x: g.exp(x), ops.Exp()),
    "sub": (lambda g, x: g.sub(x, x), ops.Sub()),
    "resize": (
        lambda g, x: g.resize(x, 4, 5, mode="nearest", coordinates="asymmetric", rounding="ceil"),
        ops.Resize(height=4, width=5, mode="nearest", coordinates="asymmetric", rounding="ceil"),
    ),
    "clip": (lambda g, x: g.clip(x, -1, 6), ops.Clip(low=-1, high=6)),
    "pad": (lambda g, x: g.pad(x, ((1, -1), (0, 2))), ops.Pad(padding=((1, -1), (0, 2)))),
    "global_pool": (lambda g, x: g.global_pool(x), ops.GlobalPool()),
    "flatten": (lambda g, x: g.flatten(x), ops.Flatten()),
    "dense": (lambda g, x: g.dense(g.flatten(x), 3, bias=False), ops.Dense(out=3, bias=False)),
    "add": (lambda g, x: g.add(x, x, x), ops.Add()),
    "scale": (lambda g, x: g.scale(x, g.global_pool(x)), ops.Scale()),
    "concat": (lambda g, x: g.concat(x, x), ops.Concat()),
    "shuffle": (lambda g, x: g.shuffle(x, 3), ops.Shuffle(groups=3)),
    "rows": (lambda g, x: g.rows(x, 1), ops.Rows(columns=1)),
    "join": (lambda g, x: g.join(g.rows(x, 1), g.rows(x, 1)), ops.Join()),
    "local_response_norm": (
        lambda g, x: g.local_response_norm(x, size=5, alpha=1e-4, beta=0.75, bias=2.0),
        ops.LocalResponseNorm(size=5, alpha=1e-4, beta=0.75, bias=2.0),
    ),
    "dropout": (lambda g, x: g.dropout(x, 0.25), ops.Dropout(rate=0.25)),
    "quantize": (
        lambda g, x: g.quantize(x, "int8", scale=0.5, zero=-3),
        ops.Quantize(number="int8", grid=Grid((0.5,), (-3,))),
    ),
    "dequantize": (lambda g, x: g.dequantize(g.quantize(x, "uint8", scale=0.5, zero=3)), ops.Dequantize()),
    "conv on a grid": (
        lambda g, x: g.conv(x, 2, number="int8", grid=Grid((0.5, 1.0), (0, 1))),
        ops.Conv(out=2, number="int8", grid=Grid((0.5, 1.0), (0, 1))),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("call", "op"), METHODS.values(), ids=METHODS)
def test_methods(g, call, op):
    assert call(g, g.input).op == op


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "after", "out"),  # PyTorch's ceil_mode: ceil((size - kernel) / stride) + 1 windows
    [(111, 3, 2, 0, 55), (112, 3, 2, 1, 56), (14, 2, 2, 0, 7), (7, 2, 2, 1, 4), (10, 3, 3, 2, 4)],
)
def test_ceil_padding_completes_the_last_window(size, kernel, stride, after, out):
    g = Builder(input=(size, size, 1))
    pool = g.max_pool(g.input, kernel=kernel, stride=stride, padding="ceil")
    assert pool.op.padding == ((0, after), (0, after))
    assert pool.shape == (out, out, 1)


@pytest.mark.parametrize(("kernel", "pad"), [(1, 0), (3, 1), (5, 2)])
def test_symmetric_padding_is_half_the_kernel(kernel, pad):
    g = Builder(input=(8, 8, 1))
    assert g.conv(g.input, 1, kernel=kernel, stride=2, padding="symmetric").op.padding == ((pad, pad), (pad, pad))


def test_every_operator_has_a_method():
    elsewhere = {"input", "slice", "detect", "count"}  # __init__, split; detections
    assert {op.kind for _, op in METHODS.values()} == set(ops.OPS) - elsewhere


def test_conv_bn_is_three_nodes(g):
    end = g.conv_bn(g.input, 4, kernel=3, groups=2, epsilon=0.5, activation="relu", name="a")
    conv, norm, act = layers(g, end)
    assert (conv.name, norm.name, act.name) == ("a.conv", "a.bn", "a.act")
    assert conv.op == ops.Conv(out=4, kernel=(3, 3), padding=((1, 1), (1, 1)), groups=2, bias=False)
    assert norm.op == ops.BatchNorm(epsilon=0.5)
    assert act.op == ops.Activation(function="relu")
    assert end is act


def test_depthwise_bn_without_activation(g):
    end = g.depthwise_bn(g.input, kernel=3, stride=(2, 1), activation=None, name="a")
    conv, norm = layers(g, end)
    assert conv.op == ops.Conv(out=6, kernel=(3, 3), stride=(2, 1), padding=((0, 1), (1, 1)), groups=6, bias=False)
    assert end is norm
    assert end.shape == (4, 9, 6)


def test_split_uses_every_channel_once(g):
    parts = g.split(g.input, (1, 3, 2), name="cut")
    assert [(part.name, part.op.start, part.op.stop) for part in parts] == [
        ("cut.0", 0, 1),
        ("cut.1", 1, 4),
        ("cut.2", 4, 6),
    ]
    assert [part.shape for part in parts] == [(8, 9, 1), (8, 9, 3), (8, 9, 2)]


def test_squeeze_and_excite_is_made_of_plain_operators(g):
    squeezed = g.activation(g.dense(g.global_pool(g.input), 2), "relu")
    factors = g.activation(g.dense(squeezed, 6), "hard_sigmoid")
    x = g.scale(g.input, factors)
    assert factors.shape == (6,)
    assert x.shape == (8, 9, 6)
    kinds = " ".join(node.op.kind for node in layers(g, x))
    assert kinds == "global_pool dense activation dense activation scale"


# --- names ---


def test_names_left_out_are_numbered_and_avoid_those_taken(g):
    g.conv_bn(g.input, 6, activation=None, name="conv2")
    names = [g.conv(g.input, 6).name for _ in range(3)]
    assert names == ["conv1", "conv3", "conv4"]
    assert [part.name for _ in range(2) for part in g.split(g.input, (3, 3))] == [
        "split1.0", "split1.1", "split2.0", "split2.1",
    ]  # fmt: skip


# --- mistakes ---


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda g, x: g.conv(x, 0), "conv1: output channels must be a whole number from 1"),
        (lambda g, x: g.conv(x, 4.0, name="a.b"), "a.b: output channels must be a whole number .* not 4.0"),
        (lambda g, x: g.conv(x, 4, groups=4), "conv1: 6 input channels do not divide into 4 groups"),
        (lambda g, x: g.conv(x, 4, kernel=0), r"conv1: kernel must be \(height, width\), .* not \(0, 0\)"),
        (lambda g, x: g.conv(x, 4, kernel=[3, 3]), r"conv1: kernel must be \(height, width\), .* not \[3, 3\]"),
        (lambda g, x: g.conv(x, 4, stride=True), r"conv1: stride must be .* not \(True, True\)"),
        (lambda g, x: g.conv(x, 4, padding="valid"), "conv1: padding must be 'same', .* not 'valid'"),
        (lambda g, x: g.conv(x, 4, padding=-1), "conv1: padding must be .* not "),
        (lambda g, x: g.conv(x, 4, kernel=10, padding=0), "conv1: a 10x10 window does not fit the padded 8x9 input"),
        (lambda g, x: g.conv(g.flatten(x), 4), r"conv1: needs a map \(height, width, channels\), not \(432,\)"),
        (lambda g, x: g.conv_bn(x, 4, kernel=3, groups=5, name="stem"), "stem.conv: 4 output channels do not divide"),
        (lambda g, x: g.conv_bn(x, 4, epsilon=0, name="stem"), "stem.bn: epsilon must be a number above 0, not 0"),
        (lambda g, x: g.conv_bn(x, 4, activation="swish", name="stem"), "stem.act: no activation 'swish'; closest"),
        (lambda g, x: g.depthwise(x, kernel=3, multiplier=0), "conv1: output channels must be .* not 0"),
        (lambda g, x: g.max_pool(x, kernel=2, stride=1, padding=2), "pool1: padding .* must be below the window"),
        (lambda g, x: g.dense(x, 4), r"dense1: needs a vector \(features,\), not \(8, 9, 6\); pool or flatten first"),
        (lambda g, x: g.add(x), r"add1: add takes at least 2 input\(s\), not 1"),
        (lambda g, x: g.add(), r"add1: add takes at least 2 input\(s\), not 0"),
        (lambda g, x: g.add(x, g.conv(x, 4)), "add1: cannot add shapes"),
        (lambda g, x: g.split(x, (2, 2), name="s"), r"s: parts of \[2, 2\] channels do not add up to 6"),
        (lambda g, x: g.split(x, (6, 0), name="s"), r"s.1: a slice needs 0 <= start < stop, not 6 to 6"),
        (lambda g, x: g.split(x, (-1, 7), name="s"), r"s.0: a slice needs 0 <= start < stop, not 0 to -1"),
        (lambda g, x: g.conv(x, 4, name="two words"), "'two words' is not a node name"),
        (lambda g, x: (g.conv(x, 4, name="a"), g.conv(x, 4, name="a")), "a: two nodes have this name"),
        (lambda g, x: g.conv(Builder(input=(8, 9, 6)).input, 4), "conv1: its input 'input' was not made by this"),
        (lambda g, x: Builder(input=(8, 9)), r"input: needs \(height, width, channels\), .* not \(8, 9\)"),
        (lambda g, x: Builder(input=(8, 0, 3)), r"input: needs .* not \(8, 0, 3\)"),
        (lambda g, x: (g.conv(x, 4), g.graph(x, features=x, name="n")), "conv1: nothing uses this node"),
    ],
)  # fmt: skip
def test_errors_name_the_layer(g, call, message):
    with pytest.raises(GraphError, match=f"^{message}") as caught:
        call(g, g.input)
    assert "\n" not in str(caught.value)


def test_a_refused_layer_leaves_nothing_behind(g):
    with pytest.raises(GraphError):
        g.conv(g.input, 0, name="a")
    assert [node.name for node in layers(g, g.conv(g.input, 4, name="a"))] == ["a"]
