"""The findings about a detector on labelled images."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from smallcnn.analysis.calibration import BINS, Reliability, binned
from smallcnn.analysis.objects.errors import IGNORED, KINDS, RIGHT, Errors, classify
from smallcnn.analysis.objects.thresholds import Threshold, overall, thresholds
from smallcnn.evaluate import Evaluation
from smallcnn.tasks.objects import Detections, Objects

_SAMPLES, _CONFUSED = 24, 10


@dataclass(frozen=True)
class Confusion:
    """`count` objects of class `true` were found, but predicted as class `taken`."""

    true: int
    taken: int
    count: int


@dataclass(frozen=True, eq=False)
class ObjectFindings:
    """Findings on the images of `evaluation`: errors by kind, thresholds, and whether scores are shares of hits.

    `best` is the best threshold for all classes. The errors that are counted, shown and confused are above `threshold`.
    """

    evaluation: Evaluation
    errors: Errors
    best: Threshold
    threshold: float
    classes: list[Threshold]
    confused: list[Confusion]
    reliability: Reliability

    def samples(self, kind: str) -> np.ndarray:
        """Indices of detections to show, highest scores first; of objects, largest first, if they are missed."""
        if kind != "missed":
            return self.errors.of_kind(kind, self.threshold)[:_SAMPLES]
        missed = self.errors.missed(self.threshold)
        return missed[np.argsort(-self.errors.objects.areas[missed], kind="stable")][:_SAMPLES]

    def name(self, image: int) -> str:
        """File name of the image at this index of the answers."""
        return self.evaluation.split.names[self.evaluation.answers.indices[image]]


def examine(evaluation: Evaluation, threshold: float | None = None) -> ObjectFindings:
    """The findings of the evaluation of a detector.

    Errors count above `threshold`; by default the best threshold for all classes, or 0 if no object is found.
    """
    labels = evaluation.task.labels
    objects = Objects.of(evaluation.answers.targets)
    errors = classify(objects, Detections.of(evaluation.found), len(labels))
    best = overall(errors)
    threshold = best.score or 0.0 if threshold is None else threshold
    judged = errors.kind != IGNORED
    return ObjectFindings(
        evaluation=evaluation,
        errors=errors,
        best=best,
        threshold=threshold,
        classes=thresholds(errors, labels),
        confused=_confused(errors, threshold),
        reliability=binned(errors.detections.scores[judged], errors.kind[judged] == RIGHT),
    )


def _confused(errors: Errors, threshold: float) -> list[Confusion]:
    wrong = errors.of_kind("class", threshold)
    both = np.stack([errors.objects.classes[errors.about[wrong]], errors.detections.classes[wrong]], 1)
    pairs, counts = np.unique(both, axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:_CONFUSED]
    return [Confusion(int(pairs[i, 0]), int(pairs[i, 1]), int(counts[i])) for i in order]


def as_dict(findings: ObjectFindings) -> dict[str, Any]:
    """The findings for JSON: names of classes and files in place of numbers, None where a value is undefined."""
    labels, errors, figures = findings.evaluation.task.labels, findings.errors, findings.evaluation.figures
    all_, above = errors.counts(), errors.counts(findings.threshold)
    reliability = findings.reliability
    return {
        "threshold": asdict(findings.best), "errors_above": findings.threshold,
        "thresholds": [asdict(one) for one in findings.classes],
        "errors": {
            kind: {"count": above[kind], "count_all": all_[kind], "map50_lost": errors.costs[kind],
                   "examples": _examples(findings, kind, labels)}
            for kind in KINDS
        },
        "confused": [
            {"true": labels[one.true], "taken_for": labels[one.taken], "count": one.count} for one in findings.confused
        ],
        "calibration": {
            "bins": BINS, "error": reliability.error, "count": reliability.count.tolist(),
            "score": reliability.confidence.tolist(), "precision": reliability.accuracy.tolist(),
        },
        "precision_recall": {
            labels[number]: figures.precision[0, :, number].tolist() for number in np.flatnonzero(figures.objects)
        },
    }  # fmt: skip


def _examples(findings: ObjectFindings, kind: str, labels: Sequence[str]) -> list[dict[str, Any]]:
    detections, objects, about = findings.errors.detections, findings.errors.objects, findings.errors.about
    if kind == "missed":
        return [
            {"image": findings.name(objects.images[i]), "true": labels[objects.classes[i]],
             "box": objects.boxes[i].tolist()}
            for i in findings.samples(kind)
        ]  # fmt: skip
    return [
        {"image": findings.name(detections.images[i]), "label": labels[detections.classes[i]],
         "score": float(detections.scores[i]), "box": detections.boxes[i].tolist(),
         "true": labels[objects.classes[about[i]]] if about[i] >= 0 else None}
        for i in findings.samples(kind)
    ]  # fmt: skip
