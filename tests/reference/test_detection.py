"""The definition of detection against plain loops, and its rules one by one."""

from dataclasses import replace
from math import exp, tanh

import numpy as np
import pytest

from smallcnn.errors import GraphError
from smallcnn.ir import ops
from smallcnn.ir.builder import Builder
from smallcnn.ir.graph import Graph
from smallcnn.reference.detection import anchors, decoded, detect
from smallcnn.tasks.detection import Detection

GRIDS = (
    ops.AnchorGrid(cells=(2, 3), sizes=((0.3, 0.2), (0.5, 0.5)), step=(1 / 2, 1 / 3)),
    ops.AnchorGrid(cells=(1, 1), sizes=((0.9, 0.8),), step=(1.0, 1.0)),
)
SSD = ops.Detect(
    anchors=GRIDS, score="sigmoid", background=False, centre="linear", size="exp", centre_scale=0.1, size_scale=0.2,
    y_first=True, clip=False, across=False, threshold=0.3, overlap=0.5, most=20,
)  # fmt: skip
N = 13


def test_anchors_lie_row_by_row_and_in_each_cell_in_the_order_of_sizes():
    found = anchors(SSD)
    assert found.shape == (N, 4)
    np.testing.assert_allclose(found[0], [1 / 6, 1 / 4, 0.3, 0.2], rtol=1e-6)
    np.testing.assert_allclose(found[3], [1 / 2, 1 / 4, 0.5, 0.5], rtol=1e-6)  # second cell of the first row
    np.testing.assert_allclose(found[6], [1 / 6, 3 / 4, 0.3, 0.2], rtol=1e-6)  # first cell of the second row
    np.testing.assert_allclose(found[12], [0.5, 0.5, 0.9, 0.8], rtol=1e-6)


@pytest.mark.parametrize("size", ["exp", "linear", "sigmoid"])
@pytest.mark.parametrize("centre", ["linear", "tanh"])
@pytest.mark.parametrize("y_first", [True, False])
def test_decodes_as_the_formula_says(size, centre, y_first):
    op = replace(SSD, size=size, centre=centre, y_first=y_first)
    code = np.random.default_rng(0).normal(size=(N, 4)).astype(np.float32)
    for (cx, cy, w, h), values, box in zip(anchors(op), code, decoded(op, code), strict=True):
        x, y, wide, high = values[[1, 0, 3, 2]] if y_first else values
        f = tanh if centre == "tanh" else float
        g = {"exp": exp, "linear": lambda v: max(v, 0), "sigmoid": lambda v: 1 / (1 + exp(-v))}[size]
        right, down = cx + f(x) * 0.1 * w, cy + f(y) * 0.1 * h
        across, along = g(0.2 * wide) * w / 2, g(0.2 * high) * h / 2
        wanted = [right - across, down - along, right + across, down + along]
        np.testing.assert_allclose(box, wanted, rtol=1e-4, atol=1e-6)


def plain(op, boxes, scores):
    """Greedy suppression with loops, over all classes: (class, anchor) of what is kept, and its score."""

    def iou(a, b):
        wide, high = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
        shared = max(wide, 0) * max(high, 0)
        return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)

    everything = [
        (-scores[anchor, number], number, anchor)
        for anchor in range(len(boxes))
        for number in range(scores.shape[1])
        if scores[anchor, number] > op.threshold and (not op.across or number == scores[anchor].argmax())
    ]
    kept = []
    for score, number, anchor in sorted(everything, key=lambda one: (one[0], one[2])):
        rivals = [other for _, theirs, other in kept if op.across or theirs == number]
        if all(iou(boxes[anchor], boxes[other]) <= op.overlap for other in rivals):
            kept.append((score, number, anchor))
    kept = kept[: op.most] if op.across else kept  # by itself, a class gives its best in this order anyway
    return [(number, anchor, -score) for score, number, anchor in sorted(kept)[: op.most]]


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("across", [True, False])
def test_keeps_what_plain_loops_keep(across, seed):
    rng = np.random.default_rng(seed)
    op = replace(SSD, across=across, score="none", overlap=rng.choice([0.1, 0.3, 0.6]), most=int(rng.integers(1, 20)))
    code = rng.normal(size=(N, 4)).astype(np.float32)
    scores = np.round(rng.uniform(size=(N, 4)), 1).astype(np.float32)  # many ties
    boxes = decoded(op, code)
    wanted = plain(op, boxes.astype(float), scores)
    found = detect(op, code, scores)
    assert [(int(row[5]), pytest.approx(row[4])) for row in found[: len(wanted)]] == [
        (number, score) for number, _, score in wanted
    ]
    np.testing.assert_array_equal(found[: len(wanted), :4], boxes[[anchor for _, anchor, _ in wanted]])
    assert not found[len(wanted) :].any()


def test_background_is_never_found():
    op = replace(SSD, score="softmax", background=True, threshold=0.01)
    scores = np.full((N, 3), -9.0, np.float32)
    scores[:, 0] = 9
    scores[4] = [0, 1, 3]
    (best, second, *rest) = detect(op, np.zeros((N, 4), np.float32), scores)
    total = exp(0) + exp(1) + exp(3)
    assert (best[5], second[5]) == (1, 0)
    np.testing.assert_allclose([best[4], second[4]], [exp(3) / total, exp(1) / total], rtol=1e-5)
    assert not np.any(rest)


def test_objectness_joins_by_its_power():
    op = replace(SSD, score="none", objectness_power=0.6, threshold=0.0)
    scores, objectness = np.zeros((N, 2), np.float32), np.full((N, 1), 0.5, np.float32)
    scores[3, 1] = 0.7
    found = detect(op, np.zeros((N, 4), np.float32), scores, objectness)
    np.testing.assert_allclose(found[0, 4:], [0.5**0.6 * 0.7**0.4, 1], rtol=1e-5)


def test_nothing_is_found_in_what_is_not_a_number_and_huge_codes_stay_finite():
    code, scores = np.full((N, 4), 1e30, np.float32), np.full((N, 2), np.nan, np.float32)
    assert not detect(SSD, code, scores).any()
    with np.errstate(all="raise"):
        assert np.isfinite(detect(replace(SSD, clip=True), np.full((N, 4), 1e6, np.float32), np.zeros((N, 2)))).all()


def test_a_detector_is_a_graph_with_four_outputs():
    g = Builder(input=(16, 24, 3), name="tiny")
    x = g.conv(g.input, 8, kernel=3, stride=8, name="body")
    codes = [g.rows(g.conv(x, 8, name="code"), 4), g.rows(g.conv(g.max_pool(x, kernel=(2, 3), stride=3), 4), 4)]
    scores = [g.rows(g.conv(x, 6, name="score"), 3), g.rows(g.conv(g.max_pool(x, kernel=(2, 3), stride=3), 3), 3)]
    outputs = g.detections(SSD, g.join(*codes), g.join(*scores))
    graph = g.graph(outputs, features=x)
    Detection(("a", "b", "c")).check(graph.results)
    assert Graph.from_json(graph.to_json()) == graph
    assert graph["detect.found"].shape == (20, 6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"anchors": ()}, "at least one grid"),
        ({"score": "softmin"}, "no score 'softmin'; closest: softmax"),
        ({"overlap": 1.5}, "overlap must be from 0 to 1, not 1.5"),
        ({"most": 0}, "most must be a whole number"),
        ({"centre_scale": 0.0}, "centre_scale must be a number above 0"),
    ],
)
def test_refuses_attributes_out_of_range(change, message):
    with pytest.raises(GraphError, match=message):
        replace(SSD, **change)


def test_refuses_inputs_that_do_not_fit_the_anchors():
    with pytest.raises(GraphError, match=r"13 anchors need a code of \(13, 4\), not \(12, 4\)"):
        SSD.output_shape((12, 4), (13, 2))
    with pytest.raises(GraphError, match="need scores"):
        replace(SSD, background=True).output_shape((13, 4), (13, 1))


@pytest.mark.parametrize("across", [True, False])
def test_the_best_boxes_may_all_be_one_object(across):
    """Far more boxes than are looked at first lie on each other; the few others have the lowest scores."""
    cells = 20
    grid = ops.AnchorGrid(cells=(cells, cells), sizes=((0.9 / cells, 0.9 / cells),), step=(1 / cells, 1 / cells))
    op = replace(SSD, anchors=(grid,), score="none", across=across, threshold=0.1, most=4)
    code, scores = np.zeros((cells**2, 4), np.float32), np.zeros((cells**2, 2), np.float32)
    scores[:, 1] = np.linspace(0.9, 0.2, cells**2)
    places = anchors(op)
    code[:-3, 1::-1] = (places[0, :2] - places[:-3, :2]) / (0.1 * places[:-3, 2:])  # all but three on the first anchor
    found = detect(op, code, scores)
    np.testing.assert_array_equal(found[:, 4], scores[[0, -3, -2, -1], 1])
    np.testing.assert_allclose(found[0, :2], [0.05 / cells, 0.05 / cells], atol=1e-5)
