"""SSD and SSDLite: costs by arithmetic and of the public definitions, maps, anchors, and every backbone at any size."""

from itertools import pairwise
from math import sqrt

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from networks import images, random_weights
from smallcnn import zoo
from smallcnn.cost.profile import profile
from smallcnn.errors import GraphError
from smallcnn.ir import ops
from smallcnn.ir.builder import Builder
from smallcnn.ir.graph import Graph
from smallcnn.ir.predictors import code_predictors, score_predictors
from smallcnn.module import to_module
from smallcnn.reference import floating as reference
from smallcnn.reference.detection import anchors
from smallcnn.reference.initial import initial_weights
from smallcnn.tasks.detection import Detection
from smallcnn.zoo.backbones import backbone
from zoo_models import CLASSIFIERS, DETECTOR_MODELS, build

# backbone: its two maps at 320 pixels
MAPS = {
    "alexnet": ("conv5.act", (19, 19, 256), (9, 9, 256)),
    "efficientnet_lite0": ("block12.expand.act", (20, 20, 672), (10, 10, 1280)),
    "effnet": ("block13.row.act", (20, 20, 384), (10, 10, 768)),
    "effnet_cifar": ("block3.row.act", (80, 80, 128), (40, 40, 256)),
    "googlenet": ("inception4e.concat", (20, 20, 832), (10, 10, 1024)),
    "mobilenet_v1": ("block11.pointwise.act", (20, 20, 512), (10, 10, 1024)),  # Conv2d_11_pointwise, Conv2d_13
    "mobilenet_v2": ("block14.expand.act", (20, 20, 576), (10, 10, 1280)),  # layer_15/expansion_output, layer_19
    "mobilenet_v3_large": ("block13.expand.act", (20, 20, 672), (10, 10, 960)),  # layer_14/expansion_output, layer_17
    "mobilenet_v3_small": ("block9.expand.act", (20, 20, 288), (10, 10, 576)),  # layer_10/expansion_output, layer_13
    "mobilenet_v4_conv_small": ("block7.expand.act", (20, 20, 576), (10, 10, 960)),
    "nasnet_a_mobile": ("cell11.concat", (20, 20, 528), (10, 10, 1056)),
    "shufflenet_v1": ("stage3_8.act", (20, 20, 480), (10, 10, 960)),
    "shufflenet_v2": ("block12.shuffle", (20, 20, 232), (10, 10, 1024)),
    "squeezenet_1_0": ("fire8.concat", (39, 39, 512), (19, 19, 512)),
    "squeezenet_1_1": ("fire5.concat", (39, 39, 256), (19, 19, 512)),
    "vgg16": ("conv4_3.act", (40, 40, 512), (20, 20, 1024)),  # conv4_3, fc7
    "xception": ("block11.add", (20, 20, 728), (10, 10, 2048)),
}


def detect(graph: Graph) -> ops.Detect:
    (op,) = (node.op for node in graph if isinstance(node.op, ops.Detect))
    return op


def head(graph: Graph) -> tuple[int, int]:
    """Parameters and Mult-Adds of what follows the backbone."""
    layers = [layer for layer in profile(graph).layers if layer.name.startswith(("extra", "predict"))]
    return sum(layer.parameters for layer in layers), sum(layer.mult_adds for layer in layers)


def counted(maps: list[tuple[int, int]], columns: int, kernel: int, *, lite: bool) -> tuple[int, int]:
    """The same for square maps (side, channels) by arithmetic: TensorFlow's layout, batch norm's scale and shift."""
    parameters = mult_adds = 0

    def conv(size: int, inputs: int, outputs: int, side: int, beside: int) -> None:
        nonlocal parameters, mult_adds
        parameters += size * size * inputs * outputs + beside * outputs
        mult_adds += size * size * inputs * outputs * side * side

    def depthwise(channels: int, side: int) -> None:
        nonlocal parameters, mult_adds
        parameters += (9 + 2) * channels
        mult_adds += 9 * channels * side * side

    maps = list(maps)
    for out in (512, 256, 256, 128):
        side, channels = maps[-1]
        after = (side + 1) // 2
        conv(1, channels, out // 2, side, 2)
        if lite:
            depthwise(out // 2, after)
            conv(1, out // 2, out, after, 2)
        else:
            conv(3, out // 2, out, after, 2)
        maps.append((after, out))
    for (side, channels), count in zip(maps, (3, 6, 6, 6, 6, 6), strict=True):
        for outputs in (4 * count, columns * count):
            if lite:
                depthwise(channels, side)
            conv(1 if lite else kernel, channels, outputs, side, 1)
    return parameters, mult_adds


# --- costs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "resolution", "maps", "kernel"), [
    ("ssd", 300, [(19, 512), (10, 1024)], 1),
    ("ssd:predictor=3x3", 300, [(19, 512), (10, 1024)], 3),
    ("ssd:backbone=mobilenet_v2,predictor=3x3", 320, [(20, 576), (10, 1280)], 3),
    ("ssdlite", 320, [(20, 576), (10, 1280)], 3),
    ("ssdlite:backbone=mobilenet_v1", 224, [(14, 512), (7, 1024)], 3),
])  # fmt: skip
@pytest.mark.parametrize("classes", [1, 80, 90])
def test_the_cost_of_the_head_by_arithmetic(text, resolution, maps, kernel, classes):
    graph = build(text, resolution=resolution, classes=classes)
    assert head(graph) == counted(maps, classes + 1, kernel, lite=text.startswith("ssdlite"))


@pytest.mark.parametrize(("text", "resolution", "parameters", "billion"), [
    # torchvision's own counts, num_params and _ops: SSD300_VGG16_Weights, SSDLite320_MobileNet_V3_Large_Weights
    ("ssd:backbone=vgg16", 300, 35_641_826, 34.858),
    (
        "ssdlite:backbone=mobilenet_v3_large,reduced_tail=true,padding=symmetric,form=torchvision", 320, 3_440_060,
        0.583,
    ),
])  # fmt: skip
def test_the_cost_of_torchvisions_detectors(text, resolution, parameters, billion):
    cost = profile(build(text, resolution=resolution, classes=90))
    assert cost.parameters == parameters
    factors = 512 * 38 * 38 if "vgg" in text else 0  # those of the first map: torchvision does not count them
    assert round((cost.mult_adds - factors) / 1e9, 3) == billion


# --- maps ----------------------------------------------------------------------------------------------------------


def test_every_classifier_has_its_maps():
    assert set(MAPS) == set(CLASSIFIERS)


@pytest.mark.parametrize("name", CLASSIFIERS)
@pytest.mark.parametrize("kind", ["ssd", "ssdlite"])
def test_the_head_reads_the_released_maps(kind, name):
    graph = build(f"{kind}:backbone={name}", resolution=320)
    first, first_shape, last_shape = MAPS[name]
    assert graph.taps[0] == first
    assert [graph[tap].shape for tap in graph.taps] == [first_shape, last_shape]
    sides = [graph[one.conv.name].shape[0] for one in code_predictors(graph)]
    assert sides[:2] == [first_shape[0], last_shape[0]]
    assert all(after in ((before + 1) // 2, before - 2) for before, after in pairwise(sides[1:]))


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_the_backbone_is_the_classifiers_by_name_and_shape(name):
    """So that its trained weights fit; VGG-16's dense layers are convolutions in SSD."""
    graph, classifier = build(f"ssd:backbone={name}", resolution=320), build(name, resolution=320)
    own = {key for key in graph.weights if not key.startswith(("extra", "predict", "normalised"))}
    new = {"fc6.conv.weight", "fc6.conv.bias", "fc7.conv.weight", "fc7.conv.bias"} if name == "vgg16" else set()
    assert own - classifier.weights.keys() == new
    assert all(graph.weights[key] == classifier.weights[key] for key in own - new)


@pytest.mark.parametrize(("text", "extra"), [
    ("ssd:width=0.5", (256, 128, 128, 64)),
    ("ssdlite:width=0.35", (179, 89, 89, 44)),  # rounded down, as the released code does
    ("ssdlite:width=1.4", (716, 358, 358, 179)),
    ("ssd:backbone=shufflenet_v2,scale=0.5", (256, 128, 128, 64)),
    ("ssd:backbone=mobilenet_v1,width=0.02", (16, 16, 16, 16)),
    ("ssd:backbone=googlenet", (512, 256, 256, 128)),
])  # fmt: skip
def test_a_width_multiplier_scales_the_extra_layers(text, extra):
    graph = build(text)
    assert tuple(graph[one.conv.inputs[0]].shape[2] for one in code_predictors(graph)[2:]) == extra


SIZES = (64, 128, 160, 192, 224, 320, 512, (96, 160), (321, 199))


@pytest.mark.parametrize("resolution", SIZES, ids=str)
@pytest.mark.parametrize("text", [
    "ssd", "ssd:backbone=vgg16", "ssd:backbone=squeezenet_1_1", "ssdlite", "ssdlite:backbone=mobilenet_v3_small",
    "ssdlite:form=torchvision", "ssdlite:backbone=vgg16", "ssdlite:small_input=true",
])  # fmt: skip
def test_any_input_size_classes_and_channels(text, resolution):
    graph = build(text, resolution=resolution, classes=3, channels=1)
    plane = resolution if isinstance(resolution, tuple) else (resolution, resolution)
    assert graph.input_shape == (*plane, 1)
    Detection(("a", "b", "c")).check(graph.results)
    assert graph.name == str(zoo.parse(text))
    assert Graph.from_json(graph.to_json()) == graph
    maps = [(height, width) for one in code_predictors(graph) for height, width, _ in [one.conv.shape]]
    assert [grid.cells for grid in detect(graph).anchors] == maps
    assert graph.weights == build(text, classes=3, channels=1).weights


@pytest.mark.parametrize(("text", "message"), [
    ("ssd:backbone=ssdlite", "ssdlite is a detector; a backbone is a classifier"),
    ("ssd:backbone=mobilnet_v1", "no model 'mobilnet_v1'; closest: mobilenet_v1"),
    ("ssd:widht=0.5", "ssd has no option 'widht'; closest: width"),
    ("ssd:backbone=vgg16,width=0.5", "ssd has no option 'width'; "),
    ("ssd:width=wide", "width must be a number, not 'wide'"),
    ("ssd:predictor=2x2", "predictor must be released or 1x1 or 3x3, not '2x2'"),
    ("ssd:classes=3", "ssd has no option 'classes'; classes is an option of the command, --classes"),
    ("ssdlite:backbone=mobilenet_v2,backbone=mobilenet_v1", "ssdlite: backbone is given twice"),
])  # fmt: skip
def test_what_is_no_detector(text, message):
    with pytest.raises(GraphError, match=f"^{message}[^\n]*$"):
        zoo.parse(text).build()


def test_a_backbone_without_a_map_at_half_the_stride_is_refused_in_one_line():
    class Thirds(zoo.Configuration):
        def build(self, **_: object) -> Graph:
            g = Builder(input=(9, 9, 3), name="thirds")
            x = g.conv(g.input, 4, kernel=3, stride=3, name="stem")
            return g.graph(g.dense(g.global_pool(x), 1), features=x)

    with pytest.raises(GraphError, match=r"^thirds has no map of half its features' stride, 3x3: it cannot be a back"):
        backbone(Builder(input=(9, 9, 3)), Thirds("thirds", {}))


def test_an_image_too_small_for_the_backbone_is_refused_in_one_line():
    with pytest.raises(GraphError, match=r"^conv2.pool: a 3x3 window does not fit the padded 1x1 input$"):
        build("ssd:backbone=alexnet", resolution=16)


@pytest.mark.parametrize(("text", "spelled"), [
    ("ssd:backbone=mobilenet_v1", "ssd"),
    ("ssd:width=0.5", "ssd:backbone=mobilenet_v1,width=0.5"),
    ("ssd:predictor=3x3,width=0.50,backbone=mobilenet_v2", "ssd:backbone=mobilenet_v2,width=0.5,predictor=3x3"),
    ("ssdlite:backbone=mobilenet_v2,width=1", "ssdlite"),
])  # fmt: skip
def test_text_form(text, spelled):
    model = zoo.parse(text)
    assert str(model) == spelled
    assert zoo.parse(spelled) == model
    assert getattr(zoo, model.name)(**model.options) == model.build()


def test_a_backbone_in_python_is_its_text_form():
    assert zoo.ssd(backbone="mobilenet_v1:width=0.5") == build("ssd:backbone=mobilenet_v1,width=0.5")


# --- anchors -------------------------------------------------------------------------------------------------------


def test_anchors_of_the_released_configuration():
    """create_ssd_anchors with 6 layers, scales 0.2 to 0.95: 1917 at 300 pixels, three on the first map."""
    op = detect(build("ssd"))
    assert [(grid.cells, len(grid.sizes)) for grid in op.anchors] == [
        ((19, 19), 3), ((10, 10), 6), ((5, 5), 6), ((3, 3), 6), ((2, 2), 6), ((1, 1), 6)
    ]  # fmt: skip
    found = anchors(op)
    assert len(found) == 1917
    half = 0.5 / 19
    np.testing.assert_allclose(found[0], [half, half, 0.1, 0.1], rtol=1e-6)
    np.testing.assert_allclose(found[1], [half, half, 0.2 * sqrt(2), 0.2 / sqrt(2)], rtol=1e-6)
    np.testing.assert_allclose(found[2], [half, half, 0.2 * sqrt(0.5), 0.2 / sqrt(0.5)], rtol=1e-6)
    np.testing.assert_allclose(found[3, :2], [3 * half, half], rtol=1e-6)  # the next cell is to the right
    second = found[19 * 19 * 3 :][:6]
    ratios = (1, 2, 0.5, 3, 0.3333)
    sizes = [(0.35 * sqrt(ratio), 0.35 / sqrt(ratio)) for ratio in ratios] + [(sqrt(0.35 * 0.5),) * 2]
    np.testing.assert_allclose(second[:, 2:], sizes, rtol=1e-6)
    np.testing.assert_allclose(found[-1], [0.5, 0.5, sqrt(0.95), sqrt(0.95)], rtol=1e-6)


def test_anchors_are_square_in_pixels_whatever_the_input_is():
    """As in MultipleGridAnchorGenerator: the shorter side of the input is the unit."""
    op = detect(build("ssd", resolution=(160, 320)))
    assert op.anchors[0].cells == (10, 20)
    np.testing.assert_allclose(anchors(op)[0], [0.5 / 20, 0.5 / 10, 0.05, 0.1], rtol=1e-6)


def test_anchors_of_the_paper():
    """SSD300 for COCO, weiliu89/caffe examples/ssd/ssd_coco.py: boxes of 21, 45, 99, 153, 207, 261 and 315 pixels."""
    op = detect(build("ssd:backbone=vgg16"))
    assert [len(grid.sizes) for grid in op.anchors] == [4, 6, 6, 6, 4, 4]
    found = anchors(op) * 300
    assert len(found) == 8732  # the paper's number, section 3.2
    np.testing.assert_allclose(found[0], [4, 4, 21, 21], rtol=1e-5)
    np.testing.assert_allclose(found[1, 2:], [sqrt(21 * 45)] * 2, rtol=1e-5)
    np.testing.assert_allclose(found[2, 2:], [21 * sqrt(2), 21 / sqrt(2)], rtol=1e-5)
    np.testing.assert_allclose(found[3, 2:], [21 / sqrt(2), 21 * sqrt(2)], rtol=1e-5)
    np.testing.assert_allclose(found[4, :2], [12, 4], rtol=1e-5)  # 8 pixels apart
    np.testing.assert_allclose(found[-1], [150, 150, 261 / sqrt(2), 300], rtol=1e-5)  # not larger than the input


# --- what comes out ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "score", "overlap", "most"), [
    ("ssd", "sigmoid", 0.6, 100),
    ("ssdlite", "sigmoid", 0.6, 100),
    ("ssdlite:form=torchvision", "softmax", 0.55, 300),
    ("ssd:backbone=vgg16", "softmax", 0.45, 200),
])  # fmt: skip
def test_scores_and_suppression_are_those_of_the_origin(text, score, overlap, most):
    op = detect(build(text))
    assert (op.score, op.overlap, op.most, op.background) == (score, overlap, most, True)
    assert (op.centre_scale, op.size_scale) == (0.1, 0.2)  # box coder 10, 10, 5, 5


def test_the_first_map_of_vgg_is_scaled_to_a_length_of_20():
    """Section 3.1 of SSD, after ParseNet (arXiv 1506.04579): 20 x / |x|; a pixel of zeros stays."""
    graph = build("ssd:backbone=vgg16", resolution=64, classes=2)
    length, scale = graph["normalised.length"].op, graph["normalised.scale"].op
    x = np.random.default_rng(0).standard_normal((1, 2, 3, 512)) * np.array([1, 1e-3, 0]).reshape(3, 1)
    got = reference.apply(scale, [reference.apply(length, [x], {})], {"weight": np.full((512, 1, 1, 1), 1.5)})
    lengths = np.linalg.norm(x, axis=-1, keepdims=True)
    want = np.where(lengths > 0, 30 * x / np.maximum(lengths, 1e-12), 0)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-12)


@pytest.mark.parametrize("text", ["ssd:width=0.25", "ssdlite:width=0.35", "ssdlite:form=torchvision,width=0.35"])
def test_an_untrained_detector_takes_an_object_for_unlikely(text):
    """0.01, as in Lin et al. 2017, section 4.1: of each class for sigmoids, of all together for a softmax."""
    graph = build(text, resolution=64, classes=4)
    weights = initial_weights(graph)
    for one in score_predictors(graph):
        bias = weights[f"{one.conv.name}.bias"].reshape(-1, 5).astype(np.float64)
        if detect(graph).score == "sigmoid":
            np.testing.assert_allclose(1 / (1 + np.exp(-bias)), [[0.99] + [0.01] * 4] * len(bias), rtol=1e-5)
        else:
            likely = np.exp(bias) / np.exp(bias).sum(1, keepdims=True)
            np.testing.assert_allclose(likely, [[0.99] + [0.0025] * 4] * len(bias), rtol=1e-5)
    kernels = [
        weights[f"{one.conv.name}.weight"].ravel() for one in (*score_predictors(graph), *code_predictors(graph))
    ]
    assert abs(np.concatenate(kernels).std() - 0.03) < 0.001
    assert not any(weights[f"{one.conv.name}.bias"].any() for one in code_predictors(graph))


# --- in torch ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mobilenet_v1", "mobilenet_v3_small", "shufflenet_v2", "squeezenet_1_1"])
def test_it_finds_in_torch_what_the_definition_finds(name):
    graph = zoo.parse(f"ssdlite:backbone={name},small_input=true").build(resolution=40, classes=2)
    weights = random_weights(graph)
    batch = images(graph)
    with torch.no_grad():
        got = to_module(graph, weights).eval()(torch.from_numpy(np.moveaxis(batch, 3, 1)).float())
    want = reference.run(graph, weights, batch)
    assert want["count"].min() > 0
    np.testing.assert_array_equal(got["count"].numpy(), want["count"])
    np.testing.assert_allclose(got["scores"].numpy(), want["scores"], rtol=0, atol=1e-4)


@pytest.mark.parametrize("text", [text for text in DETECTOR_MODELS if "vgg16" not in text])
def test_costs_agree_with_torch(text):
    graph = build(text, resolution=96, classes=3)
    module = to_module(graph, initial_weights(graph)).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(torch.zeros(1, 3, 96, 96))
    cost = profile(graph)
    assert cost.parameters == sum(parameter.numel() for parameter in module.parameters())
    assert 2 * cost.mult_adds == counter.get_total_flops()
