"""Layers solved again after channels have gone, held against least squares and against channels that are not missed."""

import numpy as np
import pytest

import networks
from smallcnn.ir.builder import Builder
from smallcnn.reference.floating import run
from smallcnn.transform.prune.remove import remove
from smallcnn.transform.prune.repair import repaired
from smallcnn.transform.prune.tied import places, tied
from smallcnn.transform.quantize.values import by_definition


def two_layers(*, norm):
    """(6, 6, 2) -> map (6, 6, 3): 8 channels, of which the last three are sums of the first ones."""
    g = Builder(input=(6, 6, 2))
    x = g.conv(g.input, 8, kernel=3, name="first")
    x = g.conv_bn(x, 3, kernel=3, activation=None, name="second") if norm else g.conv(x, 3, kernel=3, name="second")
    return g.graph({"map": x, "label": g.dense(g.global_pool(x), 2, name="out")}, features=x)


@pytest.mark.parametrize("norm", [True, False])
def test_channels_that_others_can_stand_for_are_not_missed(norm):
    graph = two_layers(norm=norm)
    weights, images = networks.random_weights(graph), networks.images(graph, 60)
    mix = np.random.default_rng(1).standard_normal((3, 5))
    weights["first.weight"][5:] = np.tensordot(mix, weights["first.weight"][:5], 1)
    gone = [one for one in tied(graph) if one.layers == ("first",)][5:]
    assert len(gone) == 3
    whole = run(graph, weights, images)
    changed = repaired(graph, weights, places(gone), images, by_definition)

    def error(weights):
        found = run(*remove(graph, weights, gone), images)["map"]
        return np.square(found - whole["map"]).mean() / whole["map"].var()

    assert error(weights) > 0.1
    assert error(changed) < 0.03  # the solution is held back a little, for little data


def test_a_layer_is_the_least_squares_solution():
    """Of all weights for the channels that are left, none has a much smaller error; the mean is exact."""
    graph = two_layers(norm=False)
    weights, images = networks.random_weights(graph), networks.images(graph, 60)
    gone = [one for one in tied(graph) if one.layers == ("first",)][:4]
    whole = run(graph, weights, images)["map"].reshape(-1, 3)

    def result(weights):
        return run(*remove(graph, weights, gone), images)["map"].reshape(-1, 3)

    found = result(repaired(graph, weights, places(gone), images, by_definition))
    np.testing.assert_allclose(found.mean(0), whole.mean(0), atol=1e-5)
    g = Builder(input=(6, 6, 2))
    x = g.conv(g.input, 4, kernel=3, name="first")
    left = g.graph({"map": x}, features=x)
    kept = {name: weights[name][4:] for name in left.weights}
    maps = np.pad(run(left, kept, images)["map"], ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(maps, (3, 3), (1, 2)).reshape(len(whole), -1)
    windows = np.column_stack([windows, np.ones(len(windows))])  # the bias
    solution, *_ = np.linalg.lstsq(windows, whole, rcond=None)
    least = np.square(windows @ solution - whole).mean()
    assert least <= np.square(found - whole).mean() < 1.05 * least
    assert np.square(result(weights) - whole).mean() > 1.5 * least
