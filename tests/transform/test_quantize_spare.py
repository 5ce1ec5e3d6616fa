"""Spare channels: what they copy, that nothing changes in float, and that rounding costs less; gains of noise."""

from dataclasses import replace

import numpy as np
import pytest

import networks
from artifacts import artifact
from smallcnn.image.fit import Preprocessing
from smallcnn.ir.builder import Builder
from smallcnn.ir.types import Grid
from smallcnn.reference import floating, integer
from smallcnn.transform.quantize import Settings, find_edges, quantize
from smallcnn.transform.quantize.gains import noise_gains
from smallcnn.transform.quantize.reach import channels
from smallcnn.transform.quantize.spare import apart, with_copies
from smallcnn.transform.quantize.values import by_definition, walk

DEAD = -100.0
"""A bias that no image overcomes."""


def separable(function="relu6", seed=0):
    """A network whose stem has two dead channels, 1 and 5, and whose depthwise layer a third, 2."""
    g = Builder(input=(9, 9, 3))
    x = g.activation(g.conv(g.input, 8, kernel=3, bias=True, name="stem"), function, name="stem_act")
    x = g.activation(g.depthwise(x, kernel=3, bias=True, name="depthwise"), function, name="depthwise_act")
    x = g.activation(g.conv(x, 6, bias=True, name="pointwise"), function, name="pointwise_act")
    x = g.global_pool(x, name="pool")
    graph = g.graph(g.dense(x, 4, name="classifier"), features=x, name="separable")
    weights = networks.random_weights(graph, seed)
    for name in ("stem", "depthwise"):  # between 0 and 6
        weights[f"{name}.weight"] *= 0.1
        weights[f"{name}.bias"] = np.full(8, 3, np.float32)  # so a constant 3 comes from dead channels
    weights["stem.bias"][[1, 5]] = DEAD
    weights["depthwise.bias"][2] = DEAD
    return graph, weights


def found(graph, weights, images):
    return channels(graph, weights, images, by_definition, lambda done, total: None)


@pytest.mark.parametrize("function", ["relu", "relu6"])
def test_copies_change_no_answer(function):
    graph, weights = separable(function)
    images = networks.images(graph, 4)
    copied = with_copies(graph, weights, found(graph, weights, images), ())
    want = floating.answer(graph, weights, images)
    got = floating.answer(graph, copied.weights, images)
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * np.abs(want).max())
    assert set(copied.offsets) == {"stem", "depthwise"}
    filters = copied.weights["stem.weight"].reshape(8, -1)
    for dead in (1, 2, 5):
        source = [i for i in (0, 3, 4, 6, 7) if (filters[i] == filters[dead]).all()]
        assert len(source) == 1
        for name in ("stem", "depthwise"):  # equal parts of a step lie between a channel and its copies
            parts = copied.offsets[name][(filters == filters[dead]).all(1)]
            np.testing.assert_allclose(np.sort(parts), np.arange(len(parts)) / len(parts))
    for alive in (0, 3, 4, 6, 7):
        np.testing.assert_array_equal(copied.weights["stem.weight"][alive], weights["stem.weight"][alive])


def test_constants_of_a_depthwise_layer_are_not_moved_past_a_border():
    """At a border, padded windows hold zeros, too."""
    g = Builder(input=(9, 9, 3))
    x = g.activation(g.conv(g.input, 8, kernel=3, bias=True, name="stem"), "relu6", name="stem_act")
    x = g.activation(g.depthwise(x, kernel=3, bias=True, name="depthwise"), "relu6", name="depthwise_act")
    x = g.conv(x, 6, kernel=3, bias=True, name="last")
    graph = g.graph(g.flatten(x, name="flat"), features=x, name="bordered")
    weights = separable()[1] | {
        name: value for name, value in networks.random_weights(graph).items() if name.startswith("last")
    }
    weights = {name: weights[name] for name in graph.weights}
    images = networks.images(graph, 4)
    copied = with_copies(graph, weights, found(graph, weights, images), ())
    want, got = (floating.answer(graph, values, images) for values in (weights, copied.weights))
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * np.abs(want).max())


def test_numbers_that_are_apart_change_no_answer_inside_the_bounds():
    graph, weights = separable("relu")
    weights["stem.bias"] = np.where(weights["stem.bias"] > 0, 50, weights["stem.bias"])
    weights["depthwise.weight"] = np.abs(weights["depthwise.weight"])  # so that all results but dead ones are above 0
    images = networks.images(graph, 4)
    copied = with_copies(graph, weights, found(graph, weights, images), ())
    grids = dict.fromkeys(find_edges(graph).names, Grid((0.5,), (0,)))
    moved = apart(graph, copied.weights, copied.offsets, grids)
    before, after = ({n.name: v for n, v in walk(graph, w, images, by_definition)} for w in (copied.weights, moved))
    inner = (slice(None), slice(2, -2), slice(2, -2))  # a padded border is no part of the promise
    shift = after["stem_act"][inner] - before["stem_act"][inner]
    np.testing.assert_allclose(
        shift[before["stem_act"][inner] > 0.1].max(), 0.5 * max(copied.offsets["stem"]), rtol=1e-4
    )
    np.testing.assert_allclose(after["pointwise"][inner], before["pointwise"][inner], rtol=0, atol=1e-4)


def test_two_copies_have_a_quarter_of_the_error():
    """Weights of one magnitude are exact as int8, so that all error is that of the stem's bytes: step**2 / 12 each."""
    g = Builder(input=(8, 8, 3))
    x = g.activation(g.conv(g.input, 8, bias=True, name="stem"), "relu", name="stem_act")
    x = g.conv(x, 5, kernel=8, padding=0, bias=True, name="last")
    graph = g.graph(g.flatten(x, name="flat"), features=x, name="copied")
    weights = {name: np.sign(value) for name, value in networks.random_weights(graph).items()}
    weights["stem.bias"] = np.array([9, DEAD, 9, DEAD, 9, DEAD, 9, DEAD], np.float32)  # far above 0: steps are wide
    half = Preprocessing((8, 8), (0.5,) * 3, (0.5,) * 3)
    model = replace(artifact(graph), weights=weights, preprocessing=half)
    images = np.random.default_rng(0).integers(0, 256, (64, 8, 8, 3), np.uint8)
    want = floating.answer(graph, weights, half.normalise(images))

    def noise(*, copies):
        settings = Settings(ranges="min-max", equalise=False, compensate=False, copy_channels=copies)
        made, _ = quantize(model, images, settings)
        got = integer.run(made.graph, made.weights, made.preprocessing.normalise(images))["logits"]
        return np.square(got - want).mean()

    step = 12 / 255  # at most 9 and three pixels of 1
    assert noise(copies=False) == pytest.approx(4 * 64 * step**2 / 12, rel=0.3)
    assert noise(copies=True) == pytest.approx(4 * 64 * step**2 / 48, rel=0.3)


def test_numbers_that_are_often_zero_are_not_apart():
    graph, weights = separable()
    images = networks.images(graph, 4)
    assert with_copies(graph, weights, found(graph, weights, images), ()).offsets["stem"].any()
    weights["stem.bias"] = np.where(weights["stem.bias"] > 0, 0, DEAD)  # half of the numbers are below 0
    offsets = with_copies(graph, weights, found(graph, weights, images), ()).offsets
    assert not offsets["stem"].any()
    assert offsets["depthwise"].any()


def test_layers_that_stay():
    graph, weights = separable()
    images = networks.images(graph, 4)
    alive = weights | {"stem.bias": np.full(8, 2, np.float32), "depthwise.bias": np.full(8, 1, np.float32)}
    assert not with_copies(graph, alive, found(graph, alive, images), ()).offsets
    assert not with_copies(graph, weights, found(graph, weights, images), ("depthwise",)).offsets


def test_gains_are_squared_derivatives():
    """Where a single way leads from a number to each output, gains are the mean over positions of its derivatives'."""
    rng = np.random.default_rng(0)
    g = Builder(input=(4, 4, 6))
    few, many = g.split(g.conv(g.input, 6, stride=2, name="conv"), (2, 4), name="split")
    x = g.shuffle(g.concat(many, g.activation(few, "relu", name="relu"), name="join"), 2, name="shuffle")
    x = g.global_pool(x, name="pool")
    graph = g.graph(g.dense(x, 6, name="dense"), features=x, name="ways")
    weights = {
        "conv.weight": (np.eye(6)[rng.permutation(6)] * rng.uniform(1, 2, 6))[:, :, None, None],
        "dense.weight": np.eye(6)[rng.permutation(6)] * rng.uniform(1, 2, 6),
        "conv.bias": np.full(6, 50.0),
        "dense.bias": np.zeros(6),
    }
    weights = {name: value.astype(np.float32) for name, value in weights.items() if name in graph.weights}
    image = rng.uniform(0, 1, (1, 4, 4, 6))
    base = floating.answer(graph, weights, image)
    squares = np.zeros((4, 4, 6))
    for place in np.ndindex(4, 4, 6):
        moved = image.copy()
        moved[0][place] += 1
        squares[place] = np.square(floating.answer(graph, weights, moved) - base).sum()
    gains = noise_gains(graph, weights, {"relu": np.ones(2)})
    np.testing.assert_allclose(gains["input"], squares.mean((0, 1)), rtol=1e-4)
