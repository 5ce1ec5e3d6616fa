"""Quantized TensorFlow Lite files as networks of whole numbers, against LiteRT's own bytes."""

import numpy as np
import pytest

pytest.importorskip("tflite")

from smallcnn.ir import ops
from smallcnn.ir.types import Grid
from smallcnn.reference import integer
from smallcnn.tflite import read_tflite
from tflite_files import ACT, KIND, OP, PAD, Draft

WINDOW = {"Padding": PAD.SAME, "StrideH": 1, "StrideW": 1}
STEP = WINDOW | {"DilationHFactor": 1, "DilationWFactor": 1}
SHAPE = (1, 9, 8, 6)


class Whole(Draft):
    """A draft of int8 with per-channel weights, or of uint8 with asymmetric ones for a whole tensor."""

    def __init__(self, kind):
        super().__init__()
        self.kind, self.rng = kind, np.random.default_rng(1)
        self.image = self.bytes((1, 9, 8, 3), 1 / 128, 128)

    def bytes(self, shape, scale, zero):
        """A tensor of bytes; `zero` counts from the least of them."""
        return self.tensor(shape, self.kind, scale=scale, zero=zero - (128 if self.kind == KIND.INT8 else 0))

    def layer(self, code, source, source_scale, out, weight_shape, axis, **options):
        """A convolution or dense layer of `out`, a tensor."""
        channels = weight_shape[axis]
        if self.kind == KIND.INT8:
            scale, zero = self.rng.uniform(0.004, 0.009, channels).astype(np.float32), np.zeros(channels)
            weight = self.rng.integers(-127, 128, weight_shape).astype(np.int8)
        else:
            scale, zero = np.float32([0.0071]), np.array([117])
            weight = self.rng.integers(0, 256, weight_shape).astype(np.uint8)
        bias = self.rng.integers(-3000, 3000, channels).astype(np.int32)
        inputs = [
            source,
            self.constant(weight, scale=scale, zero=zero, axis=axis),
            self.constant(bias, scale=scale * np.float32(source_scale), zero=np.zeros(len(scale))),
        ]
        return self.op(code, inputs, out, **options)


def network(kind):
    """Every operator of a quantized MobileNetV2, and pools and a join of two grids."""
    net = Whole(kind)
    x = net.layer(OP.CONV_2D, net.image, 1 / 128, net.bytes(SHAPE, 0.021, 0), (6, 3, 3, 3), 0, **STEP,
                  FusedActivationFunction=ACT.RELU)  # fmt: skip
    y = net.layer(OP.DEPTHWISE_CONV_2D, x, 0.021, net.bytes(SHAPE, 0.0271, 0), (1, 3, 3, 6), 3, **STEP,
                  DepthMultiplier=1, FusedActivationFunction=ACT.RELU6)  # fmt: skip
    y = net.layer(OP.CONV_2D, y, 0.0271, net.bytes(SHAPE, 0.043, 117), (6, 1, 1, 6), 0, **STEP)
    x = net.op(OP.ADD, [x, y], net.bytes(SHAPE, 0.0473, 104))
    pool = {"StrideH": 2, "StrideW": 2, "FilterHeight": 3, "FilterWidth": 3, "Padding": PAD.SAME}
    a = net.op(OP.MAX_POOL_2D, [x], net.bytes((1, 5, 4, 6), 0.0473, 104), **pool)
    b = net.op(OP.AVERAGE_POOL_2D, [x], net.bytes((1, 5, 4, 6), 0.0473, 104), **pool)
    x = net.op(OP.CONCATENATION, [a, b], net.bytes((1, 5, 4, 12), 0.0473, 104), Axis=3)
    axes = net.constant(np.array([1, 2], np.int32))
    x = net.op(OP.MEAN, [x, axes], net.bytes((1, 12), 0.0317, 101))
    net.at = net.layer(OP.FULLY_CONNECTED, x, 0.0317, net.bytes((1, 5), 0.0553, 128), (5, 12), 0)
    return net


@pytest.mark.parametrize("kind", [KIND.INT8, KIND.UINT8], ids=["int8 per channel", "uint8 asymmetric"])
def test_bytes_are_litert_s(kind, tmp_path):
    """But for a step: LiteRT multiplies sums by fixed-point numbers, and rounds halves up."""
    interpreter = pytest.importorskip("ai_edge_litert.interpreter")
    net = network(kind)
    path = net.write(tmp_path / "m.tflite", [net.image], [net.at])
    made = read_tflite(path)
    images = np.random.default_rng(0).integers(0, 256, (20, 9, 8, 3), np.uint8)
    got = integer.run(made.graph, made.weights, made.preprocessing.normalise(images))["logits"]
    judge = interpreter.Interpreter(str(path))
    judge.allocate_tensors()
    least = 128 if kind == KIND.INT8 else 0
    wanted = []
    for image in images:
        fed = (image.astype(int) - least).astype(np.int8 if least else np.uint8)
        judge.set_tensor(judge.get_input_details()[0]["index"], fed[None])
        judge.invoke()
        wanted.append(judge.get_tensor(judge.get_output_details()[0]["index"])[0].astype(int) + least)
    off = np.abs(got / np.float32(0.0553) + 128 - np.array(wanted))
    assert off.max() < 2.1
    assert (off < 0.1).mean() > 0.7
    assert np.std(wanted) > 5  # the answers differ


def test_operators_take_the_bytes(tmp_path):
    net = network(KIND.INT8)
    graph = read_tflite(net.write(tmp_path / "m.tflite", [net.image], [net.at])).graph
    assert graph.integer
    assert [node.op.kind for node in graph] == [
        "input", "quantize", *["conv", "quantize"] * 2, "activation", "conv", "quantize", "add", "quantize", "pool",
        "pool", "quantize", "concat", "global_pool", "quantize", "dense", "quantize", "dequantize",
    ]  # fmt: skip
    assert {node.tensor.number for node in graph} == {"float32", "uint8", "int32"}
    stem = graph.nodes[2].op
    assert (stem.number, len(stem.grid.scale), set(stem.grid.zero)) == ("int8", 6, {0})
    assert graph.nodes[1].op.grid == Grid((1 / 128,), (128,))
    # the ReLU is the saturation of its bytes, whose zero is 0; those of the ReLU6 reach 0.0271 * 255, more than 6
    assert [node.op for node in graph if node.op.kind == "activation"] == [ops.Activation(function="relu6")]


def test_biases_are_the_file_s(tmp_path):
    net = network(KIND.INT8)
    stored = [data for *_, data in net.tensors if data is not None and data.dtype == np.int32 and data.size > 2]
    read = read_tflite(net.write(tmp_path / "m.tflite", [net.image], [net.at]))
    biases = [read.weights[name] for name in read.weights if name.endswith(".bias")]
    assert len(biases) == len(stored) == 4
    for got, wanted in zip(biases, stored, strict=True):
        np.testing.assert_array_equal(got, wanted, strict=True)


def test_asymmetric_weights_stay_bytes_of_their_zero(tmp_path):
    net = network(KIND.UINT8)
    read = read_tflite(net.write(tmp_path / "m.tflite", [net.image], [net.at]))
    layers = [node for node in read.graph if isinstance(node.op, ops.Conv | ops.Dense)]
    for layer in layers:
        weight = read.weights[f"{layer.name}.weight"].astype(int)
        zero = layer.op.grid.zero[0]
        assert (layer.op.number, zero) in (("uint8", 117), ("int8", 0))  # the latter where no weight is above 244
        if zero == 0:
            assert weight.max() <= 127


def test_floats_on_request(tmp_path):
    net = network(KIND.INT8)
    path = net.write(tmp_path / "m.tflite", [net.image], [net.at])
    read = read_tflite(path, integer=False)
    assert not read.graph.integer
    assert {value.dtype for value in read.weights.values()} == {np.dtype(np.float32)}
