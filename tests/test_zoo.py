import pytest

from smallcnn import zoo
from smallcnn.errors import GraphError
from smallcnn.graph import Graph
from smallcnn.zoo.registry import register

# --- promises of every network ---


@pytest.mark.parametrize("name", zoo.names())
@pytest.mark.parametrize(
    "common",
    [
        {},
        {"resolution": 97},
        {"resolution": (64, 96), "classes": 5},
        {"resolution": 64, "channels": 1, "classes": 1},
    ],
    ids=str,
)
def test_every_network_builds(name, common):
    graph = zoo.parse(name).build(**common)
    side = common.get("resolution", graph.input_shape[:2])
    plane = side if isinstance(side, tuple) else (side, side)
    assert graph.input_shape == (*plane, common.get("channels", 3))
    assert graph.output_shape == (common.get("classes", 1000),)
    assert len(graph[graph.features].shape) == 3, "features are a map"
    assert Graph.from_json(graph.to_json()) == graph


@pytest.mark.parametrize("name", zoo.names())
def test_every_network_is_named_as_it_is_spelled(name):
    assert str(zoo.parse(name)) == name
    assert zoo.parse(name).build().name == name


# --- the registry ---

DEFAULTS = {"width": 1.0, "variant": "separable", "small_input": False, "padding": "same", "epsilon": 0.001}


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
    ("text", "message"),
    [
        ("mobilnet_v1", "no model 'mobilnet_v1'; closest: mobilenet_v1"),
        ("", "no model ''; known: .*mobilenet_v1"),
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

    with pytest.raises(ValueError, match="two networks are called mobilenet_v1"):
        register(mobilenet_v1)


def test_an_unknown_keyword_is_an_error():
    with pytest.raises(TypeError, match="widht"):
        zoo.mobilenet_v1(widht=0.5)
