"""Counting right answers, against scikit-learn."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smallcnn.tasks.metrics import measure


@pytest.mark.parametrize("classes", [2, 6, 10, 100])
def test_agrees_with_scikit_learn(classes):
    sk = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(classes)
    logits = rng.normal(0, 20, (500, classes)).astype(np.float32)
    labels = np.where(rng.random(500) < 0.5, logits.argmax(1), rng.integers(0, classes, 500))
    got = measure(logits, labels)
    every = np.arange(classes)
    assert got.images == 500
    assert got.top1 == sk.accuracy_score(labels, logits.argmax(1))
    if classes > 5:
        assert got.top5 == sk.top_k_accuracy_score(labels, logits, k=5, labels=every)
    np.testing.assert_array_equal(got.confusion, sk.confusion_matrix(labels, logits.argmax(1), labels=every))
    exact = np.longdouble(logits)
    probabilities = np.exp(exact) / np.exp(exact).sum(1, keepdims=True)
    want = -np.log(probabilities[np.arange(500), labels]).mean()
    assert got.loss == pytest.approx(float(want), rel=1e-12)


def test_huge_logits_do_not_overflow():
    assert measure(np.array([[1e4, 0.0], [0.0, 1e4]]), np.array([0, 0])).loss == 5e3


@st.composite
def coarse(draw):
    """Few different logits, as from an int8 network: ties everywhere."""
    count, classes = draw(st.integers(1, 8)), draw(st.integers(2, 8))
    logits = draw(st.lists(st.integers(-1, 2), min_size=count * classes, max_size=count * classes))
    labels = draw(st.lists(st.integers(0, classes - 1), min_size=count, max_size=count))
    return np.array(logits, np.float32).reshape(count, classes), np.array(labels)


@given(coarse(), st.randoms(use_true_random=False))
def test_ties_count_against_the_network_whatever_the_order_of_classes(case, random):
    logits, labels = case
    got = measure(logits, labels)
    better = [sorted(row, reverse=True) for row in logits.tolist()]
    alone = [row[0] == logits[i, labels[i]] > row[1] for i, row in enumerate(better)]
    among5 = [len(row) <= 5 or logits[i, labels[i]] > row[5] for i, row in enumerate(better)]
    assert (got.top1, got.top5) == (np.mean(alone), np.mean(among5))
    assert np.trace(got.confusion) == sum(alone)
    np.testing.assert_array_equal(got.confusion.sum(1), np.bincount(labels, minlength=logits.shape[1]))

    order = list(range(logits.shape[1]))
    random.shuffle(order)
    other = measure(logits[:, order], np.argsort(order)[labels])
    assert (other.top1, other.top5) == (got.top1, got.top5)


def test_not_a_number_is_never_right():
    logits = np.full((2, 7), np.nan, np.float32)
    logits[1, 3] = 5
    got = measure(logits, np.array([3, 3]))
    assert (got.top1, got.top5, np.trace(got.confusion)) == (0, 0, 0)


def test_nothing_cannot_be_measured():
    with pytest.raises(ValueError, match="no predictions"):
        measure(np.zeros((0, 3)), np.zeros(0, int))
