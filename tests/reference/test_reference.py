from typing import get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given
from hypothesis import strategies as st

from networks import every_number, every_op, random_weights
from smallcnn.errors import GraphError
from smallcnn.ir import ops
from smallcnn.ir.types import Grid, Tensor
from smallcnn.reference import floating as reference
from smallcnn.reference.numbers import real, stored

Array = np.ndarray


def agree(op: ops.Op, want: torch.Tensor, *inputs: Array, **weights: Array) -> None:
    """The reference on `inputs` equals torch's float64 result.

    Sums here have at most 7 * 7 * 2 products of order 1, so two orders of summation differ by less than
    100 * 2^-53 * 100 = 1.2e-12; the rest is left for large single values.
    """
    got = reference.apply(op, list(inputs), weights)
    assert got.dtype == np.float64
    assert got.shape[1:] == op.output_shape(*(x.shape[1:] for x in inputs))
    np.testing.assert_allclose(got, channels_last(want), rtol=0, atol=1e-11)


def channels_first(x: Array) -> torch.Tensor:
    """(N, H, W, C) -> (N, C, H, W); a (N, C) stays."""
    return torch.from_numpy(x).movedim(-1, 1)


def channels_last(x: torch.Tensor) -> Array:
    """(N, C, H, W) -> (N, H, W, C); a (N, C) stays."""
    return x.movedim(1, -1).numpy()


def normal(*shape: int) -> Array:
    return np.random.default_rng(sum(shape)).standard_normal(shape)


def padded(x: torch.Tensor, padding: ops.Padding, value: float = 0.0) -> torch.Tensor:
    (top, bottom), (left, right) = padding
    return F.pad(x, (left, right, top, bottom), value=value)


@st.composite
def windows(draw, pool=False):
    """Plane, kernel, stride and any padding on the four sides, such that the window fits; pools pad less than that."""
    pairs = [st.tuples(st.integers(1, most), st.integers(1, most)) for most in (9, 7, 3)]
    plane, kernel, stride = (draw(pair) for pair in pairs)
    most = [st.integers(0, k - 1 if pool else 4) for k in kernel]
    padding = tuple(draw(st.tuples(pad, pad)) for pad in most)
    assume(all(size + sum(pad) >= k for size, k, pad in zip(plane, kernel, padding, strict=True)))
    return plane, {"kernel": kernel, "stride": stride, "padding": padding}


@given(windows(), st.integers(1, 4), st.integers(1, 2), st.integers(1, 3), st.booleans())
def test_conv(window, groups, per_group, multiplier, bias):
    """Full, grouped and depthwise (one channel per group), with a channel multiplier."""
    plane, attributes = window
    op = ops.Conv(out=groups * multiplier, groups=groups, bias=bias, **attributes)
    x, weight = normal(2, *plane, groups * per_group), normal(op.out, per_group, *op.kernel)
    weights = {"weight": weight} | ({"bias": normal(op.out)} if bias else {})
    tensors = map(torch.from_numpy, weights.values())
    want = F.conv2d(padded(channels_first(x), op.padding), *tensors, stride=op.stride, groups=groups)
    agree(op, want, x, **weights)


@given(windows(), st.tuples(st.integers(1, 3), st.integers(1, 3)), st.sampled_from([1, 2]))
def test_dilated_conv(window, dilation, groups):
    plane, attributes = window
    op = ops.Conv(out=4, groups=groups, dilation=dilation, **attributes)
    reach = [(k - 1) * step + 1 for k, step in zip(op.kernel, dilation, strict=True)]
    assert op.reach == tuple(reach)
    assume(all(size + sum(pad) >= k for size, k, pad in zip(plane, reach, op.padding, strict=True)))
    x, weight, bias = normal(2, *plane, 4), normal(4, 4 // groups, *op.kernel), normal(4)
    want = F.conv2d(
        padded(channels_first(x), op.padding), torch.from_numpy(weight), torch.from_numpy(bias), stride=op.stride,
        groups=groups, dilation=dilation,
    )  # fmt: skip
    agree(op, want, x, weight=weight, bias=bias)


@given(windows(pool=True))
def test_max_pool(window):
    plane, attributes = window
    op = ops.Pool(function="max", **attributes)
    x = normal(2, *plane, 3) - 5  # below 0: a zero from the padding must not win
    want = F.max_pool2d(padded(channels_first(x), op.padding, -torch.inf), op.kernel, op.stride)
    agree(op, want, x)


@given(windows(pool=True), st.booleans())
def test_average_pool(window, count_padding):
    plane, attributes = window
    op = ops.Pool(function="average", count_padding=count_padding, **attributes)
    x = normal(2, *plane, 3)

    def total(values: torch.Tensor) -> torch.Tensor:
        return F.avg_pool2d(padded(values, op.padding), op.kernel, op.stride, divisor_override=1)

    pixels = op.kernel[0] * op.kernel[1] if count_padding else total(torch.ones(1, 1, *plane, dtype=torch.float64))
    agree(op, total(channels_first(x)) / pixels, x)


@pytest.mark.parametrize("count_padding", [True, False])
def test_average_pool_at_a_border_by_hand(count_padding):
    op = ops.Pool(
        function="average", kernel=(1, 2), stride=(1, 1), padding=((0, 0), (1, 0)), count_padding=count_padding
    )
    got = reference.apply(op, [np.array([4.0, 6.0, 8.0]).reshape(1, 1, 3, 1)], {})
    assert got.ravel().tolist() == [2 if count_padding else 4, 5, 7]


@pytest.mark.parametrize("bias", [True, False])
def test_dense(bias):
    x, weight = normal(3, 5), normal(4, 5)
    weights = {"weight": weight} | ({"bias": normal(4)} if bias else {})
    want = F.linear(torch.from_numpy(x), *map(torch.from_numpy, weights.values()))
    agree(ops.Dense(out=4, bias=bias), want, x, **weights)


@pytest.mark.parametrize("shape", [(2, 3, 5, 4), (2, 1, 1, 4), (3, 4)], ids=str)
@pytest.mark.parametrize("epsilon", [1e-5, 0.5])
def test_batch_norm(shape, epsilon):
    x, weight, bias, mean = normal(*shape), normal(4), normal(4, 1)[:, 0], normal(4, 2)[:, 0]
    variance = mean**2 + 0.1
    want = F.batch_norm(channels_first(x), *map(torch.from_numpy, (mean, variance, weight, bias)), eps=epsilon)
    agree(ops.BatchNorm(epsilon=epsilon), want, x, weight=weight, bias=bias, running_mean=mean, running_var=variance)


@pytest.mark.parametrize(("low", "high"), [(-0.3, 0.2), (0, 6)])
def test_clip(low, high):
    x = normal(2, 3, 4, 5)
    agree(ops.Clip(low=low, high=high), channels_first(x).clamp(low, high), x)


@pytest.mark.parametrize("padding", [((1, 2), (0, 3)), ((-1, 1), (2, -1)), ((-1, -1), (0, 0))])
def test_pad(padding):
    (top, bottom), (left, right) = padding
    x = normal(2, 4, 5, 3)
    agree(ops.Pad(padding=padding), F.pad(channels_first(x), (left, right, top, bottom)), x)


ACTIVATIONS = {
    "relu": F.relu,
    "relu6": F.relu6,
    "leaky_relu": lambda x: F.leaky_relu(x, 0.3),
    "hard_swish": F.hardswish,
    "hard_sigmoid": F.hardsigmoid,
    "sigmoid": torch.sigmoid,
}


@pytest.mark.parametrize("function", get_args(ops.ActivationKind))
@pytest.mark.parametrize("shape", [(1, 5, 7, 23), (35, 23)], ids=str)
def test_activation(function, shape):
    x = np.linspace(-8, 8, 805).reshape(shape)  # both bends of every function, and 0 itself
    agree(ops.Activation(function=function, slope=0.3), ACTIVATIONS[function](channels_first(x)), x)


@pytest.mark.parametrize("plane", [(1, 1), (3, 5), (7, 7)], ids=str)
def test_global_pool(plane):
    x = normal(2, *plane, 3)
    agree(ops.GlobalPool(), F.adaptive_avg_pool2d(channels_first(x), 1)[:, :, 0, 0], x)


def test_flatten_runs_through_the_channels_fastest():
    x = np.arange(12.0).reshape(1, 2, 3, 2)
    agree(ops.Flatten(), torch.arange(12.0, dtype=torch.float64)[None], x)


@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize("shape", [(2, 3, 5, 4), (2, 4)], ids=str)
def test_add(count, shape):
    inputs = [normal(*shape) + i for i in range(count)]
    agree(ops.Add(), torch.stack([channels_first(x) for x in inputs]).sum(0), *inputs)


@pytest.mark.parametrize("shape", [(2, 3, 5, 4), (2, 4)], ids=str)
def test_sub(shape):
    a, b = normal(*shape), normal(*shape) ** 2
    agree(ops.Sub(), channels_first(a) - channels_first(b), a, b)


@pytest.mark.parametrize("shape", [(2, 3, 5, 4), (2, 7, 4), (2, 4)], ids=str)
def test_prelu(shape):
    x, slope = normal(*shape), np.array([0.25, -1.5, 0.0, 3.0])
    agree(ops.PRelu(), F.prelu(channels_first(x), torch.from_numpy(slope)), x, slope=slope)


def test_exp():
    x = np.linspace(-8, 8, 60).reshape(1, 3, 5, 4)
    agree(ops.Exp(), channels_first(x).exp(), x)


def test_scale():
    x, factors = normal(2, 3, 5, 4), normal(2, 4)
    want = torch.einsum("nchw,nc->nchw", channels_first(x), torch.from_numpy(factors))
    agree(ops.Scale(), want, x, factors)


@pytest.mark.parametrize("plane", [(3, 5), (1, 1), ()], ids=str)
def test_concat(plane):
    inputs = [normal(2, *plane, channels) for channels in (1, 4, 2)]
    agree(ops.Concat(), torch.cat([channels_first(x) for x in inputs], 1), *inputs)


@pytest.mark.parametrize(("channels", "groups"), [(6, 2), (6, 3), (6, 6), (6, 1), (24, 4)])
def test_shuffle(channels, groups):
    x = normal(2, 3, 5, channels)
    agree(ops.Shuffle(groups=groups), F.channel_shuffle(channels_first(x), groups), x)


def test_shuffle_by_hand():
    """Groups (0 1 2) and (3 4 5) are dealt out one from each (ShuffleNet v1, figure 1)."""
    got = reference.apply(ops.Shuffle(groups=2), [np.arange(6.0).reshape(1, 1, 1, 6)], {})
    assert got.ravel().tolist() == [0, 3, 1, 4, 2, 5]


@pytest.mark.parametrize("plane", [(3, 5), ()], ids=str)
def test_slice(plane):
    x = normal(2, *plane, 7)
    agree(ops.Slice(start=2, stop=5), channels_first(x)[:, 2:5], x)


@pytest.mark.parametrize("size", [1, 3, 5])
@pytest.mark.parametrize("channels", [1, 2, 8])
def test_local_response_norm(size, channels):
    x = 3 * normal(2, 3, 5, channels)
    want = F.local_response_norm(channels_first(x), size, alpha=0.7, beta=0.75, k=2.0)
    agree(ops.LocalResponseNorm(size=size, alpha=0.7, beta=0.75, bias=2.0), want, x)


def test_dropout_does_nothing():
    x = normal(2, 3, 5, 4)
    agree(ops.Dropout(rate=0.9), channels_first(x), x)


def test_run_is_the_nodes_one_after_another():
    graph = every_op()
    weights = random_weights(graph)
    batch = normal(2, *graph.input_shape)
    values = {"input": batch}
    for node in graph.nodes[1:]:
        own = {key: weights[f"{node.name}.{key}"].astype(np.float64) for key in graph.weights_of(node)}
        values[node.name] = reference.apply(node.op, [values[name] for name in node.inputs], own)
    np.testing.assert_array_equal(reference.answer(graph, weights, batch), values["classifier"])


# --- number types ---


@given(
    st.sampled_from(["uint8", "int8"]),
    st.floats(2.0**-20, 2.0**10, width=32),
    st.integers(0, 127),
    st.lists(st.floats(-(2.0**15), 2.0**15, width=32), min_size=1, max_size=8),
)
def test_quantize_agrees_with_torch(number, scale, zero, values):
    """But for ties: torch multiplies by 1 / scale where the definition divides."""
    x = np.array(values, np.float32)
    steps = x / np.float32(scale)
    assume(not (np.abs(np.abs(steps - np.rint(steps)) - 0.5) < 1e-3).any())
    grid = Grid((scale,), (zero,))
    info = np.iinfo(number)
    want = torch.fake_quantize_per_tensor_affine(torch.from_numpy(x), scale, zero, int(info.min), int(info.max)).numpy()
    got = reference.apply(ops.Quantize(number=number, grid=grid), [x], {})
    assert got.dtype == number
    np.testing.assert_array_equal(got, np.rint(want / scale) + zero)
    back = reference.apply(ops.Dequantize(), [got], {}, [Tensor(x.shape, number, grid)])
    np.testing.assert_allclose(back, want, rtol=1e-6)


def test_ties_go_to_the_even_step_and_the_ends_saturate():
    values = np.array([0.25, 0.75, 1.25, -0.25, -100, 100, np.inf, -np.inf])
    np.testing.assert_array_equal(stored("uint8", Grid((0.5,), (10,)), values), [10, 12, 12, 10, 0, 210, 255, 0])
    np.testing.assert_array_equal(stored("int8", Grid((0.5,), (-8,)), values), [-8, -6, -6, -8, -128, 127, 127, -128])


def test_a_grid_of_several_entries_is_along_the_first_axis():
    grid = Grid((0.5, 2.0), (1, -1))
    weight = np.array([[3, 1], [0, 4]], np.int8)
    np.testing.assert_array_equal(real(Tensor((2, 2), "int8", grid), weight), [[1, 0], [2, 10]])
    np.testing.assert_array_equal(stored("int8", grid, np.array([[1, 0], [2, 10]])), weight)


def test_a_border_of_bytes_is_the_stored_zero_and_never_the_largest():
    """Half of int8's range is below the zero of this grid, so neither 0 nor the zero may win a maximum."""
    tensor = Tensor((1, 1, 1), "int8", Grid((0.5,), (20,)))
    x = np.full((1, 1, 1, 1), -100, np.int8)
    pad = reference.apply(ops.Pad(padding=((0, 1), (0, 0))), [x], {}, [tensor])
    np.testing.assert_array_equal(pad.ravel(), [-100, 20])
    pool = ops.Pool(function="max", kernel=(2, 1), stride=(1, 1), padding=((1, 0), (0, 0)))
    got = reference.apply(pool, [x], {}, [tensor])
    assert (got.dtype, got.ravel().tolist()) == (np.int8, [-100])


def test_outputs_by_name_and_a_single_answer():
    graph = every_number()
    weights, batch = random_weights(graph), normal(2, *graph.input_shape)
    outputs = reference.run(graph, weights, batch)
    assert {name: (value.dtype, value.shape) for name, value in outputs.items()} == {
        "logits": (np.float64, (2, 5)),
        "codes": (np.uint8, (2, 3, 5, 8)),
    }
    with pytest.raises(GraphError, match="has 2 outputs"):
        reference.answer(graph, weights, batch)
