"""COCO's figures of a detector: average precision and recall, as pycocotools computes them.

Average precision is the mean of the precision at 101 recalls, from 0 to 1, each the highest precision at that recall or
a higher one; over IoU thresholds from 0.5 to 0.95. Small objects have an area of at most 32 x 32 pixels, large ones of
at least 96 x 96. Average recall is over the same thresholds, with at most 1, 10 or 100 detections of a class in an
image. See cocodataset.org/#detection-eval.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from smallcnn.tasks.detection import DetectionAnswer
from smallcnn.tasks.matching import area_of, by_score, match, pairs
from smallcnn.tasks.objects import PLAIN, Detections, Objects

THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
SIZES = {"all": (0, 1e5**2), "small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, 1e5**2)}
"""Areas in square pixels, both ends included."""
MOST = (1, 10, 100)
"""Detections of a class in an image that count, those with the highest scores."""
_BY_SIZE = list(SIZES)[1:]
SCORES = (
    "map", "map50", "map75", *(f"map_{size}" for size in _BY_SIZE),
    *(f"recall_{most}" for most in MOST), *(f"recall_{size}" for size in _BY_SIZE),
)  # fmt: skip
"""COCO's twelve figures in its order: map_small, ..., recall_1, recall_10, recall_100, recall_small, ..."""


@dataclass(frozen=True, eq=False)
class Figures:
    """Figures of C classes; NaN for a class without objects.

    `precision` (T, 101, C) is that at each of THRESHOLDS and RECALLS. `average_precision` (S, T, C) is by SIZES,
    `recall_by_size` (S, T, C) with 100 detections, `recall_by_most` (3, T, C) by MOST. `objects` (C,) is the number of
    objects to be found, `detections` (C,) of those judged.
    """

    precision: np.ndarray
    average_precision: np.ndarray
    recall_by_size: np.ndarray
    recall_by_most: np.ndarray
    objects: np.ndarray
    detections: np.ndarray

    @property
    def scores(self) -> dict[str, float]:
        """SCORES; NaN if there are no objects, where pycocotools gives -1."""
        at75 = self.average_precision[0, int(np.argmin(abs(THRESHOLDS - 0.75)))]
        found = [
            self.average_precision[0], self.average_precision[0, 0], at75, *self.average_precision[1:],
            *self.recall_by_most, *self.recall_by_size[1:],
        ]  # fmt: skip
        return {name: _mean(values) for name, values in zip(SCORES, found, strict=True)}

    @property
    def by_class(self) -> dict[str, np.ndarray]:
        """map, map50 and recall_100 of each class, (C,)."""
        return {
            "map": self.average_precision[0].mean(0),
            "map50": self.average_precision[0, 0],
            "recall_100": self.recall_by_most[-1].mean(0),
        }


def judge(objects: Objects, detections: Detections, classes: int) -> Figures:
    """The figures of `detections` of `classes` classes in images with these `objects`."""
    levels, sizes = len(THRESHOLDS), len(SIZES)
    figures = Figures(
        precision=np.full((levels, len(RECALLS), classes), np.nan),
        average_precision=np.full((sizes, levels, classes), np.nan),
        recall_by_size=np.full((sizes, levels, classes), np.nan),
        recall_by_most=np.full((len(MOST), levels, classes), np.nan),
        objects=np.zeros(classes, np.int64),
        detections=np.bincount(detections.classes, minlength=classes),
    )
    for number, (found, said) in enumerate(
        zip(*(_by_class(one, classes) for one in (objects, detections)), strict=True)
    ):
        if len(found):
            _judge_class(figures, number, objects.take(found), detections.take(said))
    return figures


def _by_class(table: Objects | Detections, classes: int) -> list[np.ndarray]:
    """The indices of each class's rows, in order."""
    order = np.argsort(table.classes, kind="stable")
    return np.split(order, np.searchsorted(table.classes[order], np.arange(1, classes)))


def _judge_class(figures: Figures, number: int, objects: Objects, detections: Detections) -> None:
    order, rank = by_score(detections)
    order, rank = order[rank < MOST[-1]], rank[rank < MOST[-1]]
    detections = detections.take(order)
    near = pairs(detections, objects, THRESHOLDS[0])
    area, by_falling_score = area_of(detections.boxes), np.argsort(-detections.scores, kind="stable")
    for place, (low, high) in enumerate(SIZES.values()):
        ignored = (objects.flags != PLAIN) | (objects.areas < low) | (objects.areas > high)
        if ignored.all():
            continue
        count = int((~ignored).sum())
        taken = match(rank, objects, near, ignored, THRESHOLDS)
        none = taken < 0
        hit = ~none & ~ignored[taken]
        wrong = none & ~((area < low) | (area > high))
        figures.recall_by_size[place, :, number] = hit.sum(1) / count
        curves = precision_at(hit[:, by_falling_score], wrong[:, by_falling_score], count)
        figures.average_precision[place, :, number] = curves.mean(1)
        if not place:
            figures.precision[:, :, number] = curves
            figures.objects[number] = count
            for i, most in enumerate(MOST):
                figures.recall_by_most[i, :, number] = hit[:, rank < most].sum(1) / count


def precision_at(hit: np.ndarray, wrong: np.ndarray, count: int) -> np.ndarray:
    """Precision (..., 101) at RECALLS of detections by falling score, of which `count` objects could be hit.

    `hit` and `wrong` (..., D) are exclusive; a detection that is neither is ignored.
    """
    hits, wrongs = np.cumsum(hit, -1).astype(np.float64), np.cumsum(wrong, -1).astype(np.float64)
    recall, precision = hits / count, hits / (hits + wrongs + np.spacing(1))
    highest = np.maximum.accumulate(precision[..., ::-1], -1)[..., ::-1]
    padded = np.concatenate([highest, np.zeros((*highest.shape[:-1], 1))], -1)  # recalls that are not reached
    found = np.empty((*hit.shape[:-1], len(RECALLS)))
    for place in np.ndindex(hit.shape[:-1]):
        found[place] = padded[place][np.searchsorted(recall[place], RECALLS)]
    return found


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else np.nan


def results(names: Sequence[str], answers: Sequence[DetectionAnswer]) -> list[dict[str, Any]]:
    """The objects found in images as entries of a COCO results file, image by image.

    An image whose file name is a number has that id, as in COCO; if not all have one of their own, ids count from 1.
    Categories count the labels from 1. File and label are in each entry by name too.
    """
    stems = [Path(name).stem for name in names]
    own = all(stem.isascii() and stem.isdigit() for stem in stems) and len({int(stem) for stem in stems}) == len(stems)
    entries = []
    for number, (name, answer) in enumerate(zip(names, answers, strict=True), 1):
        for one, category in zip(answer.found, answer.classes.tolist(), strict=True):
            left, top, right, bottom = one.box
            entries.append(
                {"image_id": int(stems[number - 1]) if own else number, "category_id": category + 1,
                 "bbox": [left, top, right - left, bottom - top], "score": one.score,
                 "file_name": name, "category": one.label}
            )  # fmt: skip
    return entries
