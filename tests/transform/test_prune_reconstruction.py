"""The criterion reconstruction, held against least squares without each set."""

import numpy as np
import pytest

import networks
from smallcnn.errors import GraphError
from smallcnn.ir.builder import Builder
from smallcnn.reference.floating import run
from smallcnn.transform.prune.reconstruction import reconstruction
from smallcnn.transform.prune.tied import families, tied
from smallcnn.transform.quantize.values import by_definition


def network(groups=1):
    """(5, 5, 2) -> two maps (5, 5, 4) that read 6 channels: through 3x3 and, of a depthwise layer, through 1x1."""
    g = Builder(input=(5, 5, 2))
    x = g.conv(g.input, 6, kernel=3, name="first")
    y = g.depthwise(x, kernel=3, name="depthwise")
    maps = {"a": g.conv(x, 4, kernel=3, groups=groups, name="a"), "b": g.conv(y, 4, name="b")}
    return g.graph(maps, features=x)


@pytest.mark.parametrize("groups", [1, 2])
def test_scores_are_what_least_squares_loses(groups):
    graph = network(groups)
    weights, images = networks.random_weights(graph), networks.images(graph, 200)
    sets = tied(graph)
    assert len(sets) == 6 // groups
    scores = reconstruction(graph, weights, sets, images, by_definition)
    g = Builder(input=(5, 5, 2))
    x = g.conv(g.input, 6, kernel=3, name="first")
    maps = run(g.graph({"x": x, "y": g.depthwise(x, kernel=3, name="depthwise")}, features=x), weights, images)
    padded = np.pad(maps["x"], ((0, 0), (1, 1), (1, 1), (0, 0)))
    seen = {
        "a": np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2)).reshape(-1, 6, 9),
        "b": maps["y"].reshape(-1, 6, 1),
    }
    wanted = {name: value.reshape(-1, 4) for name, value in run(graph, weights, images).items()}

    def lost(gone):
        """The share of both maps' variance that the best weights for the other channels leave."""
        total = 0.0
        kept = np.setdiff1d(np.arange(6), [c for one in gone for c in sets[one].channels["first"]])
        for name, target in wanted.items():
            parts = groups if name == "a" else 1
            centred = target - target.mean(0)
            error = 0.0
            for part, outputs in enumerate(np.split(centred, parts, axis=1)):
                windows = seen[name][:, kept[kept * parts // 6 == part]].reshape(len(target), -1)
                windows = windows - windows.mean(0)
                solution, *_ = np.linalg.lstsq(windows, outputs, rcond=None)
                error += np.square(outputs - windows @ solution).sum()
            total += error / np.square(centred).sum()
        return total

    gone = []
    for _ in range(2):  # the first two that go
        least = min((one for one in range(len(sets)) if one not in gone), key=lambda one: lost([*gone, one]))
        assert np.argsort(scores)[len(gone)] == least
        assert scores[least] == pytest.approx(lost([*gone, least]) - lost(gone), rel=0.1)  # held back a little
        gone.append(least)
    assert [len(family) for family in families(sets)] == [len(sets)]


def test_a_channel_that_others_can_stand_for_scores_nothing():
    graph = network()
    weights, images = networks.random_weights(graph), networks.images(graph, 100)
    weights["depthwise.weight"][:] = weights["depthwise.weight"][0]  # else it sees what the sum cannot
    weights["first.weight"][4] = weights["first.weight"][1] - 2 * weights["first.weight"][2]
    scores = reconstruction(graph, weights, tied(graph), images, by_definition)
    assert sorted(scores)[0] < 0.3 * sorted(scores)[1]
    assert scores.argmin() in (1, 2, 4)


def test_a_layer_too_large_for_a_covariance_is_named():
    g = Builder(input=(24, 24, 1))
    x = g.conv(g.input, 10, name="first")
    graph = g.graph(g.dense(g.flatten(x), 2, name="large"), features=x)
    with pytest.raises(GraphError, match="large has too many inputs"):
        reconstruction(graph, networks.random_weights(graph), tied(graph), networks.images(graph, 2), by_definition)
