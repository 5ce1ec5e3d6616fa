"""Which forms the planner considers, and which it prefers, on a machine whose figures are known."""

from dataclasses import replace

import pytest

from planned_networks import context_of, layers_of, planned
from smallcnn.compiler.machines import models
from smallcnn.compiler.space import choices
from smallcnn.ir.builder import Builder


def pointwise(size, channels):
    g = Builder(input=(size, size, 3))
    x = g.conv(g.conv(g.input, channels, kernel=3), channels, name="pointwise")
    return g.graph(g.dense(g.global_pool(x), 10), features=x, name="pointwise")


@pytest.mark.parametrize(
    ("size", "target", "ahead"),
    [
        (7, "x86-64-linux-avx2", True),
        (20, "x86-64-linux-avx2", True),
        (28, "x86-64-linux-avx2", False),  # each weight is read for many pixels
        (1, "x86-64-linux-avx2", False),  # for one: there is no time to fetch the next
        (7, "x86-64-linux-vnni", True),
        (7, "arm-64-linux", False),
        (7, "wasm", False),
    ],
)
def test_small_maps_fetch_their_weights_ahead(size, target, ahead):
    graph = pointwise(size, 256)
    context = context_of(graph, target)
    calls = planned(graph, context)
    layers = next(call.layers for call in calls if any(layer.label == "pointwise" for layer in call.layers))
    last = [layers[-1]]
    assert {choice.tiles[0].ahead for choice in choices(last, context, 1)} == {ahead}


def test_a_chain_keeps_no_map_that_the_second_level_cannot_hold():
    """Two separable convolutions, as in Xception's second block. One thread of a Zen 4 takes 13.6, 13.4, 13.9, 14.6 and
    15.2 ms in strips of 1, 3, 6, 13 and 25 rows, 16.0 with the whole map."""
    g = Builder(input=(74, 74, 3))
    x = g.activation(g.conv(g.input, 128), "relu")
    for i in (1, 2):
        x = g.conv(g.depthwise(x, kernel=3, name=f"depthwise{i}"), 256, name=f"pointwise{i}")
        x = g.activation(x, "relu")
    graph = g.graph(g.dense(g.global_pool(x), 10), features=x, name="block")
    model = replace(models()["zen4-avx2"], third_level_bytes=1 << 24, third_level_bytes_per_ns=73.3)  # measured again
    calls = planned(graph, context_of(graph, model=model))
    rows = [call.choice.rows for call in calls if len(call.layers) >= 4]
    assert rows
    assert max(rows) <= 6


@pytest.mark.parametrize(
    ("size", "channels", "blocked"),
    [
        (14, 384, True),
        (14, 64, False),  # three rows fit the first level
        (56, 384, False),  # the map does not fit the second
        (5, 1024, True),
    ],
)
def test_rows_of_a_depthwise_layer_are_read_from_the_second_level_once(size, channels, blocked):
    g = Builder(input=(size, size, 3))
    x = g.depthwise(g.conv(g.input, channels), kernel=3, name="depthwise")
    graph = g.graph(g.dense(g.global_pool(x), 10), features=x, name="depthwise")
    model = models()["zen4-avx2"]
    context = context_of(graph, model=model)
    layer = next(layer for layer in layers_of(graph, context) if layer.label == "depthwise")
    blocks = {choice.tiles[0].block for choice in choices([layer], context, 1)}
    assert len(blocks) == 1
    (block,) = blocks
    assert (block > 0) == blocked
    assert 3 * size * 8 * 4 * block <= model.first_level_bytes
    assert channels // 8 % max(block, 1) == 0
