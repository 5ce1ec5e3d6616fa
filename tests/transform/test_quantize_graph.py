"""The quantized network for given grids: where bytes lie, what vanishes, and what its integers compute."""

from itertools import pairwise

import numpy as np
import pytest

import networks
from smallcnn import zoo
from smallcnn.errors import GraphError
from smallcnn.ir import ops
from smallcnn.ir.builder import Builder
from smallcnn.ir.types import Grid
from smallcnn.reference import floating, integer
from smallcnn.reference.initial import check_weights, initial_weights
from smallcnn.transform.fold import fold_graph
from smallcnn.transform.quantize import find_edges, insert, ready
from smallcnn.transform.quantize.ranges import grid_between
from smallcnn.transform.quantize.stored import weight_grid
from smallcnn.transform.quantize.values import by_definition, walk


def min_max_grids(graph, weights, images):
    seen = {node.name: (float(v.min()), float(v.max())) for node, v in walk(graph, weights, images, by_definition)}
    grids = {}
    for group in find_edges(graph).groups:
        low, high = min(seen[name][0] for name in group), max(seen[name][1] for name in group)
        grids |= dict.fromkeys(group, grid_between(low, high))
    return grids


def snr(exact, near):
    return 10 * np.log10(np.square(exact).mean() / np.square(near - exact).mean())


def quantized(graph, keep_float=(), weights=None):
    weights = networks.random_weights(graph) if weights is None else weights
    images = networks.images(graph)
    plain, folded = ready(graph, weights)
    made, stored = insert(plain, folded, min_max_grids(plain, folded, images), keep_float)
    check_weights(made, stored, GraphError)
    exact = floating.run(graph, weights, images)
    near = integer.run(made, stored, images)
    return made, {name: snr(exact[name], near[name]) for name in exact}


def test_ready_changes_no_answer_and_leaves_no_norm():
    graph = networks.every_op()
    weights, images = networks.random_weights(graph), networks.images(graph)
    plain, folded = ready(graph, weights)
    check_weights(plain, folded, GraphError)
    assert not any(isinstance(node.op, ops.BatchNorm) for node in plain)
    assert plain["bn"].op == ops.Conv(out=8, groups=8)  # after a shuffle, which absorbs nothing
    want, got = (floating.answer(*network, images) for network in ((graph, weights), (plain, folded)))
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * np.abs(want).max())  # weights are float32


def test_a_norm_of_a_vector_becomes_a_diagonal_layer():
    g = Builder(input=(4, 4, 3))
    x = g.batch_norm(g.global_pool(g.input, name="pool"), name="norm")
    graph = g.graph(g.dense(x, 2, name="classifier"), features=x, name="vector")
    weights, images = networks.random_weights(graph), networks.images(graph)
    plain, folded = ready(graph, weights)
    assert np.count_nonzero(folded["norm.weight"]) == 3
    np.testing.assert_allclose(
        floating.answer(plain, folded, images), floating.answer(graph, weights, images), rtol=0, atol=1e-5
    )


def test_a_quantized_network_is_not_quantized_again():
    graph = networks.every_integer()
    with pytest.raises(GraphError, match="already quantized: bytes holds uint8"):
        ready(graph, networks.random_weights(graph))


def joined():
    """Two branches that are joined, bounded together and pooled; then a residual block."""
    g = Builder(input=(8, 8, 3))
    x = g.activation(g.conv(g.input, 4, kernel=3, name="stem"), "relu6", name="stem_act")
    left = g.conv(x, 4, name="left")
    right = g.activation(g.conv(x, 4, kernel=3, name="right"), "relu", name="right_act")
    x = g.activation(g.concat(left, right, name="join"), "relu", name="join_act")
    x = g.max_pool(x, kernel=2, stride=2, name="pool")
    y = g.activation(g.conv(x, 8, name="gate"), "hard_swish", name="swish")
    x = g.add(x, y, name="sum")
    x = g.concat(x, g.conv(x, 2, name="more"), name="again")
    return g.graph(g.dense(g.global_pool(x, name="mean"), 3, name="classifier"), features=x, name="joined")


def test_edges_are_named_after_the_activation_that_the_bytes_replace():
    graph = joined()
    assert find_edges(graph).names == ("input", "stem_act", "join_act", "gate", "swish", "sum", "more", "mean")
    assert find_edges(graph).groups == (
        ("input",), ("stem_act",), ("join_act",), ("gate",), ("swish",), ("sum", "more"), ("mean",),
    )  # fmt: skip


def test_activations_vanish_into_the_bytes_and_one_dequantize_is_left():
    made, found = quantized(joined())
    kinds = [node.op.kind for node in made]
    assert "activation" in kinds  # the hard-swish
    assert not any(isinstance(node.op, ops.Activation) and node.op.function != "hard_swish" for node in made)
    assert kinds.count("dequantize") == 1
    assert kinds[-1] == "dequantize"
    assert {node.op.number for node in made if isinstance(node.op, ops.Conv | ops.Dense)} == {"int8"}
    assert found["logits"] > 25


def test_bounds_stay_where_the_bytes_go_beyond_them():
    g = Builder(input=(4, 4, 3))
    x = g.activation(g.conv(g.input, 4, name="conv"), "relu6", name="act")
    graph = g.graph(g.dense(g.global_pool(x, name="pool"), 3, name="classifier"), features=x, name="bounded")
    weights = networks.random_weights(graph)
    grids = dict.fromkeys(find_edges(graph).names, Grid((8 / 255,), (10,)))  # from -0.31 to 7.69
    made, _ = insert(graph, weights, grids)
    assert made["act"].op == ops.Activation(function="relu6")
    within, _ = insert(graph, weights, dict.fromkeys(find_edges(graph).names, Grid((6 / 255,), (0,))))
    assert within["act"].op.kind == "quantize"


def test_joined_edges_must_share_a_grid():
    graph = joined()
    grids = {name: Grid((0.01 * (i + 1),), (0,)) for i, name in enumerate(find_edges(graph).names)}
    with pytest.raises(GraphError, match="sum and more must share a grid"):
        insert(graph, networks.random_weights(graph), grids)
    del grids["gate"]
    with pytest.raises(GraphError, match="no grid for gate"):
        insert(graph, networks.random_weights(graph), grids)


def test_integers_of_one_layer_are_those_of_the_formula():
    g = Builder(input=(1, 1, 2))
    x = g.activation(g.conv(g.input, 2, name="conv"), "relu", name="act")
    graph = g.graph(g.dense(g.global_pool(x, name="pool"), 1, name="classifier"), features=x, name="one")
    weights = {
        "conv.weight": np.array([[1.27, -0.5], [0.005, 0.02]], np.float32).reshape(2, 2, 1, 1),
        "conv.bias": np.array([0.3, -0.007], np.float32),
        "classifier.weight": np.ones((1, 2), np.float32),
        "classifier.bias": np.zeros(1, np.float32),
    }
    grids = {"input": Grid((0.5,), (4,)), "act": Grid((0.25,), (0,)), "pool": Grid((0.25,), (0,))}
    made, stored = insert(graph, weights, grids)
    assert made["conv"].op.grid.zero == (0, 0)
    np.testing.assert_allclose(made["conv"].op.grid.scale, [1.27 / 127, 0.02 / 127], rtol=1e-6)
    assert stored["conv.weight"].reshape(2, 2).tolist() == [[127, -50], [32, 127]]
    # 0.3 / (0.5 * 0.01) and -0.007 / (0.5 * 0.02 / 127)
    assert stored["conv.bias"].tolist() == [60, -89]
    image = np.array([1.6, -0.8]).reshape(1, 1, 1, 2)  # 3.2 and -1.6 steps: 3 and -2
    sums = np.array([127 * 3 + 50 * 2 + 60, 32 * 3 - 127 * 2 - 89])  # the relu takes the second
    byte = round(sums[0] * 0.5 * 0.01 / 0.25)
    assert integer.run(made, stored, image)["logits"][0, 0] == pytest.approx(byte * 0.25, abs=0.02)


FAMILIES = [
    "mobilenet_v1:width=0.25", "mobilenet_v2:width=0.25", "mobilenet_v3_small", "shufflenet_v1:scale=0.25",
    "shufflenet_v2:scale=0.5", "squeezenet_1_1", "effnet_cifar",
]  # fmt: skip
HEAVY = {"alexnet", "vgg16", "xception"}  # of the same operators as others, and up to 140 million weights


@pytest.mark.parametrize("name", sorted(set(zoo.names()) - HEAVY))
def test_every_network_of_the_zoo_has_a_quantized_form(name):
    graph = fold_graph(zoo.parse(name).build(classes=5))
    if any(isinstance(node.op, ops.BatchNorm) for node in graph):
        graph = ready(graph, initial_weights(graph))[0]
    kept = [node.name for node in graph if isinstance(node.op, ops.LocalResponseNorm)]
    grids = dict.fromkeys(find_edges(graph).names, Grid((0.02,), (0,)))
    zeros = {name: np.zeros(weight.shape, np.float32) for name, weight in graph.weights.items()}
    made, stored = insert(graph, zeros, grids, kept)
    check_weights(made, stored, GraphError)
    layers = [node for node in made if isinstance(node.op, ops.Conv | ops.Dense)]
    assert all(made[node.inputs[0]].tensor.number == "uint8" for node in layers)
    assert {result.number for result in made.results.values()} == {"float32"}
    ends = sum(isinstance(node.op, ops.Rows) for node in made) or 1  # each map's codes and scores, or the logits
    assert sum(isinstance(node.op, ops.Dequantize) for node in made) == ends + len(kept)


@pytest.mark.parametrize("name", FAMILIES)
def test_integers_follow_the_float_network(name):
    graph = zoo.parse(name).build(resolution=32, classes=5)
    _, found = quantized(graph)
    assert found["logits"] > 20  # dB, with random weights; 8 bits alone give about 50


def test_every_operator_follows_the_float_network():
    with pytest.raises(GraphError, match="lrn: a local_response_norm has no integer form; it can be kept in float"):
        quantized(networks.every_op())
    made, found = quantized(networks.every_op(), ["lrn"])
    assert made[made["lrn"].inputs[0]].op.kind == "dequantize"
    assert found["logits"] > 25


def test_a_chain_kept_in_float_has_no_bytes_in_it():
    made, found = quantized(joined(), ["stem", "left", "right"])
    assert made["stem"].op.number == "float32"
    assert made["stem_act"].op.kind == "activation"
    assert [node.name for node in made.consumers["stem_act"]] == ["left", "right"]
    assert found["logits"] > quantized(joined())[1]["logits"]
    with pytest.raises(GraphError, match="no node 'stern' to keep in float"):
        quantized(joined(), ["stern"])


def test_scales_of_weights_hold_every_bias_and_every_sum():
    source = Grid((0.001,), (3,))
    weight = np.stack([np.zeros(9), np.full(9, 1e-12), np.full(9, 0.127)]).reshape(3, 1, 3, 3)
    bias = np.array([2.0, -3.0, 0.0])
    grid = weight_grid(weight, bias, source)
    assert grid.scale[2] == pytest.approx(0.001)
    for offset, scale in zip(bias, grid.scale, strict=True):
        assert abs(offset) / (scale * 0.001) <= 2**30 * (1 + 1e-6)
    long = np.full((1, 100_000), 0.5)  # 100,000 * 127 * 252 is beyond int32
    (scale,) = weight_grid(long, None, source).scale
    assert 100_000 * round(0.5 / scale) * 252 < 2**31


def test_one_scale_for_all_outputs_is_the_largest():
    weight = np.array([[0.1, -0.2], [1.0, 0.3]])
    per_output = weight_grid(weight, None, Grid((1.0,), (0,)))
    assert weight_grid(weight, None, Grid((1.0,), (0,)), per_tensor=True).scale == (max(per_output.scale),)


def test_taps_stay_before_what_reads_them():
    graph = zoo.parse("mobilenet_v2:width=0.25").build(resolution=32, classes=5)
    made, _ = quantized(graph)
    order = [node.name for node in made]
    assert all(order.index(one) < order.index(other) for one, other in pairwise(made.taps))
    assert made[made.features].tensor.number == "uint8"
