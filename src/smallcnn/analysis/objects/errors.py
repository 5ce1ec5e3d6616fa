"""Errors of a detector by kind, and the average precision that each kind costs.

Bolya et al. 2020, "TIDE: A General Toolbox for Identifying Object Detection Errors", arXiv 2008.08115. A detection is
right if its IoU with an object of its class is at least 0.5 and no better one has taken the object. Otherwise, by the
IoU with objects of its own class and of the others:

    place        0.1 to 0.5 with its own class: at the right object, but not well placed
    class        at least 0.5 with another class: well placed, but predicted as another class
    duplicate    at least 0.5 with its own class: the object is found already
    background   less than 0.1 with any object
    both         the rest: 0.1 to 0.5 with another class
    missed       an object that no detection finds, and none would if its place or class were right

A kind's cost is the rise of AP50 if its errors alone were put right: `place` and `class` errors become right where the
object is not found otherwise, the other detections are dropped, and missed objects are not counted.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from smallcnn.tasks.coco import MOST, precision_at
from smallcnn.tasks.matching import Pairs, match_classes, pairs
from smallcnn.tasks.objects import PLAIN, Detections, Objects

KINDS = ("class", "place", "both", "duplicate", "background", "missed")
RIGHT, IGNORED = -1, -2
"""Kinds of detections that are no error: right, or of an object that need not be found."""

FOUND, NEAR = 0.5, 0.1
"""Least IoU with an object that is found, and with one that a detection might mean."""


@dataclass(frozen=True, eq=False)
class Errors:
    """Detections of `classes` classes with the kind of each, image by image and by falling score.

    `kind` (D,) is an index in KINDS, RIGHT or IGNORED. `about` (D,) is the object found or meant, or -1. `best` (D,)
    marks the `place` and `class` errors with the highest score among those about an object that is not found.
    """

    detections: Detections
    objects: Objects
    classes: int
    kind: np.ndarray
    about: np.ndarray
    best: np.ndarray

    def missed(self, threshold: float = 0.0) -> np.ndarray:
        """Indices of the objects missed by the detections above this score."""
        missed = self.objects.flags == PLAIN
        missed[self.about[(self.detections.scores > threshold) & ((self.kind == RIGHT) | self.best)]] = False
        return np.flatnonzero(missed)

    def of_kind(self, kind: str, threshold: float = 0.0) -> np.ndarray:
        """Indices of the detections of a kind above this score, highest score first."""
        found = np.flatnonzero((self.kind == KINDS.index(kind)) & (self.detections.scores > threshold))
        return found[np.argsort(-self.detections.scores[found], kind="stable")]

    def counts(self, threshold: float = 0.0) -> dict[str, int]:
        """The number of errors of each kind among the detections above this score."""
        found = {kind: len(self.of_kind(kind, threshold)) for kind in KINDS}
        return found | {"missed": len(self.missed(threshold))}

    @cached_property
    def costs(self) -> dict[str, float]:
        """The rise of AP50, from 0 to 1, if the errors of one kind were put right; NaN without objects."""
        to_find = np.bincount(self.objects.classes[self.objects.flags == PLAIN], minlength=self.classes)
        labels, judged = self.detections.classes, self.kind != IGNORED
        hit = self.kind == RIGHT
        now = self._precision(judged, hit, labels, to_find)
        costs = {}
        for number, kind in enumerate(KINDS[:-1]):
            own = self.kind == number
            right = own & self.best
            fixed = np.where(right, self.objects.classes[self.about], labels) if len(self.objects) else labels
            costs[kind] = self._precision(judged & ~(own & ~right), hit | right, fixed, to_find) - now
        missed = np.bincount(self.objects.classes[self.missed()], minlength=self.classes)
        costs["missed"] = self._precision(judged, hit, labels, to_find, to_find - missed) - now
        return {kind: float(np.maximum(cost, 0)) for kind, cost in costs.items()}

    def _precision(
        self,
        judged: np.ndarray,
        hit: np.ndarray,
        labels: np.ndarray,
        to_find: np.ndarray,
        left: np.ndarray | None = None,
    ) -> float:
        """AP50: the mean over classes with objects `to_find`. Where none of them is `left`, all are found."""
        left = to_find if left is None else left
        order = np.argsort(-self.detections.scores, kind="stable")
        order = order[judged[order]]
        found = []
        for number in np.flatnonzero(to_find).tolist():
            own = hit[order][labels[order] == number]
            found.append(float(precision_at(own, ~own, left[number]).mean()) if left[number] else 1.0)
        return float(np.mean(found)) if found else np.nan


def classify(objects: Objects, detections: Detections, classes: int) -> Errors:
    """The errors among detections of `classes` classes; at most 100 of a class in an image count, as in COCO."""
    detections = detections.take(np.lexsort((-detections.scores, detections.images)))
    about, rank = match_classes(detections, objects, classes, FOUND)
    counts = rank < MOST[-1]
    detections, about = detections.take(counts), about[counts]
    ignored = np.append(objects.flags != PLAIN, False)[about]
    wrong = about < 0
    near = pairs(detections, objects, NEAR, crowds=False)
    near = _where(near, (objects.flags == PLAIN)[near.objects] & wrong[near.detections])
    same = detections.classes[near.detections] == objects.classes[near.objects]
    own, mine = _best(_where(near, same), len(detections))
    other, theirs = _best(_where(near, ~same), len(detections))
    kind = np.select(
        [wrong & (own >= NEAR) & (own <= FOUND), wrong & (other >= FOUND), wrong & (own > FOUND),
         wrong & (np.maximum(own, other) <= NEAR), wrong, ignored],
        [KINDS.index(one) for one in ("place", "class", "duplicate", "background", "both")] + [IGNORED],
        RIGHT,
    )  # fmt: skip
    meant = np.where((own >= NEAR) & (kind != KINDS.index("class")), mine, theirs)
    about = np.where(wrong, meant, about)
    return Errors(detections, objects, classes, kind, about, _first(kind, about, detections.scores, len(objects)))


def _where(near: Pairs, chosen: np.ndarray) -> Pairs:
    return Pairs(near.detections[chosen], near.objects[chosen], near.iou[chosen])


def _best(near: Pairs, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The highest IoU of each detection and the object it is with; 0 and -1 if there is none."""
    iou, best = np.zeros(count), np.full(count, -1)
    order = np.argsort(near.iou, kind="stable")  # of several values for a place, numpy keeps the last
    iou[near.detections[order]] = near.iou[order]
    best[near.detections[order]] = near.objects[order]
    return iou, best


def _first(kind: np.ndarray, about: np.ndarray, scores: np.ndarray, objects: int) -> np.ndarray:
    """Marks the detection with the highest score among the `place` and `class` errors about an object not found."""
    found = np.zeros(objects, bool)
    found[about[kind == RIGHT]] = True
    errors = np.flatnonzero((kind == KINDS.index("place")) | (kind == KINDS.index("class")))
    errors = errors[~found[about[errors]]]
    order = errors[np.argsort(-scores[errors], kind="stable")]
    first = np.zeros(len(kind), bool)
    first[order[np.unique(about[order], return_index=True)[1]]] = True
    return first
