"""Detectors without their decision, and for other classes."""

import numpy as np
import pytest

from networks import tiny
from smallcnn.errors import GraphError
from smallcnn.ir.builder import Builder
from smallcnn.reference.floating import run
from smallcnn.reference.initial import initial_weights
from smallcnn.transform.adapt import with_classes
from smallcnn.transform.object_classes import score_weights
from smallcnn.transform.undecided import decision, undecided
from squares import detect, detector


def test_inputs_of_the_decision_become_outputs():
    graph = detector(3)
    learns = undecided(graph)
    assert {name: tensor.shape for name, tensor in learns.results.items()} == {"coded": (90, 4), "scores": (90, 4)}
    assert learns.weights == graph.weights
    assert learns.taps == graph.taps
    assert decision(graph) == detect()


def test_networks_that_are_no_plain_detectors_are_refused():
    with pytest.raises(GraphError, match="is not a detector"):
        undecided(tiny())
    g, op = Builder(input=(48, 48, 3)), detect()
    x = g.conv(g.input, 8, kernel=8, stride=8, name="stem")
    y = g.conv(x, 8, kernel=2, stride=2, name="next")

    def rows(columns, name):
        maps = [g.conv(one, 2 * columns, name=f"{name}{i}.conv") for i, one in enumerate((x, y))]
        return g.join(*(g.rows(one, columns, name=f"{name}{i}.rows") for i, one in enumerate(maps)), name=name)

    found = g.detections(op, rows(4, "code"), rows(3, "scored"), rows(1, "object"))
    with pytest.raises(GraphError, match="objectness"):
        undecided(g.graph(found, features=x))


@pytest.mark.parametrize("background", [True, False])
def test_chosen_classes_keep_their_scores(background):
    graph = detector(4, background=background)
    weights = initial_weights(graph, 0)
    rng = np.random.default_rng(0)
    for name in ("score0.conv.bias", "score1.conv.bias"):
        weights[name] = rng.standard_normal(weights[name].shape, np.float32)
    chosen = np.array([3, 1])
    fewer = with_classes(graph, 2)
    theirs = weights | score_weights(graph, chosen, weights)
    assert {name: value.shape for name, value in theirs.items()} == {n: w.shape for n, w in fewer.weights.items()}
    images = rng.standard_normal((1, 48, 48, 3), np.float32)
    before, after = run(undecided(graph), weights, images), run(undecided(fewer), theirs, images)
    columns = [*range(background), *(chosen + background)]
    np.testing.assert_array_equal(after["scores"], before["scores"][..., columns])
    np.testing.assert_array_equal(after["coded"], before["coded"])
