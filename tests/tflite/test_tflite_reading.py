"""TensorFlow Lite files as networks of their own: operators, ranges, metadata, and every way not to be one.

Small files are built with the schema's own builder. Their answers are LiteRT's where that is installed, and formulas.
"""

import io
import zipfile

import numpy as np
import pytest

pytest.importorskip("tflite")
import flatbuffers

from smallcnn.errors import FileError
from smallcnn.ir import ops
from smallcnn.reference.floating import answer as run
from smallcnn.tasks.ending import probabilities
from smallcnn.tflite import read_tflite
from tflite_files import ACT, KIND, OP, PAD, Draft

RNG = np.random.default_rng(0)
STEP = {"StrideH": 1, "StrideW": 1, "DilationHFactor": 1, "DilationWFactor": 1}
SAME, VALID = {"Padding": PAD.SAME} | STEP, {"Padding": PAD.VALID} | STEP
POOL = {"StrideH": 2, "StrideW": 2, "FilterHeight": 3, "FilterWidth": 3, "Padding": PAD.SAME}


def normal(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


class Net(Draft):
    """A draft whose operators are added one after another, to the image or the result before."""

    def __init__(self, shape=(1, 9, 8, 3), **quantization):
        super().__init__()
        self.image = self.at = self.tensor(shape, **quantization)
        self.shape = shape

    def then(self, code, shape, *more, before=True, **options):
        """An operator on the result so far and constants or other results; remembers its result."""
        ins = [self.constant(value) if isinstance(value, np.ndarray) else value for value in more]
        out = self.tensor(shape)
        self.at = self.op(code, [self.at, *ins] if before else [*ins, self.at], out, **options)
        return self.at

    def conv(self, height, width, out, channels=3, kernel=3, **options):
        return self.then(OP.CONV_2D, (1, height, width, out), normal(out, kernel, kernel, channels), normal(out),
                         **SAME | options)  # fmt: skip

    def classifier(self, channels, classes=4):
        """A mean over the plane and a dense layer."""
        self.then(OP.MEAN, (1, channels), np.array([1, 2], np.int32))
        return self.then(OP.FULLY_CONNECTED, (1, classes), normal(classes, channels), normal(classes))

    def read(self, path, *, integer=False):
        self.write(path, [self.image], [self.at])
        return read_tflite(path, integer=integer)


def residual(net):
    x = net.conv(9, 8, 6)
    y = net.conv(9, 8, 6, 6)
    net.at = net.op(OP.ADD, [x, y], net.tensor((1, 9, 8, 6)), FusedActivationFunction=ACT.RELU)
    net.classifier(6)


def hard_swish_spelled(net):
    x = net.conv(9, 8, 6)
    net.then(OP.ADD, (1, 9, 8, 6), np.array(3, np.float32), FusedActivationFunction=ACT.RELU6)
    net.then(OP.MUL, (1, 9, 8, 6), x)
    net.then(OP.MUL, (1, 9, 8, 6), np.array(1 / 6, np.float32))
    net.classifier(6)


def squeeze_excite(net):
    x = net.conv(9, 8, 6)
    net.then(OP.MEAN, (1, 1, 1, 6), np.array([1, 2], np.int32))
    net.conv(1, 1, 6, 6, kernel=1)
    net.then(OP.LOGISTIC, (1, 1, 1, 6))
    net.then(OP.MUL, (1, 9, 8, 6), x)
    net.classifier(6)


def branches(net):
    x = net.conv(9, 8, 4)
    a = net.then(OP.MAX_POOL_2D, (1, 5, 4, 4), **POOL)
    net.at = x
    b = net.then(OP.AVERAGE_POOL_2D, (1, 5, 4, 4), **POOL)
    net.at = net.op(OP.CONCATENATION, [a, b], net.tensor((1, 5, 4, 8)), Axis=-1)
    net.then(OP.LEAKY_RELU, (1, 5, 4, 8), Alpha=0.1)
    net.classifier(8)


def padded(net):
    net.then(OP.PAD, (1, 11, 9, 3), np.array([[0, 0], [1, 1], [0, 1], [0, 0]], np.int32))
    net.conv(5, 4, 5, StrideH=2, StrideW=2, Padding=PAD.VALID, FusedActivationFunction=ACT.RELU_N1_TO_1)
    net.then(OP.STRIDED_SLICE, (1, 4, 4, 5), *(np.array(x, np.int32) for x in ([0, 1, 0, 0], [0, 5, 0, 0], [1] * 4)),
             BeginMask=0b1101, EndMask=0b1101)  # fmt: skip
    net.then(OP.RESHAPE, (1, 80), np.array([1, 80], np.int32))
    net.then(OP.FULLY_CONNECTED, (1, 4), normal(4, 80))


def halves(net):
    x = net.conv(9, 8, 6)
    parts = [net.tensor((1, 9, 8, 3)) for _ in range(2)]
    net.op(OP.SPLIT, [net.constant(np.array(3, np.int32)), x], parts, NumSplits=2)
    net.at = net.op(OP.CONCATENATION, [parts[1], parts[0]], net.tensor((1, 9, 8, 6)), Axis=3)
    net.then(OP.HARD_SWISH, (1, 9, 8, 6))
    net.then(OP.MINIMUM, (1, 9, 8, 6), np.array(2, np.float32))
    net.classifier(6)


def transposed(net):
    net.conv(9, 8, 6)
    net.then(OP.TRANSPOSE, (1, 6, 9, 8), np.array([0, 3, 1, 2], np.int32))
    net.then(OP.RESHAPE, (1, 432), np.array([1, -1], np.int32))
    net.then(OP.FULLY_CONNECTED, (1, 4), normal(4, 432), normal(4))


def multiplied(net):
    net.then(OP.DEPTHWISE_CONV_2D, (1, 9, 8, 6), normal(1, 3, 3, 6), normal(6), **SAME, DepthMultiplier=2)
    net.then(OP.SUB, (1, 9, 8, 6), normal(6))
    net.then(OP.RELU6, (1, 9, 8, 6))
    net.then(OP.DIV, (1, 9, 8, 6), np.float32([4]))
    net.classifier(6)


def half(net):
    """Weights of 16 bits, made 32 by an operator of their own, as converters write them."""
    wide = []
    for value in (normal(6, 3, 3, 3), normal(6)):
        stored = net.constant(value.astype(np.float16))
        wide.append(net.op(OP.DEQUANTIZE, [stored], net.tensor(value.shape)))
    net.at = net.op(OP.CONV_2D, [net.at, *wide], net.tensor((1, 9, 8, 6)), **SAME)
    net.classifier(6)


def resized(net):
    """Every form of both operators; learned slopes, exp and a difference of two results."""
    x = net.conv(9, 8, 6)
    net.then(OP.PRELU, (1, 9, 8, 6), normal(1, 1, 6))
    ends = []
    for code in (OP.RESIZE_BILINEAR, OP.RESIZE_NEAREST_NEIGHBOR):
        for how in ({}, {"AlignCorners": True}, {"HalfPixelCenters": True}):
            net.then(code, (1, 7, 20, 6), np.array([7, 20], np.int32), **how)
            ends.append(net.then(code, (1, 9, 8, 6), np.array([9, 8], np.int32), **how))
    net.at = net.op(OP.SUB, [ends[-1], x], net.tensor((1, 9, 8, 6)), FusedActivationFunction=ACT.NONE)
    net.then(OP.EXP, (1, 9, 8, 6))
    net.classifier(6)


def dilated(net):
    """SAME and VALID, also with strides, which the format allows."""
    net.conv(9, 8, 6, DilationHFactor=2, DilationWFactor=3)
    net.then(OP.DEPTHWISE_CONV_2D, (1, 5, 4, 6), normal(1, 3, 3, 6), normal(6), DepthMultiplier=1,
             **SAME | {"StrideH": 2, "StrideW": 2, "DilationHFactor": 3, "DilationWFactor": 2})  # fmt: skip
    net.conv(1, 2, 5, 6, Padding=PAD.VALID, DilationHFactor=2)
    net.classifier(5)


NETS = [
    half, resized, dilated, residual, hard_swish_spelled, squeeze_excite, branches, padded, halves, transposed,
    multiplied,
]  # fmt: skip


@pytest.mark.parametrize("build", NETS, ids=lambda build: build.__name__)
def test_answers_are_litert_s(build, tmp_path):
    interpreter = pytest.importorskip("ai_edge_litert.interpreter")
    net = Net()
    build(net)
    made = net.read(tmp_path / "w.tflite")
    judge = interpreter.Interpreter(str(tmp_path / "w.tflite"))
    judge.allocate_tensors()
    images = normal(4, 9, 8, 3)
    for image, got in zip(images, run(made.graph, made.weights, images), strict=True):
        judge.set_tensor(judge.get_input_details()[0]["index"], image[None])
        judge.invoke()
        want = judge.get_tensor(judge.get_output_details()[0]["index"])[0]
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * max(1, np.abs(want).max()))  # float32 sums of 400


@pytest.mark.parametrize("build", NETS, ids=lambda build: build.__name__)
def test_operators_are_read_as_the_graph_s(build, tmp_path):
    net = Net()
    build(net)
    graph = net.read(tmp_path / "w.tflite").graph
    assert (graph.input_shape, graph.output_shape) == ((9, 8, 3), (4,))
    if build is hard_swish_spelled:
        functions = [node.op.function for node in graph if isinstance(node.op, ops.Activation)]
        assert functions == ["hard_swish"]


def test_a_grey_depthwise_stem_with_biases_of_one_axis_too_many(tmp_path):
    """TensorFlow Lite Micro's person detector has both: scales of a vector along the weights' axis 3."""
    net = Net((1, 9, 8, 1), kind=KIND.INT8, scale=1 / 128, zero=0)
    weight, bias = RNG.integers(-127, 128, (1, 3, 3, 4)).astype(np.int8), np.array([100, -200, 300, 0], np.int32)
    scale = np.float32([0.01, 0.02, 0.03, 0.04])
    out = net.tensor((1, 9, 8, 4), KIND.INT8, scale=6 / 255, zero=-128)
    inputs = [net.image, net.constant(weight, scale=scale, zero=np.zeros(4), axis=3),
              net.constant(bias, scale=scale / 128, zero=np.zeros(4), axis=3)]  # fmt: skip
    net.at = net.op(OP.DEPTHWISE_CONV_2D, inputs, out, **SAME, DepthMultiplier=4)
    net.classifier(4)
    made = net.read(tmp_path / "w.tflite")
    stem = made.graph.nodes[1]
    assert stem.op == ops.Conv(out=4, kernel=(3, 3), padding=((1, 1), (1, 1)))
    real = np.moveaxis(weight[0] * scale, -1, 0)[:, None]
    np.testing.assert_allclose(made.weights[f"{stem.name}.weight"], real, rtol=1e-6)  # one float32 rounding
    np.testing.assert_allclose(made.weights[f"{stem.name}.bias"], bias * scale / 128, rtol=1e-6)
    assert made.graph.nodes[2].op == ops.Activation(function="relu6")  # which only the tensor's range says
    assert made.preprocessing.mean == (128 / 255,)


@pytest.mark.parametrize(
    ("activation", "scale", "zero", "expected"),
    [
        (ACT.NONE, 0.1, 100, ops.Clip(low=-10.0, high=15.5)),
        (ACT.RELU, 0.1, 0, ops.Clip(low=0.0, high=25.5)),
        (ACT.RELU6, 6 / 255, 0, ops.Activation(function="relu6")),
        (ACT.NONE, 6 / 255, 0, ops.Activation(function="relu6")),
        (ACT.RELU6, 0.01, 0, ops.Clip(low=0.0, high=2.55)),
        (ACT.RELU6, 0.1, 100, ops.Activation(function="relu6")),
    ],
)
def test_saturation_is_a_clip(activation, scale, zero, expected, tmp_path):
    net = Net()
    out = net.tensor((1, 9, 8, 4), KIND.UINT8, scale=scale, zero=zero)
    net.at = net.op(OP.CONV_2D, [net.image, net.constant(normal(4, 3, 3, 3))], out, **SAME,
                    FusedActivationFunction=activation)  # fmt: skip
    net.classifier(4)
    found = net.read(tmp_path / "w.tflite").graph.nodes[2].op
    if isinstance(expected, ops.Clip):
        wanted = pytest.approx((expected.low, expected.high), rel=1e-6)  # the scale is stored as float32
        assert (found.low, found.high) == wanted
    else:
        assert found == expected


def test_a_pool_between_tensors_of_one_range_needs_no_clip(tmp_path):
    net = Net()
    quantized = {"kind": KIND.UINT8, "scale": 0.1, "zero": 3}
    for shape, code, more, options in [((1, 9, 8, 4), OP.CONV_2D, [normal(4, 3, 3, 3)], SAME),
                                       ((1, 5, 4, 4), OP.MAX_POOL_2D, [], POOL)]:  # fmt: skip
        inputs = [net.at, *(net.constant(value) for value in more)]
        net.at = net.op(code, inputs, net.tensor(shape, **quantized), **options)
    net.classifier(4)
    kinds = [node.op.kind for node in net.read(tmp_path / "w.tflite").graph]
    assert kinds == ["input", "conv", "clip", "pool", "global_pool", "dense"]


def test_endings(tmp_path):
    for code, classes, ending, outputs in [(OP.SOFTMAX, 3, "softmax", 3), (OP.LOGISTIC, 3, "sigmoid", 3),
                                           (OP.LOGISTIC, 1, "softmax", 2), (None, 3, "softmax", 3)]:  # fmt: skip
        net = Net()
        net.conv(9, 8, 4)
        net.classifier(4, classes)
        if code is not None:
            net.then(code, (1, classes), **({"Beta": 1.0} if code == OP.SOFTMAX else {}))
        made = net.read(tmp_path / "w.tflite")
        assert (made.task.ending, len(made.labels)) == (ending, outputs)
        if classes == 1:  # p and 1 - p
            image = normal(1, 9, 8, 3)
            logit = np.diff(run(made.graph, made.weights, image))[0, 0]
            assert probabilities(run(made.graph, made.weights, image), ending)[0, 1] == pytest.approx(
                1 / (1 + np.exp(-logit))
            )


def test_an_argmax_at_the_end_is_cut_off(tmp_path):
    net = Net()
    net.conv(9, 8, 4)
    net.classifier(4, 3)
    net.at = net.op(OP.ARG_MAX, [net.at, net.constant(np.array(-1, np.int32))], net.tensor((1,), KIND.INT64))
    made = net.read(tmp_path / "w.tflite")
    assert (made.graph.output_shape, made.facts["tflite"]["dropped"]) == ((3,), "ARG_MAX")


@pytest.mark.parametrize(("factor", "shift", "mean", "std"), [
    (1 / 127.5, -1, 0.5, 0.5), (1 / 255, 0, 0, 1), (2, -1, 0.5, 0.5), (1, -104, 104 / 255, 1 / 255),
])  # fmt: skip
def test_a_network_that_prepares_the_image_itself(factor, shift, mean, std, tmp_path):
    """Bytes, or numbers from 0 to 1, which a factor of 2 tells."""
    net = Net()
    net.then(OP.MUL, (1, 9, 8, 3), np.array(factor, np.float32))
    net.then(OP.ADD, (1, 9, 8, 3), np.array(shift, np.float32))
    net.conv(9, 8, 4)
    net.classifier(4)
    made = net.read(tmp_path / "w.tflite")
    assert made.preprocessing.mean == pytest.approx((mean,) * 3, abs=1e-6)
    assert made.preprocessing.std == pytest.approx((std,) * 3, rel=1e-6)
    assert made.facts["tflite"]["images"] == "in the file"
    assert [node.op.kind for node in made.graph][:2] == ["input", "conv"]


def test_floats_that_are_quantized_first_say_what_images_are_scaled_to(tmp_path):
    """Converters keep the ends float: a range of 0 to 1 wants pixels of 0 to 1, whatever others want."""
    net = Net()
    quantized = {"kind": KIND.INT8, "scale": 1 / 255, "zero": -128}
    net.at = net.op(OP.QUANTIZE, [net.image], net.tensor((1, 9, 8, 3), **quantized))
    out = net.tensor((1, 9, 8, 4), KIND.INT8, scale=0.1, zero=0)
    net.at = net.op(OP.CONV_2D, [net.at, net.constant(normal(4, 3, 3, 3))], out, **SAME)
    net.at = net.op(OP.DEQUANTIZE, [net.at], net.tensor((1, 9, 8, 4)))
    net.classifier(4)
    made = net.read(tmp_path / "w.tflite")
    assert made.preprocessing.mean == pytest.approx((0,) * 3, abs=1e-6)
    assert made.preprocessing.std == pytest.approx((1,) * 3, rel=1e-6)
    assert [node.op.kind for node in made.graph] == ["input", "conv", "clip", "global_pool", "dense"]


def test_channels_first_after_a_transpose(tmp_path):
    net = Net((1, 3, 9, 8))
    net.then(OP.TRANSPOSE, (1, 9, 8, 3), np.array([0, 2, 3, 1], np.int32))
    net.conv(9, 8, 4)
    net.classifier(4)
    assert net.read(tmp_path / "w.tflite").graph.input_shape == (9, 8, 3)


# --- metadata ------------------------------------------------------------------------------------------------------


def metadata(label_file=None, mean=None, std=None) -> bytes:
    """TFLITE_METADATA of one input and one output, its tables written field by field."""
    b = flatbuffers.Builder(0)

    def table(**fields):  # numbered as in metadata_schema.fbs
        b.StartObject(8)
        for name, value in fields.items():
            number = int(name.removeprefix("f"))
            if isinstance(value, tuple):  # a byte
                b.PrependUint8Slot(number, value[0], 0)
            else:
                b.PrependUOffsetTRelativeSlot(number, value, 0)
        return b.EndObject()

    def vector(*offsets):
        b.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            b.PrependUOffsetTRelative(offset)
        return b.EndVector()

    units = ()
    if mean is not None:
        numbers = [b.CreateNumpyVector(np.float32(values)) for values in (mean, std)]
        units = (table(f0=(1,), f1=table(f0=numbers[0], f1=numbers[1])),)
    files = ()
    if label_file is not None:
        files = (table(f0=b.CreateString(label_file), f2=(2,)),)
    source, answer = table(f4=vector(*units)), table(f6=vector(*files))
    graph = table(f2=vector(source), f3=vector(answer))
    b.Finish(table(f3=vector(graph)), file_identifier=b"M001")
    return bytes(b.Output())


def with_metadata(path, labels=None, kind=KIND.FLOAT32, **said):
    quantization = {} if kind == KIND.FLOAT32 else {"scale": 1 / 128, "zero": 128}
    net = Net(kind=kind, **quantization)
    net.conv(9, 8, 4)
    net.classifier(4, 3)
    net.metadata["TFLITE_METADATA"] = metadata("labels.txt", **said)
    net.write(path, [net.image], [net.at])
    if labels is not None:
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as file:
            file.writestr("labels.txt", labels)
        path.write_bytes(path.read_bytes() + archive.getvalue())
    return path


def test_labels_and_preparation_of_the_metadata(tmp_path):
    made = read_tflite(with_metadata(tmp_path / "w.tflite", "daisy\ntulip\nrose\n", mean=[123.0], std=[58.0]))
    assert made.labels == ("daisy", "tulip", "rose")
    assert made.preprocessing.mean == pytest.approx((123 / 255,) * 3)
    assert made.preprocessing.std == pytest.approx((58 / 255,) * 3)
    assert made.facts["tflite"]["images"] == "in the file"


def test_bytes_stand_for_what_the_tensor_says_whatever_the_metadata_normalise(tmp_path):
    made = read_tflite(with_metadata(tmp_path / "w.tflite", "a\nb\nc", kind=KIND.UINT8, mean=[0.0], std=[1.0]))
    assert made.preprocessing.mean == pytest.approx((128 / 255,) * 3)
    assert made.preprocessing.std == pytest.approx((128 / 255,) * 3)


@pytest.mark.parametrize("labels", [None, "a\nb", "a\nb\nc\nd"])
def test_labels_that_do_not_fit_are_left(labels, tmp_path):
    assert read_tflite(with_metadata(tmp_path / "w.tflite", labels)).labels == ("class 0", "class 1", "class 2")


def test_labels_told_apart_and_printable(tmp_path):
    made = read_tflite(with_metadata(tmp_path / "w.tflite", "crane\ncrane\n\x1b[2Jowl\n"))
    assert made.labels == ("crane", "crane (2)", "[2Jowl")


@pytest.mark.parametrize("std", [[0.0], [float("nan")], [-1.0]])
def test_a_deviation_of_nothing_is_no_preparation(std, tmp_path):
    made = read_tflite(with_metadata(tmp_path / "w.tflite", mean=[0.0], std=std))
    assert made.facts["tflite"]["images"] == "assumed"


# --- files that are none -------------------------------------------------------------------------------------------


def refusal(net, path) -> str:
    with pytest.raises(FileError) as caught:
        net.read(path)
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"{path}: ")
    return line.removeprefix(f"{path}: ")


@pytest.mark.parametrize("code", [OP.TANH, OP.CUSTOM, OP.GELU, OP.TRANSPOSE_CONV, OP.ELU, OP.BATCH_MATMUL])
def test_an_operator_that_the_graph_does_not_have(code, tmp_path):
    net = Net()
    net.then(code, (1, 9, 8, 3))
    (name,) = (key for key, value in vars(OP).items() if value == code)
    assert refusal(net, tmp_path / "w.tflite") == f"operator 0, {name}: no operator of the graph computes this"


def test_several_outputs(tmp_path):
    net = Net()
    first = net.conv(9, 8, 4)
    second = net.conv(9, 8, 4, 4)
    net.write(tmp_path / "w.tflite", [net.image], [first, second])
    with pytest.raises(FileError, match=r"has 2 outputs \('tensor\d+', 'tensor\d+'\); a classifier has one output"):
        read_tflite(tmp_path / "w.tflite")


def test_true_reasons(tmp_path):
    path = tmp_path / "w.tflite"
    net = Net()
    net.conv(9, 8, 4)
    assert refusal(net, path) == "gives (1, 9, 8, 4), not one number per class"
    net = Net()
    net.conv(9, 8, 4, DilationHFactor=0)
    assert refusal(net, path).endswith("has dilations (0, 1), not two numbers of at least 1")
    net = Net((1, 1, 1, 1024))
    assert "takes (1, 1, 1, 1024), not one image of one or three channels" in refusal(net, path)
    net = Net((4, 9, 8, 3))
    assert "takes (4, 9, 8, 3), not one image" in refusal(net, path)
    net = Net(kind=KIND.INT16, scale=0.1)
    assert refusal(net, path) == "takes INT16; an image is floats or bytes"
    net = Net()
    net.conv(9, 8, 4, FusedActivationFunction=ACT.TANH)
    assert "has the fused activation 4, which the graph does not have" in refusal(net, path)
    net = Net()
    net.then(OP.PAD, (1, 10, 8, 5), np.array([[0, 0], [1, 0], [0, 0], [1, 1]], np.int32))
    assert refusal(net, path).endswith("pads the channels")
    net = Net()
    net.op(OP.CONV_2D, [net.image, net.tensor((4, 3, 3, 3))], net.tensor((1, 9, 8, 4)), **SAME)
    assert "reads 'tensor1', which no earlier operator produces" in refusal(net, path)


def test_a_constant_that_many_operators_share_costs_no_more_than_the_file(tmp_path):
    net = Net()
    shared = net.constant(normal(64, 5, 5, 64))
    net.conv(9, 8, 64)
    for _ in range(400):
        net.at = net.op(OP.CONV_2D, [net.at, shared], net.tensor((1, 9, 8, 64)), **SAME)
    assert "numbers computed from constants" in refusal(net, tmp_path / "w.tflite")
