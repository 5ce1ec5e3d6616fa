"""TensorFlow Lite files: dequantization against the formula, saturation as clips, and every way not to fit.

Small files are built here with the schema's own builder; large ones are real.
"""

import json
from dataclasses import replace

import numpy as np
import pytest

from shared_files import shared

pytest.importorskip("tflite")

from smallcnn import zoo
from smallcnn.checkpoints.importing import import_checkpoint
from smallcnn.checkpoints.match_layers import lay_layers
from smallcnn.checkpoints.tflite import Layer, TFLite, read_layers
from smallcnn.errors import FileError
from smallcnn.image.overrides import Overrides
from smallcnn.ir import ops
from smallcnn.ir.builder import Builder
from smallcnn.ir.graph import LOGITS, Output
from smallcnn.reference.floating import answer as run
from smallcnn.tflite.file import Grid
from smallcnn.transform.fold import fold_graph
from tflite_files import ACT, KIND, KIND_OF, OP, PAD, Draft

RNG = np.random.default_rng(0)
CONV = RNG.standard_normal((4, 3, 3, 3)).astype(np.float32)  # out, height, width, in
BIAS = RNG.standard_normal(4).astype(np.float32)
SAME1 = {"Padding": PAD.SAME, "StrideH": 1, "StrideW": 1, "DilationHFactor": 1, "DilationWFactor": 1}


def one_conv(path, shape=(1, 8, 8, 3), **options):
    """Input, one float convolution."""
    draft = Draft()
    image, out = draft.tensor(shape), draft.tensor((1, 8, 8, 4))
    inputs = [image, draft.constant(CONV), draft.constant(BIAS)]
    draft.op(OP.CONV_2D, inputs, out, **SAME1 | options)
    return draft.write(path, [image], [out])


def refusal(path) -> str:
    with pytest.raises(FileError) as caught:
        read_layers(path)
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"{path}: ")
    return line.removeprefix(f"{path}: ")


# --- reading -------------------------------------------------------------------------------------------------------


def test_a_float_convolution(tmp_path):
    path = one_conv(tmp_path / "w.tflite", StrideH=2, StrideW=1, FusedActivationFunction=ACT.RELU6)
    file = read_layers(path)
    (layer,) = file.layers
    assert (file.input_shape, file.grid, file.input, file.output) == ((8, 8, 3), None, 0, 1)
    assert (layer.kind, layer.stride, layer.padding, layer.activation) == ("conv", (2, 1), "SAME", "relu6")
    assert (layer.inputs, layer.output, layer.grid) == ((0,), 1, None)
    np.testing.assert_array_equal(layer.weight[3, 2, 0, 1], CONV[3, 0, 1, 2])  # out, in, height, width
    assert layer.weight.shape == (4, 3, 3, 3)
    np.testing.assert_array_equal(layer.bias, BIAS)


@pytest.mark.parametrize(("code", "name"), [(ACT.NONE, None), (ACT.RELU, "relu"), (ACT.RELU6, "relu6")])
def test_activations(code, name, tmp_path):
    (layer,) = read_layers(one_conv(tmp_path / "w.tflite", FusedActivationFunction=code)).layers
    assert layer.activation == name


@pytest.mark.parametrize("code", [ACT.RELU_N1_TO_1, ACT.TANH, ACT.SIGN_BIT])
def test_an_unknown_activation(code, tmp_path):
    assert f"fused activation {code} is not supported" in refusal(
        one_conv(tmp_path / "w.tflite", FusedActivationFunction=code)
    )


def test_dilation(tmp_path):
    assert "dilated" in refusal(one_conv(tmp_path / "w.tflite", DilationHFactor=2))


@pytest.mark.parametrize("code", [OP.MAX_POOL_2D, OP.CONCATENATION, OP.HARD_SWISH, OP.TRANSPOSE, OP.CUSTOM, OP.GELU])
def test_an_unknown_operator_is_named(code, tmp_path):
    draft = Draft()
    ends = [draft.tensor((1, 8, 8, 3)), draft.tensor((1, 4, 4, 3))]
    draft.op(code, ends[:1], ends[1])
    (name,) = (key for key, value in vars(OP).items() if value == code)
    said = refusal(draft.write(tmp_path / "w.tflite", ends[:1], ends[1:]))
    assert f"operator 0, {name}: no registered network has this operator" in said


@pytest.mark.parametrize("kind", [np.int8, np.uint8])
@pytest.mark.parametrize("per_channel", [False, True])
def test_integer_depthwise_weights_are_scale_times_difference(kind, per_channel, tmp_path):
    info = np.iinfo(kind)
    stored = RNG.integers(info.min, info.max + 1, (1, 3, 3, 5)).astype(kind)
    stored.flat[:2] = info.min, info.max
    scale = RNG.uniform(0.001, 0.1, 5 if per_channel else 1).astype(np.float32)
    zero = RNG.integers(-3, 4, len(scale)) if kind == np.int8 else RNG.integers(100, 140, len(scale))
    bias, bias_scale = RNG.integers(-(2**30), 2**30, 5).astype(np.int32), (0.02 * scale).astype(np.float32)
    draft = Draft()
    image = draft.tensor((1, 8, 8, 5), KIND_OF[np.dtype(kind)], scale=0.02, zero=3)
    out = draft.tensor((1, 8, 8, 5), KIND_OF[np.dtype(kind)], scale=0.05, zero=-20 if kind == np.int8 else 108)
    weight = draft.constant(stored, scale=scale, zero=zero, axis=3)
    inputs = [image, weight, draft.constant(bias, scale=bias_scale, zero=np.zeros(len(scale)))]
    draft.op(OP.DEPTHWISE_CONV_2D, inputs, out, **SAME1, DepthMultiplier=1)
    (layer,) = read_layers(draft.write(tmp_path / "w.tflite", [image], [out])).layers
    for c in range(5):
        s, z, b = (float(each[c if per_channel else 0]) for each in (scale, zero, bias_scale))
        for y in range(3):
            for x in range(3):
                assert layer.weight[c, 0, y, x] == np.float32(s * (int(stored[0, y, x, c]) - z))
        assert layer.bias[c] == np.float32(b * int(bias[c]))
    assert layer.kind == "depthwise"
    step = float(np.float32(0.05))
    wanted = ((0 - 108) * step, (255 - 108) * step)  # for int8 the same: -128 + 20, 127 + 20
    assert (layer.grid.low, layer.grid.high) == pytest.approx(wanted, rel=1e-15)


@pytest.mark.parametrize(("kind", "zero", "mean"), [(KIND.UINT8, 128, 128 / 255), (KIND.INT8, 0, 128 / 255),
                                                     (KIND.INT8, -128, 0), (KIND.UINT8, 0, 0)])  # fmt: skip
def test_what_a_byte_stands_for(kind, zero, mean, tmp_path):
    """uint8 pixels go in as they are, int8 ones less 128."""
    draft = Draft()
    image = draft.tensor((1, 8, 8, 3), kind, scale=1 / 64, zero=zero)
    out = draft.tensor((1, 8, 8, 4))
    draft.op(OP.CONV_2D, [image, draft.constant(CONV), draft.constant(BIAS)], out, **SAME1)
    file = read_layers(draft.write(tmp_path / "w.tflite", [image], [out]))
    assert file.grid.scale == 1 / 64
    assert file.grid.zero / 255 == mean


def test_shape_only_operators_are_seen_through(tmp_path):
    draft = Draft()
    image, quantized = draft.tensor((1, 8, 8, 3)), draft.tensor((1, 8, 8, 3))
    draft.op(OP.QUANTIZE, [image], quantized)
    out, flat, answer = draft.tensor((1, 8, 8, 4)), draft.tensor((1, 256)), draft.tensor((1, 256))
    draft.op(OP.CONV_2D, [quantized, draft.constant(CONV), draft.constant(BIAS)], out, **SAME1)
    draft.op(OP.RESHAPE, [out], flat)
    draft.op(OP.SOFTMAX, [flat], answer)
    file = read_layers(draft.write(tmp_path / "w.tflite", [image], [answer]))
    assert (file.input, file.layers[0].inputs, file.layers[0].output, file.output) == (image, (image,), out, out)


def test_a_convolution_without_bias(tmp_path):
    for absent in ([], [-1]):
        draft = Draft()
        image, out = draft.tensor((1, 8, 8, 3)), draft.tensor((1, 8, 8, 4))
        draft.op(OP.CONV_2D, [image, draft.constant(CONV), *absent], out, **SAME1)
        (layer,) = read_layers(draft.write(tmp_path / "w.tflite", [image], [out])).layers
        assert layer.bias is None


def test_weights_that_are_no_constants(tmp_path):
    draft = Draft()
    image, out, weight = draft.tensor((1, 8, 8, 3)), draft.tensor((1, 8, 8, 4)), draft.tensor((4, 3, 3, 3))
    draft.op(OP.CONV_2D, [image, weight], out, **SAME1)
    assert f"'tensor{weight}' must be a constant" in refusal(draft.write(tmp_path / "w.tflite", [image], [out]))


def test_an_integer_map_without_scale(tmp_path):
    draft = Draft()
    image, out = draft.tensor((1, 8, 8, 3), KIND.UINT8), draft.tensor((1, 8, 8, 4))
    draft.op(OP.CONV_2D, [image, draft.constant(CONV), draft.constant(BIAS)], out, **SAME1)
    assert "the integer tensor 'tensor0' has no scale" in refusal(draft.write(tmp_path / "w.tflite", [image], [out]))


def test_a_number_type_that_is_not_known(tmp_path):
    draft = Draft()
    image, out = draft.tensor((1, 8, 8, 3)), draft.tensor((1, 8, 8, 4))
    draft.op(OP.CONV_2D, [image, draft.tensor(CONV.shape, KIND.COMPLEX64, data=CONV)], out, **SAME1)
    assert "'tensor2' holds COMPLEX64, which is not" in refusal(draft.write(tmp_path / "w.tflite", [image], [out]))


def test_two_inputs(tmp_path):
    draft = Draft()
    ends = [draft.tensor((1, 8, 8, 3)), draft.tensor((1, 8, 8, 3)), draft.tensor((1, 8, 8, 3))]
    draft.op(OP.ADD, ends[:2], ends[2])
    assert "one input and one output" in refusal(draft.write(tmp_path / "w.tflite", ends[:2], ends[2:]))


def test_files_that_are_none(tmp_path):
    assert refusal(tmp_path / "absent.tflite") == "cannot be read (No such file or directory)"
    for content in (b"", b"TFL3", bytes(100), b"PK\x03\x04" + bytes(60)):
        (tmp_path / "w.tflite").write_bytes(content)
        assert refusal(tmp_path / "w.tflite") == "not a TensorFlow Lite file"
    (tmp_path / "w.tflite").write_bytes(b"\x08\0\0\0TFL3" + np.random.default_rng(0).bytes(400))
    assert "damaged" in refusal(tmp_path / "w.tflite")


def test_a_file_cut_off_anywhere(tmp_path):
    """The schema has no checksum and keeps its tables in front, so that a cut in the weights is found by their size."""
    path = one_conv(tmp_path / "w.tflite", FusedActivationFunction=ACT.RELU6)
    whole = path.read_bytes()
    whole_layer = read_layers(path).layers[0].weight
    for size in range(0, len(whole), 3):
        path.write_bytes(whole[:size])
        try:
            found = read_layers(path).layers[0].weight
        except FileError:
            continue
        np.testing.assert_array_equal(found, whole_layer)  # nothing but padding was lost


# --- laying onto a network -----------------------------------------------------------------------------------------


def network(classes=3, activation="relu6"):
    """A stem, a depthwise layer, a residual, a mean, a classifier: folded."""
    g = Builder(input=(9, 8, 3))  # an odd plane: SAME pads it unevenly
    x = g.conv_bn(g.input, 4, kernel=3, stride=2, activation=activation, name="stem")
    y = g.depthwise_bn(x, kernel=3, activation=activation, name="depthwise")
    y = g.conv_bn(y, 4, activation=None, name="project")
    x = g.add(x, y, name="add")
    y = g.dropout(g.global_pool(x, name="pool"), 0.1, name="dropout")
    return fold_graph(g.graph(g.dense(y, classes, name="classifier"), features=x, name="small"))


def number(*shape):
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def layers(activation="relu6", grid=None):
    """What a file of `network` would hold, its classifier a 1x1 convolution."""
    grids = [grid] * 6
    return [
        Layer("conv", (0,), 1, number(4, 3, 3, 3), number(4), (2, 2), padding="SAME", activation=activation,
              grid=grids[0]),
        Layer("depthwise", (1,), 2, number(4, 1, 3, 3), number(4), padding="SAME", activation=activation,
              grid=grids[1]),
        Layer("conv", (2,), 3, number(4, 4, 1, 1), number(4), padding="SAME", grid=grids[2]),
        Layer("add", (1, 3), 4, grid=grids[3]),
        Layer("average", (4,), 5, window=(5, 4), grid=grids[4]),
        Layer("conv", (5,), 6, number(3, 4, 1, 1), number(3), grid=grids[5]),
    ]  # fmt: skip


def file_of(some, first=0, last=None):
    return TFLite(tuple(some), first, (9, 8, 3), some[-1].output if last is None else last, None)


def misfit(some, graph=None) -> str:
    with pytest.raises(FileError) as caught:
        lay_layers(graph or network(), [file_of(some)])
    (line,) = str(caught.value).splitlines()
    return line


def test_a_file_that_fits():
    graph, weights = lay_layers(network(), [file_of(layers())])
    assert graph == network()
    assert list(weights) == list(graph.weights)
    np.testing.assert_array_equal(weights["classifier.weight"], number(3, 4, 1, 1)[:, :, 0, 0])
    np.testing.assert_array_equal(weights["depthwise.conv.bias"], number(4))


def test_the_classifier_may_be_dense_and_the_pool_a_mean():
    some = layers()
    some[4], some[5] = Layer("mean", (4,), 5), Layer("dense", (5,), 6, number(3, 4), number(3))
    assert lay_layers(network(), [file_of(some)])[0] == network()


def test_the_order_of_summands_does_not_matter():
    some = layers()
    some[3] = replace(some[3], inputs=(3, 1))
    assert lay_layers(network(), [file_of(some)])[0] == network()


def test_a_missing_bias_is_zero():
    some = layers()
    some[0] = replace(some[0], bias=None)
    assert not lay_layers(network(), [file_of(some)])[1]["stem.conv.bias"].any()


def test_a_pad_of_its_own_is_padding():
    some = layers()
    some[0] = replace(some[0], padding="VALID", before=((1, 1), (0, 1)))  # SAME for 9x8, kernel 3, stride 2
    assert lay_layers(network(), [file_of(some)])[0] == network()


@pytest.mark.parametrize(("at", "changes", "says"), [
    (0, {"stride": (1, 1)}, "at stem.conv, the network has conv (4, 3, 3, 3), the file conv (4, 3, 3, 3), stride 1"),
    (0, {"stride": (2, 1)}, "at stem.conv"),
    (0, {"padding": "VALID"}, "at stem.conv, the file pads ((0, 0), (0, 0)), the network ((1, 1), (0, 1))"),
    (0, {"padding": "VALID", "before": ((1, 1), (1, 1))}, "the file pads ((1, 1), (1, 1)), the network"),
    (0, {"weight": number(5, 3, 3, 3)}, "at stem.conv, the network has conv (4, 3, 3, 3), the file conv (5, 3, 3, 3)"),
    (0, {"weight": number(4, 3, 5, 5)}, "the file conv (4, 3, 5, 5)"),
    (0, {"activation": "relu"}, "at stem.act, the network applies relu6 here, the file relu"),
    (0, {"activation": None}, "at stem.act, the network applies relu6 here, the file nothing"),
    (1, {"kind": "conv"}, "at depthwise.conv, the network has conv (4, 1, 3, 3), the file conv"),
    (1, {"inputs": (0,)}, "at depthwise.conv, in the file, layer 2 reads different layers"),
    (2, {"activation": "relu6"}, "at project.conv, the file applies relu6 after it, the network does not"),
    (2, {"kind": "depthwise"}, "at project.conv"),
    (3, {"inputs": (2, 3)}, "at add, in the file, layer 4 reads different layers"),
    (3, {"inputs": (3, 3)}, "at add, in the file, layer 4 reads"),
    (3, {"kind": "mean", "inputs": (3,)}, "at add, the network has add, the file mean"),
    (4, {"window": (4, 4)}, "at pool, the network has global_pool, the file average"),
    (5, {"weight": number(4, 4, 1, 1)}, "at classifier, the network has dense (3, 4), the file conv (4, 4, 1, 1)"),
    (5, {"weight": number(3, 4, 2, 2)}, "at classifier"),
])  # fmt: skip
def test_one_layer_that_does_not_fit(at, changes, says):
    some = layers()
    some[at] = replace(some[at], **changes)
    assert says in misfit(some)


def test_relu_for_relu6_either_way():
    assert "the network applies relu here, the file relu6" in misfit(layers("relu6"), network(activation="relu"))
    assert lay_layers(network(activation="relu"), [file_of(layers("relu"))])[0] == network(activation="relu")


def test_layers_too_few_or_too_many():
    assert "at classifier, the file ends before it, after 5 layers" in misfit(layers()[:-1])
    more = Layer("dense", (6,), 7, number(2, 3), number(2))
    assert (
        misfit([*layers(), more]) == "the file continues after classifier: 1 more layers, first dense (2, 3), stride 1"
    )


def test_a_network_of_layers_that_files_do_not_have():
    g = Builder(input=(9, 8, 3))
    x = g.max_pool(g.input, kernel=2, stride=2, name="pool")
    graph = g.graph(g.dense(g.global_pool(x), 3, name="classifier"), features=x, name="pooled")
    assert "at pool, pool is not supported in TensorFlow Lite files" in misfit(layers(), graph)


def test_two_files_are_one_network():
    some = layers()
    first = file_of(some[:4])
    second = file_of([replace(some[4], inputs=(0,)), some[5]])  # numbers start anew in every file
    graph, weights = lay_layers(network(), [first, second])
    whole, expected = lay_layers(network(), [file_of(some)])
    assert graph == whole
    for name, value in expected.items():
        np.testing.assert_array_equal(weights[name], value)
    with pytest.raises(FileError, match=r"at stem.conv, the network has conv \(4, 3, 3, 3\), the file average"):
        lay_layers(network(), [second, first])
    with pytest.raises(FileError, match="at pool, in the file, layer 5 reads different layers"):
        lay_layers(network(), [replace(first, output=3), second])


# --- saturation ----------------------------------------------------------------------------------------------------

WIDE = Grid(0.05, 100)  # -5 to 7.75


def test_saturation_is_a_clip_where_the_integers_end():
    graph, _ = lay_layers(network(), [file_of(layers(grid=WIDE))])
    clips = {node.name: (node.op.low, node.op.high) for node in graph if isinstance(node.op, ops.Clip)}
    assert clips == {
        "stem.act": (0, 6), "depthwise.act": (0, 6),
        "project.conv_range": pytest.approx((-5, 7.75)), "add_range": pytest.approx((-5, 7.75)),
        "classifier_range": pytest.approx((-5, 7.75)),
    }  # fmt: skip
    assert not any(isinstance(node.op, ops.Activation) for node in graph)
    assert (graph.features, graph.output) == ("add_range", "classifier_range")


@pytest.mark.parametrize(("grid", "limits"), [
    (Grid(4 / 255, 0), (0, 4)),  # below 6: the integers end first
    (Grid(1, 128), (0, 6)),
    (Grid(0.1, 0), (0, 6)),
    (Grid(6 / 255, 0), (0, 6)),
])  # fmt: skip
def test_an_activation_and_the_integers_limit_together(grid, limits):
    graph, _ = lay_layers(network(), [file_of(layers(grid=grid))])
    assert (graph["stem.act"].op.low, graph["stem.act"].op.high) == pytest.approx(limits)
    graph, _ = lay_layers(network(activation="relu"), [file_of(layers("relu", grid=grid))])
    assert (graph["stem.act"].op.low, graph["stem.act"].op.high) == pytest.approx((0, grid.scale * (255 - grid.zero)))


def test_clips_compute_what_the_integers_would():
    """Against numpy: the sum of two branches, of which one is cut off before and the sum after."""
    grid = Grid(1 / 255, 128)  # about -0.5 to 0.5
    graph, weights = lay_layers(network(), [file_of(layers(grid=grid))])
    image = np.random.default_rng(0).standard_normal((1, 9, 8, 3))

    def beginning(last):
        nodes = graph.nodes[: graph.nodes.index(graph[last]) + 1]
        return run(replace(graph, nodes=nodes, outputs=(Output(LOGITS, last),), taps=(last,)), weights, image)

    stem, low, high = beginning("stem.act"), -128 / 255, 127 / 255
    assert (stem.min(), stem.max()) == (0, high)
    project = np.einsum("nhwc,oc->nhwo", beginning("depthwise.act"), weights["project.conv.weight"][:, :, 0, 0])
    project += weights["project.conv.bias"]
    assert project.min() < low  # something is cut off
    wanted = np.clip(stem + np.clip(project, low, high), low, high)
    nodes = graph.nodes[: graph.nodes.index(graph["add_range"]) + 1]
    found = run(
        replace(graph, nodes=nodes, outputs=(Output(LOGITS, "add_range"),), taps=("add_range",)), weights, image
    )
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-9)


# --- real files ----------------------------------------------------------------------------------------------------

HALVES = (
    "weights/mobilenet_v1_1.0_224_quant_embedding_extractor.tflite",
    "weights/mobilenet_v1_1.0_224_quant_head_layers.tflite",
)


@pytest.fixture(scope="module")
def mobilenet():
    return import_checkpoint([shared(name) for name in HALVES], "mobilenet_v1", keep_background=True)


def test_weights_are_those_of_an_independent_extraction(mobilenet):
    graph = json.loads(shared("weights/mobilenet_v1_1.0_224_quant.graph.json").read_text())
    stored = np.load(shared("weights/mobilenet_v1_1.0_224_quant.npz"))
    about = {tensor["id"]: tensor for tensor in graph["tensors"]}

    def real(number):
        (scale,), (zero,) = about[number]["scale"], about[number]["zero_point"]
        return (scale * (stored[f"t{number}"].astype(np.float64) - zero)).astype(np.float32)

    weighted = [op for op in graph["ops"] if op["op"].endswith("CONV_2D")]
    nodes = [node for node in mobilenet.graph if mobilenet.graph.weights_of(node)]
    assert len(weighted) == len(nodes) == 28
    for op, node in zip(weighted, nodes, strict=True):
        _, kernel, bias = op["inputs"]
        axes = (3, 0, 1, 2) if op["op"].startswith("DEPTHWISE") else (0, 3, 1, 2)
        found = mobilenet.weights[f"{node.name}.weight"]
        np.testing.assert_array_equal(found, real(kernel).transpose(axes).reshape(found.shape))
        np.testing.assert_array_equal(mobilenet.weights[f"{node.name}.bias"], real(bias))
        (scale,), (zero,) = about[op["outputs"][0]]["scale"], about[op["outputs"][0]]["zero_point"]
        clip = next(n for n in mobilenet.graph.nodes[mobilenet.graph.nodes.index(node) :] if n.op.kind == "clip").op
        low, high = -scale * zero, scale * (255 - zero)
        limits = (low, high) if node.name == "classifier" else (max(low, 0), min(high, 6))
        assert (clip.low, clip.high) == pytest.approx(limits, rel=1e-6)  # a float32 scale, printed


def test_background_is_dropped_or_kept(mobilenet):
    without = import_checkpoint([shared(name) for name in HALVES], "mobilenet_v1")
    assert (len(mobilenet.labels), len(without.labels)) == (1001, 1000)
    assert mobilenet.labels[0] == "background"
    assert mobilenet.labels[1:] == without.labels
    for key in ("weight", "bias"):
        name = f"classifier.{key}"
        np.testing.assert_array_equal(mobilenet.weights[name][1:], without.weights[name])
    for name in without.weights.keys() - {"classifier.weight", "classifier.bias"}:
        np.testing.assert_array_equal(mobilenet.weights[name], without.weights[name])


def test_what_an_8_bit_file_wants_of_pictures(mobilenet):
    scale, shift = mobilenet.preprocessing.scale_and_shift()
    np.testing.assert_allclose(scale, 1 / 128, rtol=1e-6)  # scale 1/128, zero point 128
    np.testing.assert_allclose(shift, -1, rtol=1e-6)
    assert mobilenet.preprocessing.size == (224, 224)


def test_halves_in_the_wrong_order_or_alone():
    first, second = (shared(name) for name in HALVES)
    for files, says in {
        (second, first): "its last layer is not a classifier",
        (first,): "its last layer is not a classifier; is a later file missing?",
        (second,): "does not fit",
        (first, first): "not a classifier",
        (first, second, second): "does not fit",
        (second, second): "does not fit",
    }.items():
        with pytest.raises(FileError, match=says):
            import_checkpoint(files, "mobilenet_v1")


@pytest.mark.parametrize(("model", "says"), [
    ("mobilenet_v1:width=0.5", r"at stem.conv, the network has conv \(16, 3, 3, 3\), the file conv \(8, 3, 3, 3\)"),
    ("mobilenet_v1:width=0.25,padding=symmetric", r"at stem.conv, the file pads \(\(0, 1\), \(0, 1\)\), the network"),
    ("mobilenet_v1:width=0.25,variant=shallow", "does not fit mobilenet_v1:width=0.25,variant=shallow: at "),
    ("mobilenet_v2", "does not fit mobilenet_v2"),
    ("squeezenet_1_1", "does not fit squeezenet_1_1"),
])  # fmt: skip
def test_another_network(model, says):
    path = shared("weights/mobilenet_v1_0.25_128_quant.tflite")
    with pytest.raises(FileError, match=says) as caught:
        import_checkpoint([path], model)
    assert str(caught.value).startswith(f"{path}: ")


def test_the_resolution_is_the_files():
    path = shared("weights/mobilenet_v1_0.25_128_quant.tflite")
    made = import_checkpoint([path], "mobilenet_v1:width=0.25", overrides=Overrides(resolution=128, crop=1.0))
    assert (made.graph.input_shape, made.preprocessing.crop) == ((128, 128, 3), 1.0)
    with pytest.raises(FileError, match="made for 128 pixels"):
        import_checkpoint([path], "mobilenet_v1:width=0.25", overrides=Overrides(resolution=160))


def test_mobilenet_v2_has_its_linear_bottlenecks_and_sums_cut_off():
    made = import_checkpoint([shared("weights/mobilenet_v2_1.0_224_quant.tflite")], "mobilenet_v2")
    kinds = [node.op.kind for node in made.graph]
    folded = [node.op.kind for node in fold_graph(zoo.mobilenet_v2())]
    assert kinds.count("conv") + kinds.count("dense") == folded.count("conv") + folded.count("dense") == 53
    assert kinds.count("add") == 10
    assert kinds.count("clip") == 53 + 10  # after or in place of the activation of every layer, and every sum
    assert "activation" not in kinds


def test_a_detector_is_no_classifier():
    path = shared("weights/coco_ssd_mobilenet_v1_1.0_quant_2018_06_29.tflite")
    assert "one input and one output" in refusal(path)


def test_a_real_file_cut_off_anywhere(tmp_path):
    whole = shared("weights/vww_96_int8.tflite").read_bytes()
    path = tmp_path / "w.tflite"
    for size in np.linspace(0, len(whole) - 1, 40).astype(int):
        path.write_bytes(whole[:size])
        with pytest.raises(FileError):
            import_checkpoint([path], "mobilenet_v1:width=0.25")


def test_a_reshape_onto_itself(tmp_path):
    draft = Draft()
    image = draft.tensor((1, 8, 8, 3))
    draft.op(OP.RESHAPE, [image], image)
    path = draft.write(tmp_path / "w.tflite", [image], [image])
    assert "writes what it reads" in refusal(path)


def test_no_layers(tmp_path):
    draft = Draft()
    image, out = draft.tensor((1, 8, 8, 3)), draft.tensor((1, 192))
    draft.op(OP.RESHAPE, [image], out)
    assert "holds no layers" in refusal(draft.write(tmp_path / "w.tflite", [image], [out]))


@pytest.mark.parametrize("shape", [(1, 0, 0, 3), (1, -1, -1, 3), (1, 8, 8, 0)])
def test_input_shapes(shape, tmp_path):
    assert "not one image" in refusal(one_conv(tmp_path / "w.tflite", shape=shape))


def test_a_batch_of_four(tmp_path):
    with pytest.raises(FileError):
        read_layers(one_conv(tmp_path / "w.tflite", shape=(4, 8, 8, 3)))


def test_integer_weights_without_scale(tmp_path):
    draft = Draft()
    image, out = draft.tensor((1, 8, 8, 3)), draft.tensor((1, 8, 8, 4))
    draft.op(OP.CONV_2D, [image, draft.constant(np.ones((4, 3, 3, 3), np.int8))], out, **SAME1)
    with pytest.raises(FileError):
        read_layers(draft.write(tmp_path / "w.tflite", [image], [out]))


def test_16_bit_activations(tmp_path):
    draft = Draft()
    image = draft.tensor((1, 8, 8, 3), KIND.INT16, scale=0.01)
    out = draft.tensor((1, 8, 8, 4), KIND.INT16, scale=0.01)
    draft.op(OP.CONV_2D, [image, draft.constant(CONV)], out, **SAME1)
    with pytest.raises(FileError):
        read_layers(draft.write(tmp_path / "w.tflite", [image], [out]))


@pytest.mark.parametrize("grid", [Grid(0.1, 255), Grid(float("nan"), 3), Grid(0.0, 3)])
def test_grids_that_leave_nothing(grid):
    with pytest.raises(FileError):
        lay_layers(network(), [file_of(layers(grid=grid))])


def lays(draft, image, out, graph, path):
    with pytest.raises(FileError):
        lay_layers(graph, [read_layers(draft.write(path, [image], [out]))])


def conv_graph(shape=(8, 8, 3)):
    g = Builder(input=shape)
    x = g.conv(g.input, 4, kernel=3, name="conv")
    return g.graph(x, features=x, name="conv")


def mean_graph():
    g = Builder(input=(8, 8, 3))
    return g.graph(g.global_pool(g.input, name="pool"), features=g.input, name="mean")


def test_a_pad_before_a_padded_convolution(tmp_path):
    draft = Draft()
    image, padded, out = draft.tensor((1, 8, 8, 3)), draft.tensor((1, 10, 10, 3)), draft.tensor((1, 10, 10, 4))
    draft.op(OP.PAD, [image, draft.constant(np.array([[0, 0], [1, 1], [1, 1], [0, 0]], np.int32))], padded)
    draft.op(OP.CONV_2D, [padded, draft.constant(CONV)], out, **SAME1)
    lays(draft, image, out, conv_graph(), tmp_path / "w.tflite")


def test_a_pad_before_a_mean(tmp_path):
    draft = Draft()
    image, padded, out = draft.tensor((1, 8, 8, 3)), draft.tensor((1, 10, 10, 3)), draft.tensor((1, 3))
    draft.op(OP.PAD, [image, draft.constant(np.array([[0, 0], [1, 1], [1, 1], [0, 0]], np.int32))], padded)
    draft.op(OP.MEAN, [padded, draft.constant(np.array([1, 2], np.int32))], out)
    lays(draft, image, out, mean_graph(), tmp_path / "w.tflite")


def test_a_mean_over_channels(tmp_path):
    draft = Draft()
    image, out = draft.tensor((1, 8, 8, 3)), draft.tensor((1, 8, 8))
    draft.op(OP.MEAN, [image, draft.constant(np.array([3], np.int32))], out)
    lays(draft, image, out, mean_graph(), tmp_path / "w.tflite")


def test_a_softmax_inside(tmp_path):
    draft = Draft()
    image, soft, out = draft.tensor((1, 8, 8, 3)), draft.tensor((1, 8, 8, 3)), draft.tensor((1, 8, 8, 4))
    draft.op(OP.SOFTMAX, [image], soft)
    draft.op(OP.CONV_2D, [soft, draft.constant(CONV)], out, **SAME1)
    lays(draft, image, out, conv_graph(), tmp_path / "w.tflite")


def test_a_map_reshaped(tmp_path):
    draft = Draft()
    image, turned, out = draft.tensor((1, 8, 4, 3)), draft.tensor((1, 4, 8, 3)), draft.tensor((1, 4, 8, 4))
    draft.op(OP.RESHAPE, [image], turned)
    draft.op(OP.CONV_2D, [turned, draft.constant(CONV)], out, **SAME1)
    lays(draft, image, out, conv_graph((8, 4, 3)), tmp_path / "w.tflite")


def test_requantized_to_a_narrower_range(tmp_path):
    draft = Draft()
    image = draft.tensor((1, 8, 8, 3), KIND.UINT8, scale=0.02, zero=128)
    narrow = draft.tensor((1, 8, 8, 3), KIND.UINT8, scale=0.001, zero=128)
    out = draft.tensor((1, 8, 8, 4))
    draft.op(OP.QUANTIZE, [image], narrow)
    draft.op(OP.CONV_2D, [narrow, draft.constant(CONV)], out, **SAME1)
    lays(draft, image, out, conv_graph(), tmp_path / "w.tflite")


def test_an_output_that_is_not_the_last_layer():
    with pytest.raises(FileError):
        lay_layers(network(), [file_of(layers(), last=1)])


def test_a_wider_convolution_is_no_dense_layer():
    some = layers()
    some[5] = replace(some[5], weight=number(3, 1, 2, 2))
    with pytest.raises(FileError):
        lay_layers(network(), [file_of(some)])
