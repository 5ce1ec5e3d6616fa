import inspect
import re

import pytest
import torch

from smallcnn import papers, zoo
from smallcnn.cost.profile import profile
from smallcnn.errors import GraphError
from smallcnn.ir.graph import Graph
from smallcnn.module import to_module
from smallcnn.papers import models as catalogue
from smallcnn.zoo.registry import register
from zoo_models import CLASSIFIERS, DETECTOR_MODELS, DETECTORS, MODELS, SMALL, build

# resolution, classes, parameters (batch norm's scale and shift included), Mult-Adds: by arithmetic from the paper's
# table where one is named, measured on the public definition where that comes first; where both are, they agree
NETWORKS = {
    "alexnet": (224, 1000, 60_965_224, 724_406_816),  # Figure 2
    "efficientnet_lite0": (224, 1000, 4_652_008, 385_187_552),  # timm efficientnet_lite0
    "effnet": (224, 1000, 2_549_016, 282_104_832),  # ours: the formulas are in test_zoo_effnet.py
    "effnet_cifar": (32, 10, 151_146, 5_640_192),  # Table 1: 148,896 weights, 2 * 1,120 of batch norm, 10 biases
    "googlenet": (224, 1000, 6_998_552, 1_582_671_872),  # Table 1, the first layer a full 7x7
    "mobilenet_v1": (224, 1000, 4_231_976, 568_740_352),  # Table 1; Keras MobileNet
    "mobilenet_v2": (224, 1000, 3_504_872, 300_774_272),  # Table 2; torchvision mobilenet_v2
    "mobilenet_v3_large": (224, 1000, 5_483_032, 216_589_760),  # torchvision mobilenet_v3_large
    "mobilenet_v3_small": (224, 1000, 2_542_856, 56_510_400),  # torchvision mobilenet_v3_small
    "mobilenet_v4_conv_small": (224, 1000, 3_774_024, 186_005_568),  # timm mobilenetv4_conv_small
    "nasnet_a_mobile": (224, 1000, 5_289_978, 563_638_816),  # Figure 4, Table 3; Keras NASNetMobile
    "shufflenet_v1": (224, 1000, 1_865_728, 137_460_672),  # Table 1, g = 3
    "shufflenet_v2": (224, 1000, 2_278_604, 144_907_992),  # torchvision shufflenet_v2_x1_0
    "squeezenet_1_0": (224, 1000, 1_248_424, 818_924_576),  # Table 1; torchvision squeezenet1_0
    "squeezenet_1_1": (224, 1000, 1_235_496, 349_151_936),  # torchvision squeezenet1_1
    "vgg16": (224, 1000, 138_357_544, 15_470_264_320),  # Table 1, D; torchvision vgg16
    "xception": (299, 1000, 22_855_952, 8_357_403_496),  # Table 3 prints the parameters; Keras Xception
}

# The least side that every window fits, by hand from the kernels and strides up to the last pool; 1 where all windows
# are padded. Then the same with `small_input`.
LEAST_SIDE = {
    "alexnet": (64, 15),
    "googlenet": (31, 8),
    "nasnet_a_mobile": (19, 11),
    "squeezenet_1_0": (21, 10),
    "squeezenet_1_1": (17, 6),
    "vgg16": (32, 16),
    "xception": (7, 5),
}

# What `small_input` changes besides strides and pools
OTHER_SHAPE_IF_SMALL = {
    "alexnet": {"fc6.dense.weight"},  # reads the whole plane
    "vgg16": {"fc6.dense.weight"},
    "effnet": {"block1.project.conv.weight"},  # 2x1 where it halves the plane, 1x1 where it does not
}


def least_side(text: str) -> int:
    return LEAST_SIDE.get(text.partition(":")[0], (1, 1))[text in SMALL]


# --- promises of every network ---


def test_every_network_is_in_the_lists():
    assert set(NETWORKS) | set(DETECTORS) == set(zoo.names())
    assert {text.partition(":")[0] for text in (*MODELS, *DETECTOR_MODELS)} == set(zoo.names())
    printed = {row.model for table in papers.TABLES for row in table.rows if row.model}
    known = {known.model for known in catalogue.MODELS}
    assert {str(zoo.parse(text)) for text in printed | known} <= {*MODELS, *DETECTOR_MODELS}


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_exact_cost_at_its_own_resolution(name):
    resolution, classes, parameters, mult_adds = NETWORKS[name]
    graph = build(name)
    assert (graph.input_shape, graph.output_shape) == ((resolution, resolution, 3), (classes,))
    cost = profile(graph)
    assert (cost.parameters, cost.mult_adds) == (parameters, mult_adds)


@pytest.mark.parametrize("name", CLASSIFIERS)
@pytest.mark.parametrize(
    ("resolution", "channels", "classes"), [(97, 3, 10), ((64, 96), 3, 5), ((96, 64), 4, 2), (64, 1, 1)], ids=str
)
def test_every_network_takes_any_size_channels_and_classes(name, resolution, channels, classes):
    graph = build(name, resolution=resolution, channels=channels, classes=classes)
    plane = resolution if isinstance(resolution, tuple) else (resolution, resolution)
    assert (graph.input_shape, graph.output_shape) == ((*plane, channels), (classes,))
    assert len(graph[graph.features].shape) == 3, "features are a map"


@pytest.mark.parametrize("text", [*MODELS, *SMALL, *DETECTOR_MODELS])
def test_every_model_is_named_as_it_is_spelled(text):
    model = zoo.parse(text)
    assert str(model) == text
    graph = build(text)
    assert graph.name == text
    assert Graph.from_json(graph.to_json()) == graph
    assert getattr(zoo, model.name)(**model.options) == graph


@pytest.mark.parametrize("name", zoo.names())
def test_every_network_is_exported_with_the_common_options_last(name):
    assert name in zoo.__all__
    parameters = inspect.signature(getattr(zoo, name)).parameters.values()
    assert {parameter.kind for parameter in parameters} == {inspect.Parameter.KEYWORD_ONLY}
    own = list(zoo.options(name))
    assert [parameter.name for parameter in parameters] == [*own, "resolution", "classes", "channels"]


@pytest.mark.parametrize("text", [*CLASSIFIERS, *SMALL])
@pytest.mark.parametrize("resolution", [(1, 1), (33, 33), (97, 65), (65, 97)], ids=str)
def test_odd_and_tiny_images(text, resolution):
    if min(resolution) >= least_side(text):
        assert build(text, resolution=resolution).input_shape == (*resolution, 3)
    else:
        refuses(text, resolution)


@pytest.mark.parametrize("text", [text for text in [*CLASSIFIERS, *SMALL] if least_side(text) > 1])
def test_the_smallest_image(text):
    side = least_side(text)
    assert build(text, resolution=side)[build(text).features].shape[:2] == (1, 1)
    refuses(text, (side - 1, side - 1))
    refuses(text, (side, side - 1))


def refuses(text: str, resolution: tuple[int, int]) -> None:
    """In one line, which names a layer of the network or the resolution that would do."""
    with pytest.raises(GraphError) as caught:
        build(text, resolution=resolution)
    layer = re.fullmatch(r"([\w.]+): a (\d+)x\2 window does not fit the padded \d+x\d+ input", str(caught.value))
    if layer:
        assert layer[1] in {node.name for node in build(text)}
    else:
        height, width = resolution
        name = text.partition(":")[0]
        assert str(caught.value) == (f"resolution must be at least {least_side(text)} for {name}, not {height}x{width}")


@pytest.mark.parametrize("text", SMALL)
def test_small_input_leaves_a_plane_and_the_weights(text):
    """At 32 pixels 2x2 or more, and more than without; weights for large images fit, name by name."""
    name = text.partition(":")[0]
    small, plain = build(text, resolution=32), build(name)
    height, width, channels = small[small.features].shape
    assert min(height, width) >= 2
    assert channels == plain[plain.features].shape[2]
    if least_side(name) <= 32:
        assert min(height, width) > min(build(name, resolution=32)[plain.features].shape[:2])
    assert list(small.weights) == list(plain.weights)
    differ = {key for key, weight in plain.weights.items() if small.weights[key] != weight}
    assert differ == OTHER_SHAPE_IF_SMALL.get(name, set())


@pytest.mark.parametrize("text", MODELS)
def test_every_model_trains(text):
    """One step from initial weights: every parameter has a finite gradient that is not all zeros."""
    model = zoo.parse(text)
    small = {"small_input": True} if "small_input" in model.options else {}
    graph = getattr(zoo, model.name)(**model.options | small, resolution=32, classes=5)
    module = to_module(graph).train()
    torch.manual_seed(0)
    module(torch.randn(2, 3, 32, 32)).square().sum().backward()
    gradients = {name: parameter.grad for name, parameter in module.named_parameters()}
    assert len(gradients) == sum(weight.learned for weight in graph.weights.values())
    assert [name for name, gradient in gradients.items() if gradient is None or not gradient.any()] == []
    assert [name for name, gradient in gradients.items() if not gradient.isfinite().all()] == []


# --- the registry ---

DEFAULTS = {"width": 1.0, "variant": "separable", "small_input": False, "padding": "same", "epsilon": 0.001,
            "activation": "relu6", "bias": False}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "options", "spelled"),
    [
        ("mobilenet_v1", {}, "mobilenet_v1"),
        ("mobilenet_v1:", {}, "mobilenet_v1"),
        ("mobilenet_v1:width=1", {}, "mobilenet_v1"),
        ("mobilenet_v1:width=0.50", {"width": 0.5}, "mobilenet_v1:width=0.5"),
        ("mobilenet_v1:width=2", {"width": 2.0}, "mobilenet_v1:width=2"),
        ("mobilenet_v1:width=0.123456789", {"width": 0.123456789}, "mobilenet_v1:width=0.123456789"),
        ("mobilenet_v1:width=1e-3", {"width": 0.001}, "mobilenet_v1:width=0.001"),
        ("mobilenet_v1:variant=conv", {"variant": "conv"}, "mobilenet_v1:variant=conv"),
        ("mobilenet_v1:small_input=True", {"small_input": True}, "mobilenet_v1:small_input=true"),
        ("mobilenet_v1:small_input=false", {}, "mobilenet_v1"),
        (
            "mobilenet_v1:variant=shallow,width=0.75",
            {"width": 0.75, "variant": "shallow"},
            "mobilenet_v1:width=0.75,variant=shallow",
        ),
    ],
)
def test_text_form(text, options, spelled):
    model = zoo.parse(text)
    assert model.options == DEFAULTS | options
    assert str(model) == spelled
    assert zoo.parse(spelled) == model
    assert model.build(resolution=32, classes=2) == zoo.mobilenet_v1(**options, resolution=32, classes=2)
    assert model.build(resolution=32, classes=2).name == spelled


def test_options_say_what_may_be_chosen():
    options = zoo.options("mobilenet_v1")
    assert list(options) == list(DEFAULTS)
    assert (options["width"].type, options["width"].default) == (float, 1.0)
    assert options["variant"].choices == ("separable", "conv", "shallow")
    assert (options["small_input"].type, options["small_input"].default) == (bool, False)


@pytest.mark.parametrize(
    ("name", "option", "values"),
    [
        ("mobilenet_v1", "width", (0.25, 0.5, 0.75, 1)),
        ("mobilenet_v1", "variant", ("separable", "conv", "shallow")),
        ("mobilenet_v1", "small_input", (False, True)),
        ("mobilenet_v1", "epsilon", (0.001,)),
        ("mobilenet_v3_small", "hidden", (1024, 1280)),
        ("shufflenet_v1", "groups", (1, 2, 3, 4, 8)),
        ("shufflenet_v2", "scale", (0.5, 1, 1.5, 2)),
        ("effnet_cifar", "expansion", (2, 4, 6)),
    ],
)
def test_values_that_a_search_walks(name, option, values):
    assert zoo.options(name)[option].values == values


@pytest.mark.parametrize("name", zoo.names())
def test_every_value_is_allowed_and_the_default_is_one(name):
    for option in zoo.options(name).values():
        assert option.default in option.values
        for value in option.values:
            option.check(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mobilnet_v1", "no model 'mobilnet_v1'; closest: mobilenet_v1"),
        ("", "no model ''; known: .*mobilenet_v1"),
        ("mobilenet_v3", "no model 'mobilenet_v3'; closest: mobilenet_v3_large, mobilenet_v3_small, "),
        ("squeezenet", "no model 'squeezenet'; closest: squeezenet_1_0, squeezenet_1_1"),
        ("mobilenet_v1:widht=0.5", "mobilenet_v1 has no option 'widht'; closest: width"),
        ("mobilenet_v1:depth=0.5", "mobilenet_v1 has no option 'depth'; "),
        ("mobilenet_v1:classes=5", "mobilenet_v1 has no option 'classes'; .* an option of the command, --classes"),
        ("mobilenet_v1:width", "mobilenet_v1: write width=VALUE, not 'width'"),
        ("mobilenet_v1:width=0.5,", "mobilenet_v1 has no option ''"),
        ("mobilenet_v1:width=0.5,width=1", "mobilenet_v1: width is given twice"),
        ("mobilenet_v1:width=wide", "width must be a number, not 'wide'"),
        ("mobilenet_v1:width=", "width must be a number, not ''"),
        ("mobilenet_v1:variant=shalow", "variant must be separable or conv or shallow, not 'shalow'"),
        ("mobilenet_v1:small_input=1", "small_input must be true or false, not '1'"),
    ],
)  # fmt: skip
def test_text_that_is_no_model(text, message):
    with pytest.raises(GraphError, match=f"^{message}[^\n]*$"):
        zoo.parse(text)


def test_two_networks_of_one_name_are_an_error():
    def mobilenet_v1() -> Graph:
        raise AssertionError("never built")

    with pytest.raises(ValueError, match="two networks are named mobilenet_v1"):
        register(mobilenet_v1)


def test_an_unknown_keyword_is_an_error():
    with pytest.raises(TypeError, match="widht"):
        zoo.mobilenet_v1(widht=0.5)
