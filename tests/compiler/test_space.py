"""Which forms the planner considers."""

import numpy as np
import pytest

from compiled_networks import model_of
from smallcnn.compiler import targets
from smallcnn.compiler.calls import Context, Normalisation
from smallcnn.compiler.lower import lower
from smallcnn.compiler.machines import packaged
from smallcnn.compiler.plan import plan
from smallcnn.compiler.space import choices
from smallcnn.ir.builder import Builder
from smallcnn.transform.fold import fold


def planned(graph, name):
    """The calls of a graph with random weights for a typical machine of a target, and their context."""
    target = targets.parse(name)
    one = np.ones(3, "f4")
    context = Context(target.machine, packaged(target), Normalisation(one, 0 * one), graph.input_shape)
    lowered = lower(*fold(graph, model_of(graph).weights), context.vector)
    return plan(*lowered, context, 1), context


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
    calls, context = planned(pointwise(size, 256), target)
    layers = next(call.layers for call in calls if any(layer.label == "pointwise" for layer in call.layers))
    last = [layers[-1]]
    assert {choice.tiles[0].ahead for choice in choices(last, context, 1)} == {ahead}
