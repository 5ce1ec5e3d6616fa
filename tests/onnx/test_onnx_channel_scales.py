"""Results quantized with a scale per channel, as NNCF writes before depthwise convolutions: read as integers."""

import numpy as np
import pytest
from onnx import helper

from onnx_files import answer_as_written, defined, head, integer_layers, made, node, random
from smallcnn.errors import FileError
from smallcnn.ir import ops
from smallcnn.onnx import from_onnx

SCALES = np.array([0.004, 0.02, 0.0071, 0.011], np.float32)


def file(*between, scales=SCALES, zero=0, number=np.uint8, shuffled=False):
    """A convolution, the operators `between`, a quantize per channel, perhaps a shuffle, a depthwise convolution."""
    rng = np.random.default_rng(3)
    stored = {
        "is": np.float32(0.03), "iz": np.uint8(128), "os": np.float32(0.05), "oz": np.uint8(120),
        "wq": rng.integers(-127, 128, (4, 3, 3, 3)).astype(np.int8), "ws": np.float32([0.002, 0.003, 0.001, 0.004]),
        "dq": rng.integers(-127, 128, (4, 1, 3, 3)).astype(np.int8), "ds": np.float32([0.01, 0.02, 0.005, 0.015]),
        "wz": np.zeros(4, np.int8), "b": random(4, seed=5), "c": random(4, seed=6), "dense": random(2, 4),
        "ss": scales, "sz": np.full(scales.shape, zero, number) if np.isscalar(zero) else np.array(zero, number),
        "low": np.float32(0), "high": np.float32(6), "apart": np.array([1, 2, 2, 5, 6]), "flat": np.array([1, 4, 5, 6]),
    }  # fmt: skip
    nodes = [
        node("QuantizeLinear", "x is iz", "xq"),
        node("DequantizeLinear", "xq is iz", "xr"),
        node("DequantizeLinear", "wq ws wz", "w", axis=0),
        node("Conv", "xr w b", "s", pads=[1, 1, 1, 1]),
        *between,
        node("QuantizeLinear", f"{between[-1].output[0] if between else 's'} ss sz", "sq", axis=1),
        node("DequantizeLinear", "sq ss sz", "sr", axis=1),
    ]
    if shuffled:
        nodes += [
            node("Reshape", "sr apart", "s5"),
            node("Transpose", "s5", "t5", perm=[0, 2, 1, 3, 4]),
            node("Reshape", "t5 flat", "mixed"),
        ]
    nodes += [
        node("DequantizeLinear", "dq ds wz", "d", axis=0),
        node("Conv", f"{'mixed' if shuffled else 'sr'} d c", "u", pads=[1, 1, 1, 1], group=4),
        node("QuantizeLinear", "u os oz", "uq"),
        node("DequantizeLinear", "uq os oz", "ur"),
    ]
    end = head("ur")
    end[1] = node("Flatten", "pooled", "vector")
    end[2] = node("Gemm", "vector dense", "y", transB=1)
    return made([*nodes, *end], [1, 3, 5, 6], stored)


ONE_STEP = 0.05 / 30 * float(np.abs(random(2, 4)).max())
"""How far an answer is off if one of the 30 bytes of a channel is rounded the other way."""

RELU, RELU6 = node("Relu", "s", "r"), node("Clip", "s low high", "r")
HARD_SWISH = helper.make_node("HardSwish", ["s"], ["r"], name="swish")


@pytest.mark.parametrize(
    ("between", "options"),
    [
        ([], {"number": np.int8}),
        ([RELU], {}),
        ([RELU], {"shuffled": True}),
        ([RELU6], {}),
        ([RELU6], {"scales": np.array([6 / 255] * 4, np.float32) * np.float32([1, 0.5, 0.9, 0.999])}),
        ([RELU6], {"scales": SCALES * 2}),  # 6 is below the largest byte of two channels
        ([HARD_SWISH], {"number": np.int8}),
    ],
)
def test_a_scale_per_channel(between, options):
    model = file(*between, **options)
    read = from_onnx(model)
    assert len(integer_layers(read.graph)) == 2
    for seed in range(4):
        x = 2 * random(1, 3, 5, 6, seed=seed)
        got, wanted = defined(read, x.transpose(0, 2, 3, 1)), answer_as_written(model, x)
        np.testing.assert_allclose(got, wanted, rtol=0, atol=1.01 * ONE_STEP)


def test_no_step_of_its_own_is_left():
    for options in ({}, {"shuffled": True}):
        graph = from_onnx(file(RELU6, scales=SCALES / 2, **options)).graph
        assert not any(isinstance(n.op, ops.BatchNorm | ops.Dequantize) for n in graph.nodes[:-4])


def test_several_zero_points_are_refused():
    with pytest.raises(FileError, match="several zero points; one is supported"):
        from_onnx(file(HARD_SWISH, zero=[1, 2, 3, 4]))


def test_scales_of_another_axis_are_refused():
    model = file(RELU)
    for step in model.graph.node:
        if step.name.endswith(("_sq", "_sr")):
            step.attribute[0].i = 2
    with pytest.raises(FileError, match="4 scales for axis 2"):
        from_onnx(model)
