"""Calibration error and temperature against formulas written out, scikit-learn and torch."""

import numpy as np
import pytest
import torch
from sklearn.calibration import calibration_curve

from artifacts import artifact
from networks import images, tiny
from smallcnn import zoo
from smallcnn.analysis.calibration import BINS, calibrate, calibrated, fit_temperature, reliability
from smallcnn.errors import GraphError
from smallcnn.ir.builder import Builder
from smallcnn.reference.floating import answer as run
from smallcnn.tasks.metrics import measure
from smallcnn.transform.adapt import classifier


def overconfident(count=2000, classes=10, factor=3.0, seed=0):
    """Labels drawn from the softmax of logits that are then multiplied by `factor`: its temperature is the factor."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, (count, classes))
    powers = np.exp(logits)
    labels = (rng.random((count, 1)) > np.cumsum(powers / powers.sum(1, keepdims=True), 1)).sum(1)
    return (factor * logits).astype(np.float32), np.minimum(labels, classes - 1)


def test_the_error_of_four_pictures_by_hand():
    # two classes; the probability of the answer is 0.9 (right), 0.9 (wrong), 0.62 (right), 0.7 (wrong): bins 14, 10, 11
    chosen = np.array([0.9, 0.9, 0.62, 0.7])
    found = reliability(np.log(np.stack([chosen, 1 - chosen], 1)), np.array([0, 1, 0, 1]))
    assert found.count.nonzero()[0].tolist() == [9, 10, 13]
    assert (found.count[13], found.accuracy[13]) == (2, 0.5)
    assert found.error == pytest.approx((2 * 0.4 + 0.38 + 0.7) / 4)
    assert found.loss == pytest.approx(-np.log([0.9, 0.1, 0.62, 0.3]).mean())


def test_a_probability_of_one_is_in_the_last_bin():
    assert reliability(np.array([[800.0, 0.0]]), np.array([0])).count[-1] == 1


def test_bins_agree_with_scikit_learn():
    logits, labels = overconfident()
    found = reliability(logits, labels)
    probabilities = torch.softmax(torch.tensor(logits, dtype=torch.float64), 1).numpy()
    right = probabilities.argmax(1) == labels
    accuracy, confidence = calibration_curve(right, probabilities.max(1), n_bins=BINS)
    seen = found.count > 0
    np.testing.assert_allclose(found.accuracy[seen], accuracy, rtol=1e-12)
    np.testing.assert_allclose(found.confidence[seen], confidence, rtol=1e-12)
    assert found.error == pytest.approx(np.abs(accuracy - confidence) @ found.count[seen] / len(labels), rel=1e-12)


@pytest.mark.parametrize("factor", [0.3, 1.0, 4.0])
def test_the_temperature_is_that_of_torch(factor):
    logits, labels = overconfident(200, factor=factor)
    z, y = torch.tensor(logits, dtype=torch.float64), torch.tensor(labels)
    log_temperature = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([log_temperature], max_iter=200, tolerance_grad=1e-12, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(z / log_temperature.exp(), y)
        loss.backward()
        return loss

    optimizer.step(closure)
    assert fit_temperature(logits, labels) == pytest.approx(log_temperature.exp().item(), rel=1e-5)  # a flat minimum


def test_scaling_mends_what_is_overconfident():
    logits, labels = overconfident(6000, factor=3.0)
    found = calibrate(logits, labels)
    assert found.temperature == pytest.approx(3.0, rel=0.05)  # 6000 labels say it to a few per cent
    assert found.before.error > 0.2
    assert found.after.error < 0.03
    assert found.after.loss < found.before.loss


def test_what_comes_after_is_measured_on_the_other_half():
    # every second image too sure, the others not sure enough: each half's temperature harms the other
    even, odd = overconfident(400, factor=0.5, seed=1), overconfident(400, factor=5.0, seed=2)
    logits = np.stack([even[0], odd[0]], 1).reshape(800, -1)
    labels = np.stack([even[1], odd[1]], 1).reshape(-1)
    want = [measure(half[0] / fit_temperature(*other), half[1]).loss for half, other in ((even, odd), (odd, even))]
    found = calibrate(logits, labels)
    assert found.after.loss == pytest.approx(np.mean(want), rel=1e-6)
    assert measure(logits / found.temperature, labels).loss < found.before.loss < found.after.loss


def right_always(count):
    return np.eye(3, dtype=np.float32)[np.arange(count) % 3], np.arange(count) % 3


@pytest.mark.parametrize(
    ("logits", "labels"),
    [
        right_always(1),
        right_always(30),
        (np.array([[1.0, 0.0]]), np.array([1])),  # one image, wrong
        (np.zeros((20, 4)), np.arange(20) % 4),  # logits that say nothing
    ],
)
def test_pictures_that_determine_no_temperature(logits, labels):
    found = calibrate(logits, labels)
    assert (found.temperature, found.after) == (None, None)
    assert found.before.count.sum() == len(labels)


def clipped_logits():
    """As from an 8-bit file: the dense layer's result is bounded."""
    g = Builder(input=(6, 6, 3))
    x = g.conv_bn(g.input, 4, kernel=3, name="stem")
    y = g.dense(g.global_pool(x, name="pool"), 3, name="classifier")
    return g.graph(g.clip(y, 0.8, 2.4, name="bounds"), features=x, name="clipped")  # some below, some above


HEADS = {
    "dense": tiny(),
    "convolution, relu, mean": zoo.squeezenet_1_1(resolution=64, classes=7),
    "dense, clip": clipped_logits(),
}


@pytest.mark.parametrize("graph", HEADS.values(), ids=HEADS)
def test_a_calibrated_network_gives_divided_logits(graph):
    before = artifact(graph)
    after = calibrated(before, 2.5)
    x = images(graph, count=8)
    want = run(before.graph, before.weights, x) / 2.5
    got = run(after.graph, after.weights, x)
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-6 * np.abs(want).max())  # one float32 rounding per weight
    changed = {name for name in before.weights if not np.array_equal(before.weights[name], after.weights[name])}
    assert {name.rpartition(".")[0] for name in changed} == {classifier(graph).name}


def test_a_bounded_end_is_refused():
    g = Builder(input=(4, 4, 3))
    y = g.dense(g.global_pool(g.input, name="pool"), 3, name="classifier")
    graph = g.graph(g.activation(y, "relu6", name="bounded"), features=g.input, name="odd")
    with pytest.raises(GraphError, match=r"cannot be calibrated: bounded \(activation\) after"):
        calibrated(artifact(graph), 2.0)
