import json
from math import inf, nan

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from smallcnn.errors import GraphError
from smallcnn.ir.ops import (
    OPS,
    Activation,
    Add,
    AnchorGrid,
    BatchNorm,
    Clip,
    Concat,
    Conv,
    Count,
    Dense,
    Dequantize,
    Detect,
    Dropout,
    Exp,
    Flatten,
    GlobalPool,
    Input,
    Join,
    LocalResponseNorm,
    Op,
    Pad,
    Pool,
    PRelu,
    Quantize,
    Resize,
    Rows,
    Scale,
    Shuffle,
    Slice,
    Sub,
    Weight,
    from_json,
    to_json,
)
from smallcnn.ir.types import Grid, Tensor

MAX3 = Pool(function="max", kernel=(3, 3), stride=(2, 2), padding=((0, 1), (0, 1)))
ANCHORS = AnchorGrid(cells=(2, 3), sizes=((0.5, 0.25), (0.75, 0.5)), step=(1 / 2, 1 / 3))
DETECT = Detect(
    anchors=(ANCHORS, ANCHORS), score="softmax", background=True, centre="linear", size="exp", centre_scale=0.1,
    size_scale=0.2, y_first=True, clip=False, across=False, threshold=0.5, overlap=0.5, most=10,
)  # fmt: skip
RESIZE = Resize(height=7, width=9, mode="bilinear", coordinates="align_corners", rounding="ceil")
LRN = LocalResponseNorm(size=5, alpha=1e-4, beta=0.75, bias=1.0)

# operator, shapes it reads, shape it gives
SHAPES: list[tuple[Op, list[tuple[int, ...]], tuple[int, ...]]] = [
    (Input((224, 160, 3)), [], (224, 160, 3)),
    (Conv(out=32, kernel=(3, 3), stride=(2, 2), padding=((0, 1), (0, 1))), [(224, 224, 3)], (112, 112, 32)),
    (Conv(out=8), [(5, 7, 3)], (5, 7, 8)),
    (Conv(out=6, kernel=(1, 3), stride=(2, 1), padding=((0, 0), (1, 1)), groups=3), [(9, 9, 6)], (5, 9, 6)),
    (Conv(out=4, kernel=(7, 7)), [(7, 7, 2)], (1, 1, 4)),
    (Conv(out=4, kernel=(3, 2), dilation=(3, 2), padding=((1, 0), (0, 0))), [(7, 9, 2)], (2, 7, 4)),
    (Dense(out=10), [(1024,)], (10,)),
    (BatchNorm(epsilon=0.001), [(3, 4, 5)], (3, 4, 5)),
    (BatchNorm(), [(5,)], (5,)),
    (Activation(function="leaky_relu", slope=0.1), [(3, 4, 5)], (3, 4, 5)),
    (Activation(function="hard_sigmoid"), [(5,)], (5,)),
    (MAX3, [(112, 111, 64)], (56, 55, 64)),
    (Pool(function="average", kernel=(7, 7), stride=(1, 1), count_padding=True), [(7, 7, 9)], (1, 1, 9)),
    (GlobalPool(), [(7, 5, 1024)], (1024,)),
    (Flatten(), [(7, 5, 3)], (105,)),
    (Add(), [(3, 4, 5)] * 3, (3, 4, 5)),
    (Add(), [(5,)] * 2, (5,)),
    (Sub(), [(3, 4, 5)] * 2, (3, 4, 5)),
    (PRelu(), [(3, 4, 5)], (3, 4, 5)),
    (PRelu(), [(40, 3)], (40, 3)),
    (Exp(), [(5,)], (5,)),
    (Resize(height=5, width=2, mode="nearest"), [(3, 4, 5)], (5, 2, 5)),
    (RESIZE, [(3, 4, 5)], (7, 9, 5)),
    (Scale(), [(3, 4, 5), (5,)], (3, 4, 5)),
    (Concat(), [(3, 4, 5), (3, 4, 1), (3, 4, 2)], (3, 4, 8)),
    (Concat(), [(5,), (1,)], (6,)),
    (Shuffle(groups=3), [(3, 4, 6)], (3, 4, 6)),
    (Slice(start=2, stop=5), [(3, 4, 5)], (3, 4, 3)),
    (Slice(start=0, stop=1), [(5,)], (1,)),
    (LRN, [(3, 4, 5)], (3, 4, 5)),
    (Clip(low=-1.5, high=6), [(3, 4, 5)], (3, 4, 5)),
    (Pad(padding=((1, 2), (0, 3))), [(3, 4, 5)], (6, 7, 5)),
    (Pad(padding=((-1, 1), (2, -3))), [(3, 4, 5)], (3, 3, 5)),
    (Dropout(rate=0.2), [(3, 4, 5)], (3, 4, 5)),
    (Dropout(rate=0), [(5,)], (5,)),
    (Quantize(number="int8", grid=Grid((0.1,), (-7,))), [(3, 4, 5)], (3, 4, 5)),
    (Dequantize(), [(5,)], (5,)),
    (Flatten(), [(7, 5)], (35,)),
    (Rows(columns=3), [(4, 5, 6)], (40, 3)),
    (Join(), [(40, 3), (1, 3), (2, 3)], (43, 3)),
    (Slice(start=1, stop=3), [(40, 3)], (40, 2)),
    (DETECT, [(24, 4), (24, 3)], (10, 6)),
    (DETECT, [(24, 4), (24, 3), (24, 1)], (10, 6)),
    (Count(), [(40, 3)], (1,)),
]


@pytest.mark.parametrize(("op", "inputs", "want"), SHAPES, ids=str)
def test_shape(op, inputs, want):
    assert op.output_shape(*inputs) == want


def test_every_operator_is_in_the_table():
    assert {op.kind for op, _, _ in SHAPES} == set(OPS)


@pytest.mark.parametrize("op", [op for op, _, _ in SHAPES], ids=str)
def test_json_round_trip(op):
    assert from_json(json.loads(json.dumps(to_json(op)))) == op


def test_json_of_a_convolution_without_dilation_does_not_mention_it():
    """Earlier versions, which do not know it, read such files."""
    assert to_json(Conv(out=4)) == {"op": "conv", "out": 4}
    assert to_json(Conv(out=4, dilation=(1, 2)))["dilation"] == (1, 2)


@pytest.mark.parametrize(
    ("op", "inputs", "want"),
    [
        (Conv(out=32, kernel=(3, 5)), (9, 9, 3), {"weight": (32, 3, 3, 5), "bias": (32,)}),
        (Conv(out=12, kernel=(3, 3), groups=6, bias=False), (9, 9, 6), {"weight": (12, 1, 3, 3)}),
        (Dense(out=10), (7,), {"weight": (10, 7), "bias": (10,)}),
        (Dense(out=10, bias=False), (7,), {"weight": (10, 7)}),
        (MAX3, (9, 9, 3), {}),
        (PRelu(), (9, 8, 3), {"slope": (3,)}),
        (PRelu(), (40, 5), {"slope": (5,)}),
    ],
    ids=str,
)
def test_weights(op, inputs, want):
    assert op.weights(Tensor(inputs)) == {name: Weight(Tensor(shape)) for name, shape in want.items()}


@pytest.mark.parametrize("shape", [(3, 4, 5), (5,)], ids=str)
def test_batch_norm_statistics_are_stored_but_not_learned(shape):
    learned, measured = Weight(Tensor((5,))), Weight(Tensor((5,)), learned=False)
    want = {"weight": learned, "bias": learned, "running_mean": measured, "running_var": measured}
    assert BatchNorm().weights(Tensor(shape)) == want


pairs = st.tuples(st.integers(1, 9), st.integers(1, 9))
pads = st.tuples(st.integers(0, 4), st.integers(0, 4))


@given(plane=pairs, kernel=pairs, stride=pairs, padding=st.tuples(pads, pads))
def test_window_agrees_with_torch(plane, kernel, stride, padding):
    (top, bottom), (left, right) = padding
    padded = F.pad(torch.zeros(1, 1, *plane), (left, right, top, bottom))
    op = Conv(out=1, kernel=kernel, stride=stride, padding=padding)
    if any(k > size for k, size in zip(kernel, padded.shape[2:], strict=True)):
        with pytest.raises(GraphError, match="window does not fit"):
            op.output_shape((*plane, 1))
    else:
        assert op.output_shape((*plane, 1))[:2] == F.conv2d(padded, torch.zeros(1, 1, *kernel), stride=stride).shape[2:]


@pytest.mark.parametrize(
    ("op", "inputs", "message"),
    [
        (Conv(out=4), [(5,)], r"needs a map \(height, width, channels\), not \(5,\)"),
        (Conv(out=4, groups=2), [(8, 8, 3)], "3 input channels do not divide into 2 groups"),
        (Conv(out=4, kernel=(3, 3)), [(2, 9, 3)], "a 3x3 window does not fit the padded 2x9 input"),
        (Conv(out=4, kernel=(3, 3), stride=(3, 3)), [(9, 2, 3)], "a 3x3 window does not fit the padded 9x2 input"),
        (Dense(out=4), [(2, 2, 3)], r"needs a vector \(features,\), not \(2, 2, 3\); pool or flatten first"),
        (MAX3, [(5,)], "needs a map"),
        (MAX3, [(1, 9, 3)], "window does not fit"),
        (GlobalPool(), [(5,)], "needs a map"),
        (Flatten(), [(5,)], "needs a map"),
        (Add(), [(2, 2, 3), (2, 2, 4)], r"cannot add shapes \(2, 2, 3\) and \(2, 2, 4\): they differ"),
        (Sub(), [(2, 2, 3), (2, 2, 1)], r"cannot subtract shapes \(2, 2, 3\) and \(2, 2, 1\): they differ"),
        (RESIZE, [(5,)], "needs a map"),
        (Scale(), [(5,), (5,)], "needs a map"),
        (Scale(), [(2, 2, 3), (4,)], r"cannot scale the 3 channels of \(2, 2, 3\) by \(4,\)"),
        (Scale(), [(2, 2, 3), (1, 1, 3)], r"cannot scale the 3 channels of \(2, 2, 3\) by \(1, 1, 3\)"),
        (Concat(), [(2, 2, 3), (2, 3, 3)], r"cannot join shapes \(2, 2, 3\) and \(2, 3, 3\): their planes differ"),
        (Concat(), [(2, 2, 3), (3,)], "their planes differ"),
        (Pad(padding=((-1, 0), (-2, -2))), [(9, 4, 3)], r"cutting .* off 9x4 leaves nothing"),
        (Pad(padding=((-9, 9), (0, 0))), [(9, 4, 3)], "leaves nothing"),
        (Pad(padding=((1, 1), (1, 1))), [(5,)], "needs a map"),
        (Shuffle(groups=2), [(2, 2, 3)], "3 channels do not divide into 2 groups to shuffle"),
        (Shuffle(groups=2), [(4,)], "needs a map"),
        (Slice(start=1, stop=4), [(2, 2, 3)], r"cannot take channels 1 to 4 of \(2, 2, 3\), which has 3"),
        (LRN, [(5,)], "needs a map"),
    ],
    ids=str,
)
def test_inputs_that_do_not_fit(op, inputs, message):
    with pytest.raises(GraphError, match=f"^[^\n]*{message}[^\n]*$"):
        op.output_shape(*inputs)


SIZED = {"op": "resize", "height": 3, "width": 3, "mode": "nearest"}
POOL = {"op": "pool", "function": "max", "kernel": [3, 3], "stride": [1, 1]}


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({}, "no operator None; known: activation, add, "),
        ({"op": "batchnorm"}, "no operator 'batchnorm'; closest: batch_norm"),
        ({"op": ["conv"]}, r"no operator \['conv'\]; known: "),
        ({"op": "conv"}, "conv lacks out$"),
        ({"op": "slice"}, "slice lacks start, stop$"),
        (
            {"op": "conv", "out": 4, "spread": 2},
            "conv has no attribute 'spread'; it has out, kernel, stride, padding, dilation, groups, bias",
        ),
        ({"op": "add", "a\nb": 2}, r"add has no attribute 'a\\nb'; it has none"),
        ({"op": "input", "shape": [0, 8, 3]}, r"not \(0, 8, 3\)"),
        ({"op": "input", "shape": [8, 8]}, r"needs \(height, width, channels\), .* not \(8, 8\)"),
        ({"op": "conv", "out": 0}, "output channels must be a whole number from 1 to 2147483647, not 0"),
        ({"op": "conv", "out": 2**31}, "from 1 to 2147483647, not 2147483648"),
        ({"op": "conv", "out": True}, "not True"),
        ({"op": "conv", "out": 4, "groups": 3}, "4 output channels do not divide into 3 groups"),
        ({"op": "conv", "out": 4, "kernel": 3}, r"kernel must be \(height, width\), .* not 3"),
        ({"op": "conv", "out": 4, "stride": [1, 0]}, r"stride must be .* not \(1, 0\)"),
        ({"op": "conv", "out": 4, "dilation": [0, 1]}, r"dilation must be .* not \(0, 1\)"),
        ({"op": "conv", "out": 4, "padding": [1, 1]}, r"padding must be .* not \(1, 1\)"),
        ({"op": "conv", "out": 4, "padding": [[0, 0], [0, -1]]}, r"padding must be .* not \(\(0, 0\), \(0, -1\)\)"),
        ({"op": "conv", "out": 4, "bias": 1}, "bias must be true or false, not 1"),
        ({"op": "batch_norm", "epsilon": 0}, "epsilon must be a number above 0, not 0"),
        ({"op": "activation", "function": "relu7"}, "no activation 'relu7'; closest: relu, relu6"),
        ({"op": "activation", "function": "leaky_relu", "slope": 0}, "slope must be a number above 0, not 0"),
        (POOL | {"function": "mean"}, "pooling must be max or average, not 'mean'"),
        (POOL | {"padding": [[3, 0], [0, 0]]}, r"padding \(\(3, 0\), \(0, 0\)\) must be below the window, \(3, 3\)"),
        ({"op": "shuffle", "groups": 0}, "groups must be a whole number .* not 0"),
        ({"op": "slice", "start": 3, "stop": 3}, "a slice needs 0 <= start < stop, not 3 to 3"),
        ({"op": "local_response_norm", "size": 4, "alpha": 1, "beta": 1, "bias": 1}, "size must be odd, not 4"),
        ({"op": "local_response_norm", "size": 5, "alpha": 1, "beta": 0, "bias": 1}, "beta must be .* not 0"),
        ({"op": "clip", "low": 6, "high": 0}, "a clip needs numbers low < high, not 6 and 0"),
        ({"op": "clip", "low": 0, "high": 0}, "a clip needs numbers low < high"),
        ({"op": "clip", "low": None, "high": 0}, "a clip needs numbers low < high, not None and 0"),
        ({"op": "clip", "low": 0, "high": nan}, "a clip needs numbers low < high, not 0 and nan"),
        ({"op": "pad", "padding": [1, 1]}, r"margins must be \(\(top, bottom\), \(left, right\)\), .* not \(1, 1\)"),
        (SIZED | {"height": 0}, "height must be a whole number from 1 to 2147483647, not 0"),
        (SIZED | {"mode": "cubic"}, "no mode 'cubic'; known: bilinear, nearest"),
        (SIZED | {"coordinates": "half"}, "no coordinates 'half'; closest: half_pixel"),
        (SIZED | {"rounding": "up"}, "no rounding 'up'; known: ceil, floor, round_prefer_ceil, round_prefer_floor"),
        ({"op": "dropout", "rate": 1}, "dropout rate must be at least 0 and below 1, not 1"),
    ],
    ids=str,
)
def test_bad_records(record, message):
    with pytest.raises(GraphError, match=f"^[^\n]*{message}[^\n]*$"):
        from_json(record)


# no attribute of any operator may be one of these
NEVER = [None, "x", -1, 1.5e400, nan, -inf, 10**400, -(10**400), {}, [], [1], [[[[1]]]], ["a", "b"], "\n" * 9999]


@pytest.mark.parametrize("value", NEVER, ids=lambda value: repr(value)[:12])
@pytest.mark.parametrize(
    ("op", "attribute"),
    [(op, name) for op, _, _ in SHAPES for name in to_json(op) if name != "op" and not isinstance(op, Clip)],
    ids=lambda value: value if isinstance(value, str) else value.kind,
)
def test_no_bad_value_gets_past(op, attribute, value):
    with pytest.raises(GraphError) as caught:
        from_json(to_json(op) | {attribute: value})
    assert len(str(caught.value)) < 300, "a message is one short line, whatever the file holds"
    assert "\n" not in str(caught.value)
