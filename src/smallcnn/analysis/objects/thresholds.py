"""The score from which a detection is best believed: the threshold with the highest F1, for a class and for all."""

from dataclasses import dataclass

import numpy as np

from smallcnn.analysis.objects.errors import IGNORED, RIGHT, Errors
from smallcnn.tasks.objects import PLAIN


@dataclass(frozen=True)
class Threshold:
    """The detections of a class above `score`: their precision, recall and F1 at IoU 0.5.

    `score` lies halfway between the lowest of these and the next below, or just under the lowest if there is no other.
    `objects` is the number of objects to be found. `score` and the shares are None if nothing is found.
    """

    label: str
    objects: int
    score: float | None = None
    precision: float | None = None
    recall: float | None = None
    f1: float | None = None


def thresholds(errors: Errors, labels: tuple[str, ...]) -> list[Threshold]:
    """The best threshold of each class that has objects, in the order of the labels."""
    to_find = errors.objects.classes[errors.objects.flags == PLAIN]
    return [
        _best(errors, errors.detections.classes == number, int((to_find == number).sum()), labels[number])
        for number in np.unique(to_find).tolist()
    ]


def overall(errors: Errors) -> Threshold:
    """The best threshold for all classes together."""
    return _best(
        errors, np.ones(len(errors.detections), bool), int((errors.objects.flags == PLAIN).sum()), "all classes"
    )


def _best(errors: Errors, own: np.ndarray, objects: int, label: str) -> Threshold:
    own = own & (errors.kind != IGNORED)
    scores, right = errors.detections.scores[own], errors.kind[own] == RIGHT
    order = np.argsort(-scores, kind="stable")
    scores, hits = scores[order], np.cumsum(right[order])
    last = np.flatnonzero(np.append(scores[1:] != scores[:-1], len(scores) > 0))  # of equal scores, all or none
    if not objects or not len(last) or not hits[-1]:
        return Threshold(label, objects)
    f1 = 2 * hits[last] / (last + 1 + objects)
    best = last[f1.argmax()]
    found, lowest = int(hits[best]), scores[best]
    under = np.nextafter(lowest, np.float32(0))  # scores are float32, and so is a detector's threshold
    score = min((lowest + scores[best + 1]) / 2, under) if best + 1 < len(scores) else under
    return Threshold(label, objects, float(score), found / (int(best) + 1), found / objects, float(f1.max()))
