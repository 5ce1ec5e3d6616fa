"""Scores of classes and of attributes, against scikit-learn."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smallcnn.tasks.attributes import Attributes
from smallcnn.tasks.classification import Classification
from smallcnn.tasks.metrics import average_precision, measure, predicted, scores


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


@given(coarse())
def test_of_equal_logits_the_first_class_is_the_answer(case):
    """Sorted by logit, and by class where logits tie: what `predict` answers."""
    logits, labels = case
    got = measure(logits, labels)
    ranked = [sorted(range(len(row)), key=lambda i, row=row: -row[i]) for row in logits.tolist()]
    best = [order[0] for order in ranked]
    assert got.top1 == np.mean([label == first for label, first in zip(labels, best, strict=True)])
    assert got.top5 == np.mean([label in order[:5] for label, order in zip(labels, ranked, strict=True)])
    assert predicted(logits).tolist() == best
    want = np.zeros_like(got.confusion)
    for label, first in zip(labels, best, strict=True):
        want[label, first] += 1
    np.testing.assert_array_equal(got.confusion, want)
    task = Classification(tuple(map(str, range(logits.shape[1]))))
    answers = [task.answer({"logits": row}) for row in logits]
    assert [answer.label for answer in answers] == [str(first) for first in best]


@pytest.mark.parametrize(("label", "right", "among5"), [(0, 1, 1), (4, 0, 1), (5, 0, 0)])
def test_constant_outputs_answer_the_first_class(label, right, among5):
    got = measure(np.full((3, 7), 0.25, np.float32), np.full(3, label))
    assert (got.top1, got.top5, np.trace(got.confusion)) == (right, among5, 3 * right)
    assert got.confusion[label, 0] == 3


def test_close_logits_are_ranked_though_their_probabilities_tie():
    logits = np.array([[0.0, 100.0, np.nextafter(np.float32(100), np.float32(101))]], np.float32)
    assert predicted(logits).tolist() == [2]
    assert Classification(("a", "b", "c")).answer({"logits": logits[0]}).label == "c"
    assert measure(logits, np.array([2])).top1 == 1


def test_not_a_number_is_never_right():
    logits = np.full((2, 7), np.nan, np.float32)
    logits[1, 3] = 5
    for labels in ([3, 3], [0, 0]):
        got = measure(logits, np.array(labels))
        assert (got.top1, got.top5, np.trace(got.confusion), got.confusion.sum()) == (0, 0, 0, 2)


def test_nothing_cannot_be_measured():
    with pytest.raises(ValueError, match="no predictions"):
        measure(np.zeros((0, 3)), np.zeros(0, int))


def test_scores_of_a_classifier_are_its_metrics():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(50, 7)).astype(np.float32), rng.integers(0, 7, 50)
    want = measure(logits, labels, "sigmoid")
    got = scores(Classification(tuple("abcdefg"), "sigmoid"), {"logits": logits}, labels)
    assert got == {"top1": want.top1, "top5": want.top5, "loss": want.loss}


class TestAveragePrecision:
    @pytest.mark.parametrize("decimals", [9, 0])  # 0: ties everywhere
    def test_agrees_with_scikit_learn(self, decimals):
        sk = pytest.importorskip("sklearn.metrics")
        rng = np.random.default_rng(decimals)
        said = rng.normal(0, 2, (300, 8)).astype(np.float32).round(decimals)
        present = (rng.random((300, 8)) < np.linspace(0.02, 0.98, 8)).astype(np.float32)
        want = [sk.average_precision_score(present[:, a], said[:, a]) for a in range(8)]
        np.testing.assert_allclose(average_precision(said, present), want, rtol=1e-12)

    def test_by_hand(self):
        """Ranked present, absent, present: (1/1 + 2/3) / 2."""
        got = average_precision(np.array([[3.0], [2.0], [1.0]]), np.array([[1.0], [0.0], [1.0]]))
        assert got == pytest.approx([5 / 6])

    @given(st.integers(0, 2**32 - 1))
    def test_unknown_entries_do_not_count_and_their_label_is_undefined_without_a_known_one(self, seed):
        rng = np.random.default_rng(seed)
        said, present = rng.normal(size=(30, 3)), rng.choice([0, 1, np.nan], (30, 3), p=[0.4, 0.3, 0.3])
        present[:, 2] = np.where(present[:, 2] == 1, np.nan, present[:, 2])
        got = average_precision(said, present)
        for a in range(2):
            known = ~np.isnan(present[:, a])
            np.testing.assert_array_equal(got[a], average_precision(said[known, a, None], present[known, a, None])[0])
        assert np.isnan(got[2])

    def test_not_a_number_ranks_last(self):
        said, present = np.array([[np.nan], [-1e30], [-np.inf]]), np.array([[1.0], [0.0], [0.0]])
        assert average_precision(said, present) == pytest.approx([1 / 3])


class TestScoresOfAttributes:
    TASK = Attributes(("a", "b", "c"))

    def test_means_over_labels_and_over_known_entries(self):
        torch = pytest.importorskip("torch")
        rng = np.random.default_rng(3)
        logits = rng.normal(0, 30, (40, 3)).astype(np.float32)
        present = rng.choice([0, 1, np.nan], (40, 3)).astype(np.float32)
        got = scores(self.TASK, {"logits": logits}, present)
        known = torch.from_numpy(~np.isnan(present))
        loss = torch.nn.functional.binary_cross_entropy_with_logits(
            torch.from_numpy(logits).double()[known], torch.from_numpy(present).double()[known]
        )
        assert got["loss"] == pytest.approx(loss.item(), rel=1e-12)
        assert got["mean_average_precision"] == pytest.approx(average_precision(logits, present).mean(), rel=1e-12)

    def test_a_label_that_no_image_has_is_left_out_of_the_mean(self):
        logits, present = np.array([[1.0, 0, 2], [0, 1, 3]]), np.array([[1.0, 0, 0], [0, 0, np.nan]])
        assert scores(self.TASK, {"logits": logits}, present)["mean_average_precision"] == 1

    def test_nothing_known(self):
        got = scores(self.TASK, {"logits": np.zeros((2, 3))}, np.full((2, 3), np.nan))
        assert all(np.isnan(value) for value in got.values())

    def test_an_answer_that_is_not_a_number_has_no_loss(self):
        assert np.isnan(scores(self.TASK, {"logits": np.full((2, 3), np.nan)}, np.ones((2, 3)))["loss"])

    def test_no_image(self):
        with pytest.raises(ValueError, match="no predictions"):
            scores(self.TASK, {"logits": np.zeros((0, 3))}, np.zeros((0, 3)))
