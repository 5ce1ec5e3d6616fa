"""The definition of quantized networks, against ONNX Runtime's integer operators and formulas written here."""

from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from networks import every_integer, every_op, images, random_weights, resized_bytes
from onnx_files import exact_sums
from smallcnn.ir import ops
from smallcnn.ir.graph import Output
from smallcnn.ir.types import RANGES, Grid, Tensor
from smallcnn.reference import floating, integer

RNG = np.random.default_rng(7)


def conv_of(source, weight, bias, *, kernel, stride, padding, groups, grid, weight_grid, new):
    """Our convolution and the quantize after it."""
    op = ops.Conv(
        out=len(weight), kernel=kernel, stride=stride, padding=padding, groups=groups, number="int8", grid=weight_grid
    )
    tensor = Tensor(source.shape[1:], "uint8", grid)
    sums = integer.apply(op, [source], {"weight": weight, "bias": bias}, [tensor])
    assert sums.dtype == np.int32
    quantize = ops.Quantize(number="uint8", grid=new)
    return integer.apply(quantize, [sums], {}, [op.output(tensor)])


def qlinear_conv(source, weight, bias, *, kernel, stride, padding, groups, grid, weight_grid, new):
    """The same by ONNX Runtime's QLinearConv."""
    (top, bottom), (left, right) = padding
    scales = [np.array(g.scale, np.float32) for g in (grid, weight_grid, new)]
    zeros = [np.array(grid.zero, np.uint8), np.array(weight_grid.zero, np.int8), np.array(new.zero, np.uint8)]
    values = {
        "xs": scales[0].reshape(()), "xz": zeros[0].reshape(()), "w": weight, "ws": scales[1], "wz": zeros[1],
        "ys": scales[2].reshape(()), "yz": zeros[2].reshape(()), "b": bias,
    }  # fmt: skip
    node = helper.make_node(
        "QLinearConv", ["x", "xs", "xz", "w", "ws", "wz", "ys", "yz", "b"], ["y"], kernel_shape=kernel, strides=stride,
        pads=[top, left, bottom, right], group=groups,
    )  # fmt: skip
    graph = helper.make_graph(
        [node], "conv", [helper.make_tensor_value_info("x", TensorProto.UINT8, None)],
        [helper.make_tensor_value_info("y", TensorProto.UINT8, None)],
        [numpy_helper.from_array(value, name) for name, value in values.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), exact_sums())
    return session.run(None, {"x": source.transpose(0, 3, 1, 2)})[0].transpose(0, 2, 3, 1)


@pytest.mark.parametrize(
    ("channels", "out", "kernel", "stride", "padding", "groups"),
    [
        (8, 16, (1, 1), (1, 1), ((0, 0), (0, 0)), 1),
        (3, 8, (3, 3), (2, 2), ((0, 1), (1, 1)), 1),
        (16, 16, (3, 3), (1, 1), ((1, 1), (1, 1)), 16),
        (12, 6, (1, 3), (1, 2), ((0, 0), (2, 0)), 3),
    ],
)
def test_convolutions_are_onnx_runtimes_bit_for_bit(channels, out, kernel, stride, padding, groups):
    source = RNG.integers(0, 256, (2, 9, 7, channels), np.uint8)
    weight = RNG.integers(-127, 128, (out, channels // groups, *kernel), np.int8)
    how = {
        "kernel": kernel, "stride": stride, "padding": padding, "groups": groups, "grid": Grid((0.0213,), (117,)),
        "weight_grid": Grid(tuple(RNG.uniform(1e-4, 4e-3, out).tolist()), (0,) * out), "new": Grid((0.057,), (101,)),
    }  # fmt: skip
    bias = RNG.integers(-5000, 5000, out, np.int32)
    got, want = conv_of(source, weight, bias, **how), qlinear_conv(source, weight, bias, **how)
    assert len(np.unique(got)) > 60
    np.testing.assert_array_equal(got, want)


@given(st.integers(-(2**31), 2**31 - 1), st.floats(2.0**-20, 1.0, width=32), st.floats(2.0**-10, 1.0, width=32))
def test_a_sum_is_multiplied_once_in_float32_and_rounded_to_even(total, scale, new):
    op, grid = ops.Quantize(number="uint8", grid=Grid((new,), (7,))), Grid((scale,), (0,))
    got = integer.apply(op, [np.array([[total]], np.int32)], {}, [Tensor((1,), "int32", grid)])
    multiplier = np.float32(scale) / np.float32(new)
    want = min(max(round(float(np.float32(total) * multiplier)) + 7, 0), 255)
    assert got.item() == want
    assert got.dtype == np.uint8


def test_sums_wrap_as_int32():
    op = ops.Dense(out=1, bias=True, number="int8", grid=Grid((1.0,), (0,)))
    source, weight = np.full((1, 4), 255, np.uint8), np.full((1, 4), 127, np.int8)
    bias = np.array([2**31 - 1], np.int32)
    tensor = Tensor((4,), "uint8", Grid((1.0,), (0,)))
    got = integer.apply(op, [source], {"weight": weight, "bias": bias}, [tensor])
    assert got.item() == 4 * 255 * 127 + 2**31 - 1 - 2**32


def test_an_add_multiplies_each_input_by_its_own_scale():
    a, b = np.array([[200, 3]], np.uint8), np.array([[10, 77]], np.uint8)
    grids = Grid((0.1,), (5,)), Grid((0.3,), (9,))
    tensors = [Tensor((2,), "uint8", grid) for grid in grids]
    total = integer.apply(ops.Add(), [a, b], {}, tensors)
    new = np.float32(0.25)
    got = integer.apply(ops.Quantize(number="uint8", grid=Grid((0.25,), (40,))), [total], {}, [Tensor((2,))])
    one, two = np.float32(0.1) / new, np.float32(0.3) / new
    want = [round(float(np.float32(x - 5) * one + np.float32(y - 9) * two)) + 40 for x, y in ((200, 10), (3, 77))]
    np.testing.assert_array_equal(got, [want])
    np.testing.assert_allclose(integer.plain(total), [[19.5 + 0.3, -0.2 + 20.4]], rtol=1e-6)


def test_a_sub_multiplies_each_input_by_its_own_scale():
    a, b = np.array([[200, 3]], np.uint8), np.array([[10, 77]], np.uint8)
    tensors = [Tensor((2,), "uint8", grid) for grid in (Grid((0.1,), (5,)), Grid((0.3,), (9,)))]
    total = integer.apply(ops.Sub(), [a, b], {}, tensors)
    got = integer.apply(ops.Quantize(number="uint8", grid=Grid((0.25,), (40,))), [total], {}, [Tensor((2,))])
    one, two = np.float32(0.1) / np.float32(0.25), np.float32(0.3) / np.float32(0.25)
    want = [round(float(np.float32(x - 5) * one - np.float32(y - 9) * two)) + 40 for x, y in ((200, 10), (3, 77))]
    np.testing.assert_array_equal(got, [np.maximum(want, 0)])


def test_slopes_of_bytes_are_one_product_of_float32():
    source, slope = np.arange(256, dtype=np.uint8).reshape(1, 128, 2), np.array([0.3, -1.7], np.float32)
    got = integer.apply(ops.PRelu(), [source], {"slope": slope}, [Tensor((128, 2), "uint8", Grid((0.1,), (77,)))])
    real = np.float32(0.1) * (source.astype(np.float32) - 77)
    np.testing.assert_array_equal(got, np.where(real < 0, slope * real, real))
    assert got.dtype == np.float32


@pytest.mark.parametrize("number", ["uint8", "int8"])
@pytest.mark.parametrize("count_padding", [False, True])
def test_means_of_bytes(number, count_padding):
    low, high = RANGES[number]
    source = RNG.integers(low, high + 1, (1, 5, 6, 3)).astype(number)
    grid, new = Grid((0.5,), (3,)), Grid((0.75,), (1,))
    op = ops.Pool(
        function="average", kernel=(3, 2), stride=(2, 1), padding=((1, 1), (1, 0)), count_padding=count_padding
    )
    real = (source.astype(np.float64) - 3) * 0.5
    want = floating.apply(op, [real], {})
    got = integer.apply(op, [source], {}, [Tensor((5, 6, 3), number, grid)])
    np.testing.assert_allclose(integer.plain(got), want, rtol=1e-6)
    whole = integer.apply(ops.GlobalPool(), [source], {}, [Tensor((5, 6, 3), number, grid)])
    np.testing.assert_array_equal(whole, (source.astype(int) - 3).sum((1, 2)))
    stored = integer.apply(
        ops.Quantize(number=number, grid=new), [whole], {}, [Tensor((3,), "int32", Grid((0.5 / 30,), (0,)))]
    )
    np.testing.assert_allclose(stored.astype(float), real.mean((1, 2)) / 0.75 + 1, atol=0.5001)


@pytest.mark.parametrize("graph", [every_integer(), resized_bytes()], ids=lambda graph: graph.name)
def test_each_result_is_the_real_networks_rounded(graph):
    """Each node of the network, given its own inputs, is within a step of the real numbers' result."""
    nodes = [node.name for node in graph.nodes[1:]]
    every = replace(graph, outputs=tuple(Output(f"out.{name}", name) for name in nodes))
    weights, batch = random_weights(graph), images(graph)
    values = {name.removeprefix("out."): value for name, value in integer.run(every, weights, batch).items()}
    values["input"] = batch
    for node in graph.nodes[1:]:
        tensors = [graph[name].tensor for name in node.inputs]
        inputs = [real_of(tensor, values[name]) for tensor, name in zip(tensors, node.inputs, strict=True)]
        own = {
            key: real_weight(weight.tensor, weights[f"{node.name}.{key}"])
            for key, weight in graph.weights_of(node).items()
        }
        if isinstance(node.op, ops.Quantize):
            want, step = np.clip(inputs[0], *ends(node.tensor)), 0.501 * node.tensor.grid.scale[0]
        elif isinstance(node.op, ops.Dequantize):
            want, step = inputs[0], 1e-6
        else:
            want, step = floating.apply(node.op, inputs, own), 1e-5
        if isinstance(node.op, ops.Activation | ops.Clip) and node.tensor.grid:
            step = 0.501 * node.tensor.grid.scale[0]  # the bounds are rounded
        got = real_of(node.tensor, values[node.name])
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=step, err_msg=node.name)
        assert values[node.name].dtype == node.tensor.number


def real_of(tensor, value):
    if tensor.grid is None:
        return value.astype(np.float64)
    return (value - np.array(tensor.grid.zero)) * np.array(tensor.grid.scale, np.float64)


def real_weight(tensor, value):
    if tensor.grid is None:
        return value.astype(np.float64)
    along = (-1, *[1] * (value.ndim - 1))
    zero, scale = (np.array(entry, np.float64).reshape(along) for entry in (tensor.grid.zero, tensor.grid.scale))
    return (value - zero) * scale


def ends(tensor):
    return [(end - tensor.grid.zero[0]) * tensor.grid.scale[0] for end in RANGES[tensor.number]]


def test_real_networks_are_the_floating_reference_rounded():
    graph = every_op()
    weights, batch = random_weights(graph), images(graph)
    (got,), (want,) = (d.run(graph, weights, batch).values() for d in (integer, floating))
    assert got.dtype == np.float32
    assert not graph.integer
    assert every_integer().integer
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
