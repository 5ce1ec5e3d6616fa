"""Errors of detectors by kind: one scene with each kind, and counts and costs that tidecv 1.0.1 gives."""

import numpy as np
import pytest

from smallcnn.analysis.objects.errors import IGNORED, KINDS, RIGHT, classify
from smallcnn.analysis.objects.thresholds import overall, thresholds
from smallcnn.tasks.objects import CROWD, DIFFICULT, PLAIN, Detections, Objects

BOXES = np.array([[0.0, 0, 100, 100], [200, 0, 300, 100], [400, 0, 500, 100], [600, 0, 700, 100]])


def objects(flags=(PLAIN,) * 4):
    """Four objects side by side in one image, of the classes 0, 0, 1, 1."""
    return Objects(np.zeros(4, int), BOXES, np.array([0, 0, 1, 1]), np.full(4, 1e4), np.array(flags))


def detections(*rows):
    """(box, class, score) in the image, in any order."""
    return Detections(
        np.zeros(len(rows), int), np.array([row[0] for row in rows], float).reshape(-1, 4),
        np.array([row[1] for row in rows], int), np.array([row[2] for row in rows], float),
    )  # fmt: skip


def shifted(box, right):
    """IoU with the box is (100 - right) / (100 + right)."""
    return box + np.array([right, 0, right, 0])


def random_scene(seed):
    """60 objects of four classes in ten images, 200 detections near them and 40 elsewhere."""
    rng = np.random.default_rng(seed)
    corners, sizes = rng.uniform(0, 300, (60, 2)), rng.uniform(20, 200, (60, 2))
    boxes = np.concatenate([corners, corners + sizes], 1)
    labelled = Objects(
        np.sort(rng.integers(0, 10, 60)), boxes, rng.integers(0, 4, 60), sizes.prod(1), np.zeros(60, int)
    )
    near = rng.integers(0, 60, 240)
    moved = boxes[near] + rng.normal(0, 0.15, (240, 4)) * np.tile(sizes[near], 2)
    moved[:40] += 1000
    said = np.where(rng.random(240) < 0.2, rng.integers(0, 4, 240), labelled.classes[near])
    return labelled, Detections(labelled.images[near], moved, said, rng.random(240))


def kinds(errors):
    names = {RIGHT: "right", IGNORED: "ignored", **dict(enumerate(KINDS))}
    return [names[kind] for kind in errors.kind.tolist()]


class TestKinds:
    def test_each(self):
        errors = classify(
            objects(),
            detections(
                (BOXES[0], 0, 0.95), (shifted(BOXES[0], 5), 0, 0.9),  # the second is a duplicate: IoU 0.90
                (shifted(BOXES[1], 60), 0, 0.8),  # 0.25
                (shifted(BOXES[2], 10), 0, 0.7),  # 0.82 with another class
                (shifted(BOXES[2], 60), 0, 0.6),
                ([0, 500, 50, 550], 1, 0.5),
            ),
            2,
        )  # fmt: skip
        assert kinds(errors) == ["right", "duplicate", "place", "class", "both", "background"]
        assert errors.about.tolist() == [0, 0, 1, 2, 2, -1]
        assert errors.counts() == dict.fromkeys(KINDS, 1)
        assert errors.missed().tolist() == [3]
        assert errors.missed(0.75).tolist() == [2, 3]  # the class error that finds object 2 has a score of 0.7
        assert errors.missed(0.96).tolist() == [0, 1, 2, 3]
        assert errors.counts(0.75) == {
            "class": 0, "place": 1, "both": 0, "duplicate": 1, "background": 0, "missed": 2
        }  # fmt: skip

    @pytest.mark.parametrize("flag", [CROWD, DIFFICULT])
    def test_objects_that_need_not_be_found(self, flag):
        found = detections((BOXES[0], 0, 0.9), (BOXES[0], 0, 0.8), (shifted(BOXES[1], 60), 1, 0.7))
        errors = classify(objects((flag, flag, flag, PLAIN)), found, 2)
        assert kinds(errors) == ["ignored", "ignored", "background"]
        assert errors.missed().tolist() == [3]

    def test_the_order_of_images_and_scores_does_not_matter(self):
        rng = np.random.default_rng(0)
        one = objects()
        three = Objects(np.repeat([0, 1, 2], 4), np.tile(BOXES, (3, 1)), np.tile(one.classes, 3), np.tile(one.areas, 3),
                        np.zeros(12, int))  # fmt: skip
        boxes = three.boxes + rng.normal(0, 30, (12, 4))
        found = Detections(three.images, boxes, rng.integers(0, 2, 12), rng.random(12))
        mixed = rng.permutation(12)
        first, second = classify(three, found, 2), classify(three, found.take(mixed), 2)
        assert first.counts() == second.counts()
        assert first.costs == pytest.approx(second.costs)

    def test_nothing(self):
        empty = Objects(np.zeros(0, int), np.zeros((0, 4)), np.zeros(0, int), np.zeros(0), np.zeros(0, int))
        nothing = classify(empty, detections(), 2)
        assert nothing.counts() == dict.fromkeys(KINDS, 0)
        assert all(np.isnan(cost) for cost in nothing.costs.values())
        assert classify(objects(), detections(), 2).counts()["missed"] == 4
        alarms = classify(empty, detections((BOXES[0], 0, 0.5)), 2)
        assert alarms.counts()["background"] == 1


class TestCosts:
    def test_by_hand(self):
        """Class 0: a false alarm before one of two objects: AP 51/101 * 1/2, or 51/101 without the alarm. Class 1: 1.

        Without the missed object, AP is 1/2 for class 0.
        """
        errors = classify(
            objects(),
            detections(([0, 500, 50, 550], 0, 0.9), (BOXES[0], 0, 0.8), (BOXES[2], 1, 0.9), (BOXES[3], 1, 0.8)), 2
        )  # fmt: skip
        wanted = dict.fromkeys(KINDS, 0.0) | {"background": 51 / 101 / 4, "missed": (1 / 2 - 51 / 101 / 2) / 2}
        assert errors.costs == pytest.approx(wanted)

    def test_of_two_that_mean_one_object_the_better_is_put_right(self):
        """Put right, one finds the object and the other is dropped: AP of class 0 rises from 0 to 51/101."""
        found = detections((shifted(BOXES[0], 60), 0, 0.9), (shifted(BOXES[0], -60), 0, 0.8))
        errors = classify(objects(), found, 2)
        assert errors.best.tolist() == [True, False]
        assert errors.costs["place"] == pytest.approx(51 / 101 / 2)

    @pytest.mark.parametrize(("seed", "wanted"), [
        (1, [(19, 2.9141), (33, 13.5853), (6, 0.5655), (88, 6.4794), (40, 8.1255), (4, 2.686)]),
        (4, [(21, 4.1873), (36, 8.4117), (4, 0.8327), (81, 8.857), (40, 6.8937), (1, 0.5616)]),
        (5, [(25, 3.8298), (15, 5.6404), (2, 0.0156), (104, 7.8867), (40, 4.7929), (4, 4.0008)]),
    ])  # fmt: skip
    def test_tidecv(self, seed, wanted):
        """What `TIDERun(gt, preds, 0.5, 0.1, TIDE.BOX, 100)` gives for the same boxes: counts, and costs in points."""
        errors = classify(*random_scene(seed), 4)
        assert list(errors.counts().values()) == [count for count, _ in wanted]
        np.testing.assert_allclose(list(errors.costs.values()), [cost / 100 for _, cost in wanted], atol=1e-6)

    def test_a_class_of_which_all_is_missed(self):
        """Without the missed objects nothing of it is left to find."""
        errors = classify(objects(), detections((BOXES[0], 0, 0.9), (BOXES[1], 0, 0.8)), 2)
        assert errors.costs["missed"] == pytest.approx(0.5)


class TestThresholds:
    def found(self):
        """Four objects; by score right, right, wrong, right, wrong, wrong: F1 2/5, 4/6, 4/7, 6/8, 6/9, 6/10."""
        far = [0, 500, 50, 550]
        return classify(
            Objects(np.zeros(4, int), BOXES, np.zeros(4, int), np.full(4, 1e4), np.zeros(4, int)),
            detections((BOXES[0], 0, 0.9), (BOXES[1], 0, 0.8), (far, 0, 0.7), (BOXES[2], 0, 0.6), (far, 0, 0.5),
                       (far, 0, 0.4)),
            1,
        )  # fmt: skip

    def test_highest_f1(self):
        (best,) = thresholds(self.found(), ("a",))
        assert (best.label, best.objects, best.score) == ("a", 4, pytest.approx(0.55))  # 0.6 is above it, 0.5 is not
        assert (best.precision, best.recall, best.f1) == (0.75, 0.75, 0.75)
        assert overall(self.found()).f1 == 0.75

    def test_equal_scores_are_taken_together(self):
        errors = classify(objects(), detections((BOXES[0], 0, 0.9), ([0, 500, 50, 550], 0, 0.9), (BOXES[1], 0, 0.9)), 2)
        first, second = thresholds(errors, ("a", "b"))
        assert (first.score, first.precision, first.recall) == (pytest.approx(0.9), pytest.approx(2 / 3), 1)
        assert first.score < errors.detections.scores[0]  # all are above it, and it lets no others in
        assert (second.objects, second.score, second.f1) == (2, None, None)
