"""Another input size or number of classes: what stays, what is new, and which layer cannot follow."""

from dataclasses import replace

import numpy as np
import pytest

from networks import every_number, images, random_weights, tiny
from smallcnn import zoo
from smallcnn.errors import GraphError
from smallcnn.ir import ops
from smallcnn.ir.builder import Builder
from smallcnn.ir.graph import Graph
from smallcnn.ir.rewrite import rewrite
from smallcnn.ir.types import Grid
from smallcnn.reference import floating as reference
from smallcnn.reference.detection import anchors
from smallcnn.reference.floating import answer as run
from smallcnn.transform.adapt import keep, with_classes, with_input_turned, with_resolution
from smallcnn.transform.fold import fold, fold_graph
from zoo_models import CLASSIFIERS, DETECTOR_MODELS


def without_head(graph: Graph) -> list[object]:
    return [(node.name, node.op, node.shape) for node in graph if not node.name.startswith("classifier")]


# --- classes -------------------------------------------------------------------------------------------------------


def test_only_the_last_dense_layer_changes():
    graph = zoo.mobilenet_v2(width=0.35)
    changed = with_classes(graph, 7)
    assert changed == zoo.mobilenet_v2(width=0.35, classes=7)
    assert graph.output_shape == (1000,), "the graph it was made from is as it was"


def test_a_convolution_may_be_the_classifier():
    """SqueezeNet's is one, followed by a ReLU and the mean (section 3 of its paper)."""
    changed = with_classes(zoo.squeezenet_1_1(resolution=64), 10)
    assert changed == zoo.squeezenet_1_1(resolution=64, classes=10)


@pytest.mark.parametrize("name", [
    "alexnet", "efficientnet_lite0", "mobilenet_v3_small", "mobilenet_v4_conv_small", "nasnet_a_mobile",
    "shufflenet_v1", "shufflenet_v2", "vgg16", "xception",
])  # fmt: skip
def test_it_is_what_the_registry_builds(name):
    model = zoo.parse(name)
    assert with_classes(model.build(), 3) == model.build(classes=3)


def clipped(low=-1.0, high=1.0) -> Graph:
    """As an 8-bit file gives it: clips inside, and one on the logits."""
    g = Builder(input=(8, 8, 3))
    x = g.clip(g.conv(g.input, 4, kernel=3, name="stem.conv"), 0.0, 6.0, name="stem.act")
    y = g.dense(g.global_pool(x, name="pool"), 3, name="classifier")
    return g.graph(g.clip(y, low, high, name="classifier_range"), features=x, name="clipped")


def test_limits_of_logits_go_and_others_stay():
    graph = clipped()
    changed = with_classes(graph, 5)
    assert (changed.output, changed.output_shape) == ("classifier", (5,))
    assert [node.name for node in changed] == [node.name for node in graph][:-1]
    assert changed["stem.act"].op == ops.Clip(low=0.0, high=6.0)
    weights = random_weights(changed)
    assert np.abs(run(changed, weights | {"classifier.bias": np.full(5, 50.0)}, images(changed))).min() > 10


@pytest.mark.parametrize("graph", [tiny(), clipped()], ids=["tiny", "clipped"])
def test_the_features_are_the_same(graph):
    changed = with_classes(graph, 5)
    assert changed.features == graph.features
    assert without_head(changed) == without_head(graph)


def test_a_graph_that_ends_in_features_has_no_classifier():
    g = Builder(input=(8, 8, 3))
    x = g.conv_bn(g.input, 4, kernel=3, activation=None, name="stem")
    graph = g.graph(g.global_pool(x, name="pool"), features=x, name="backbone")
    with pytest.raises(GraphError, match=r"backbone ends in stem.bn, a batch_norm; it has no classifier to replace"):
        with_classes(graph, 5)


def test_a_last_layer_that_another_follows_up_is_no_classifier():
    g = Builder(input=(8, 8, 3))
    x = g.conv(g.input, 4, kernel=3, name="stem")
    graph = g.graph(g.conv(x, 4, kernel=3, name="last"), features=x, name="dense_prediction")
    with pytest.raises(GraphError, match=r"dense_prediction: replacing last gives \(8, 8, 5\), not 5 classes"):
        with_classes(graph, 5)
    g = Builder(input=(8, 8, 3))
    x = g.conv(g.input, 4, kernel=3, name="stem")
    y = g.add(x, g.conv(x, 4, name="last"), name="sum")
    graph = g.graph(g.global_pool(y, name="pool"), features=y, name="residual")
    with pytest.raises(GraphError, match="sum: cannot add shapes"):
        with_classes(graph, 5)


@pytest.mark.parametrize("classes", [0, -1])
def test_no_classes(classes):
    with pytest.raises(GraphError, match="output features must be a whole number"):
        with_classes(tiny(), classes)


# --- resolution ----------------------------------------------------------------------------------------------------


FIXED = {"alexnet", "vgg16", "effnet_cifar"}  # dense layers that read a whole map


@pytest.mark.parametrize("size", [(97, 97), (128, 200), (225, 225), (299, 299)])
@pytest.mark.parametrize("name", [
    *sorted(set(CLASSIFIERS) - FIXED), "mobilenet_v1:padding=symmetric", "googlenet:variant=torchvision",
])  # fmt: skip
def test_it_is_what_the_registry_builds_at_that_size(name, size):
    """Padding follows: TensorFlow's SAME and Caffe's rounding up depend on the size, half the kernel does not."""
    model = zoo.parse(name)
    for start in (224, 225):
        graph = model.build(resolution=start)
        assert with_resolution(graph, size) == model.build(resolution=size)
        assert with_resolution(fold_graph(graph), size) == fold_graph(model.build(resolution=size))


def test_a_graph_of_ones_own_keeps_its_padding():
    changed = with_resolution(tiny(), (9, 11))
    assert changed.weights == tiny().weights
    assert [node.op for node in changed.nodes[1:]] == [node.op for node in tiny().nodes[1:]]


def test_so_does_one_that_only_has_the_name_of_another():
    graph = replace(tiny(), name="mobilenet_v1")
    assert [node.op for node in with_resolution(graph, (9, 11)).nodes[1:]] == [node.op for node in tiny().nodes[1:]]


def test_symmetric_padding_gives_the_registrys_network():
    """Padding does not depend on the size there, so that nothing else can come out."""
    for size in ((96, 96), (97, 131)):
        small = zoo.mobilenet_v2(padding="symmetric", resolution=64)
        assert with_resolution(small, size) == zoo.mobilenet_v2(padding="symmetric", resolution=size)


def test_it_computes_on_an_odd_plane():
    graph = with_resolution(tiny(), (11, 5))
    assert run(graph, random_weights(graph), images(graph)).shape == (2, 3)


@pytest.mark.parametrize(("name", "says"), [
    ("vgg16", "pool5: a 2x2 window does not fit"),
    ("squeezenet_1_1", "pool5: a 3x3 window does not fit"),
    ("alexnet", "conv2.pool: a 3x3 window does not fit"),
])  # fmt: skip
def test_the_first_layer_that_cannot_follow_is_named(name, says):
    with pytest.raises(GraphError, match=says):
        with_resolution(zoo.parse(name).build(), (16, 16))


@pytest.mark.parametrize("size", [(0, 8), (8, -1)])
def test_no_pixels(size):
    with pytest.raises(GraphError, match="whole numbers of at least 1"):
        with_resolution(tiny(), size)


# --- weights -------------------------------------------------------------------------------------------------------


def test_what_is_kept_is_what_still_fits():
    graph = tiny()
    weights = random_weights(graph)
    changed = with_classes(graph, 5)
    kept = keep(changed, weights)
    assert kept.keys() == graph.weights.keys() - {"classifier.weight", "classifier.bias"}
    assert all(kept[name] is weights[name] for name in kept)
    assert keep(graph, weights).keys() == graph.weights.keys()
    assert keep(graph, weights | {"other.weight": np.ones(3)}).keys() == graph.weights.keys()
    assert keep(graph, {}) == {}


def test_a_layer_of_another_shape_under_the_same_name_is_new():
    graph = tiny()
    wider = replace(graph, name="same names")
    weights = random_weights(wider) | {"stem.conv.weight": np.ones((8, 3, 3, 3), np.float32)}
    assert keep(graph, weights).keys() == graph.weights.keys() - {"stem.conv.weight"}


def test_the_network_computes_as_before_where_nothing_changed():
    graph = tiny()
    weights = random_weights(graph)
    changed = with_classes(graph, 3)
    np.testing.assert_array_equal(
        run(changed, keep(changed, weights), images(graph)), run(graph, weights, images(graph))
    )


def test_a_graph_without_weights():
    g = Builder(input=(8, 8, 3))
    with pytest.raises(GraphError, match="mean ends in global_pool1"):
        with_classes(g.graph(g.global_pool(g.input), features=g.input, name="mean"), 5)


@pytest.mark.parametrize(("model", "layer"), [("vgg16", "fc6"), ("alexnet", "fc6")])
def test_a_dense_layer_that_reads_a_map_cannot_follow(model, layer):
    with pytest.raises(GraphError, match=layer):
        with_resolution(zoo.parse(model).build(), (128, 128))


# --- weights on a grid ----------------------------------------------------------------------------------------------


def on_grids() -> Graph:
    """A convolution and a dense layer of stored integers, one grid entry per output."""
    g = Builder(input=(4, 4, 3))
    x = g.conv(g.input, 2, kernel=3, number="int8", grid=Grid((0.5, 0.25), (0, 1)), name="conv")
    y = g.dense(g.global_pool(x), 3, number="int8", grid=Grid((0.5,) * 3, (0,) * 3), name="fc")
    return g.graph(y, features=x, name="on_grids")


def test_a_new_classifier_is_float32_and_other_layers_keep_their_grids():
    changed = with_classes(on_grids(), 5)
    assert changed["fc"].op == ops.Dense(out=5)
    assert changed["conv"] == on_grids()["conv"]
    assert with_classes(on_grids(), 3) == on_grids()


def test_weights_of_another_number_type_are_not_kept():
    weights = random_weights(on_grids())
    plain = rewrite(on_grids(), ops={"conv": replace(on_grids()["conv"].op, number="float32", grid=None)})
    assert keep(on_grids(), weights).keys() == weights.keys()
    assert keep(plain, weights).keys() == weights.keys() - {"conv.weight"}


@pytest.mark.parametrize("make", [on_grids, every_number], ids=lambda make: make.__name__)
def test_an_input_turned_answers_turned_images_alike(make):
    graph = make()
    weights, batch = random_weights(graph), images(graph)
    turned, changed = with_input_turned(graph, weights)
    got, want = reference.run(turned, changed, batch[..., ::-1]), reference.run(graph, weights, batch)
    assert got.keys() == want.keys()
    for name, value in want.items():
        np.testing.assert_allclose(got[name], value, rtol=0, atol=1e-12)


def test_an_input_that_others_than_convolutions_read_is_turned_itself():
    g = Builder(input=(2, 2, 3))
    x = g.activation(g.input, "relu", name="channel_0")
    graph = g.graph(g.global_pool(x), features=x, name="relu")
    turned, _ = with_input_turned(graph, {})
    batch = images(graph)
    np.testing.assert_array_equal(run(turned, {}, batch), run(graph, {}, batch[..., ::-1]))


# --- detectors -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DETECTOR_MODELS)
def test_a_detector_for_other_classes_is_what_the_registry_builds(name):
    """New predictors of scores; every other weight keeps its name and shape."""
    model = zoo.parse(name)
    graph = model.build(resolution=128)
    changed = with_classes(graph, 3)
    assert changed == model.build(resolution=128, classes=3)
    assert with_classes(graph, 80) == graph
    new = {key for key in graph.weights if graph.weights[key] != changed.weights[key]}
    maps = 3 if name == "anchor_free" else 6
    assert new == {f"predict{i}.scores.conv.{key}" for i in range(1, maps + 1) for key in ("weight", "bias")}


def anchored(*, background: bool) -> Graph:
    """A detector of one's own: two anchors in each cell of 4x4, an activation between the predictor and its scores."""
    g = Builder(input=(8, 8, 3))
    x = g.conv(g.input, 4, kernel=3, stride=2, name="stem")
    scores = g.activation(g.rows(g.conv(x, 2 * 3, name="scores"), 3), "sigmoid")
    grid = ops.AnchorGrid(cells=(4, 4), sizes=((0.5, 0.5), (0.25, 0.5)), step=(0.25, 0.25))
    detect = ops.Detect(
        anchors=(grid,), score="none", background=background, centre="linear", size="exp", centre_scale=0.1,
        size_scale=0.2, y_first=False, clip=True, across=False, threshold=0.1, overlap=0.5, most=5,
    )  # fmt: skip
    coded = g.rows(g.conv(x, 2 * 4, name="codes"), 4)
    return g.graph(g.detections(detect, coded, scores), features=x, name="anchored")


@pytest.mark.parametrize("background", [True, False])
def test_classes_of_a_detector_are_those_of_objects(background):
    changed = with_classes(anchored(background=background), 7)
    columns = 7 + background
    assert changed["scores"].op == replace(anchored(background=background)["scores"].op, out=2 * columns)
    (found,) = (node for node in changed if isinstance(node.op, ops.Detect))
    assert changed[found.inputs[1]].shape == (32, columns)
    assert found.op.found_classes(changed[found.inputs[1]].shape) == 7
    with pytest.raises(GraphError, match="at least 1 class of objects, not 0"):
        with_classes(anchored(background=background), 0)


def test_scores_that_are_not_those_of_convolutions_cannot_be_replaced():
    graph = anchored(background=True)
    (found,) = (node for node in graph if isinstance(node.op, ops.Detect))
    g = Builder(input=(8, 8, 3))
    x = g.conv(g.input, 4, kernel=3, stride=2, name="stem")
    y = g.average_pool(x, kernel=2, stride=1, name="mean")
    coded, scores = g.rows(g.conv(x, 8), 4), g.rows(g.concat(y, y), 4)
    other = g.graph(g.detections(found.op, coded, scores), features=x, name="pooled")
    with pytest.raises(GraphError, match=r"^pooled: its class scores do not come from convolutions alone"):
        with_classes(other, 3)


def places(graph: Graph) -> np.ndarray:
    (op,) = (node.op for node in graph if isinstance(node.op, ops.Detect))
    return anchors(op)


@pytest.mark.parametrize("size", [(97, 97), (128, 200), (301, 299)])
@pytest.mark.parametrize("name", [*DETECTOR_MODELS, "ssd:backbone=squeezenet_1_1"])
def test_a_detector_of_another_size_is_what_the_registry_builds(name, size):
    model = zoo.parse(name)
    changed, wanted = with_resolution(model.build(), size), model.build(resolution=size)
    np.testing.assert_allclose(places(changed), places(wanted), rtol=1e-6)
    detect = {node.name for node in wanted if isinstance(node.op, ops.Detect)}
    assert [node for node in changed if node.name not in detect] == [node for node in wanted if node.name not in detect]


def test_anchors_of_ones_own_follow_their_map():
    """The input is twice as high: twice the rows of cells; anchors keep their shape in pixels."""
    graph = anchored(background=True)
    changed = with_resolution(graph, (16, 8))
    want = places(graph).reshape(4, 4, 2, 4)
    got = places(changed).reshape(8, 4, 2, 4)
    np.testing.assert_allclose(got[..., 0], np.concatenate([want, want])[..., 0], rtol=1e-6)
    np.testing.assert_allclose(got[:, 0, 0, 1], (np.arange(8) + 0.5) / 8, rtol=1e-6)
    np.testing.assert_allclose(got[0, 0, :, 2:], [[0.5, 0.25], [0.25, 0.25]], rtol=1e-6)


def test_steps_that_do_not_cover_the_input_are_pixels():
    graph = anchored(background=True)
    (found,) = (node for node in graph if isinstance(node.op, ops.Detect))
    (grid,) = found.op.anchors
    shifted = replace(grid, step=(3 / 8, 3 / 8), offset=0.25)
    graph = rewrite(graph, ops={found.name: replace(found.op, anchors=(shifted,))})
    got = places(with_resolution(graph, (16, 16))).reshape(8, 8, 2, 4)
    np.testing.assert_allclose(got[0, :, 0, 0], (np.arange(8) + 0.25) * 3 / 16, rtol=1e-6)


@pytest.mark.parametrize("name", ["ssdlite:width=0.35", "ssd:backbone=squeezenet_1_1"])
def test_a_folded_detector_finds_the_same(name):
    graph = zoo.parse(name).build(resolution=64, classes=2)
    weights = random_weights(graph)
    folded, changed = fold(graph, weights)
    assert not any(isinstance(node.op, ops.BatchNorm) for node in folded)
    assert folded.taps == graph.taps
    batch = images(graph)
    got, want = reference.run(folded, changed, batch), reference.run(graph, weights, batch)
    assert want["count"].min() > 0
    for key in want:
        np.testing.assert_allclose(got[key], want[key], rtol=1e-3, atol=1e-4)
