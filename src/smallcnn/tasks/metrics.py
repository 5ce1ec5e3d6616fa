"""Metrics: a task's scores by name; for classification also the confusion matrix."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from smallcnn.errors import GraphError
from smallcnn.image.geometry import Seen
from smallcnn.tasks import coco
from smallcnn.tasks.attributes import Attributes
from smallcnn.tasks.classification import Classification
from smallcnn.tasks.detection import Detection, answers_of
from smallcnn.tasks.ending import Ending
from smallcnn.tasks.objects import Detections, Objects
from smallcnn.tasks.task import Task


def scores(
    task: Task, outputs: Mapping[str, np.ndarray], targets: np.ndarray, seen: Sequence[Seen] = ()
) -> dict[str, float]:
    """How well outputs (N, ...) by name answer the task, given its targets as in a batch (see `data.targets`).

    classification   top1, top5, loss                       of labels (N,)
    attributes       mean_average_precision, loss           of present (N, A)
    detection        map, map50, ... (`tasks.coco`)         of boxes (N, most, 7)

    Boxes are judged in pixels of the images, so a detector needs the part of each that it has `seen`. A score that the
    targets do not determine is NaN. Raises ValueError for no image.
    """
    if isinstance(task, Classification):
        (logits,) = outputs.values()
        measured = measure(logits, targets, task.ending)
        return {"top1": measured.top1, "top5": measured.top5, "loss": measured.loss}
    if isinstance(task, Attributes):
        (logits,) = outputs.values()
        if not len(logits):
            raise ValueError("no predictions to measure")
        precision = average_precision(logits, targets)
        return {
            "mean_average_precision": _mean(precision[~np.isnan(precision)]),
            "loss": _mean(_binary_cross_entropy(logits, targets)[~np.isnan(targets)]),
        }
    if isinstance(task, Detection):
        found = Detections.of(answers_of(task, outputs, seen))
        return coco.judge(Objects.of(targets), found, len(task.labels)).scores
    raise GraphError(f"there are no scores for {task.kind}")


def title(score: str) -> str:
    """A score's name for people: top-1, mean average precision, AP50, AR 100."""
    if score in coco.SCORES:
        return score.replace("map", "AP").replace("recall", "AR").replace("_", " ")
    return {"top1": "top-1", "top5": "top-5"}.get(score, score.replace("_", " "))


@dataclass(frozen=True)
class Metrics:
    """Metrics over a set of images. `confusion[i, j]` is the number of images of class i predicted as class j."""

    images: int
    top1: float
    top5: float
    loss: float
    confusion: np.ndarray


def measure(logits: np.ndarray, labels: np.ndarray, ending: Ending = "softmax") -> Metrics:
    """Metrics of logits (N, classes) and labels (N,), N at least 1.

    `loss` is the mean cross-entropy of the softmax or of each sigmoid; NaN for scores. Of equal logits the first class
    ranks first, as in a prediction. An image with a NaN counts as an error, in the confusion matrix too.
    """
    count, classes = logits.shape
    if not count:
        raise ValueError("no predictions to measure")
    logits = logits.astype(np.float64)
    rows = np.arange(count)
    true = logits[rows, labels, None]
    rank = (logits > true).sum(1) + ((logits == true) & (np.arange(classes) < labels[:, None])).sum(1)  # 0 is the best
    broken = np.isnan(logits).any(1)
    said = predicted(logits)
    said = np.where(broken & (said == labels), (labels + 1) % classes, said)
    confusion = np.zeros((classes, classes), np.int64)
    np.add.at(confusion, (labels, said), 1)
    return Metrics(
        images=count,
        top1=float(((rank < 1) & ~broken).mean()),
        top5=float(((rank < 5) & ~broken).mean()),
        loss=float(_loss(logits, labels, ending)),
        confusion=confusion,
    )


def _loss(logits: np.ndarray, labels: np.ndarray, ending: Ending) -> float:
    true = logits[np.arange(len(labels)), labels]
    if ending == "softmax":
        log_total = np.log(np.exp(logits - logits.max(1, keepdims=True)).sum(1)) + logits.max(1)
        return (log_total - true).mean()
    if ending == "none":
        return np.nan
    return (np.logaddexp(0, logits).sum(1) - true).mean() / logits.shape[1]


def average_precision(scores: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Average precision (A,) of scores (N, A): the sum over thresholds of precision times the rise in recall.

    `present` (N, A) is 1, 0, or NaN for unknown, which is not counted. Equal scores share a threshold, so their order
    is meaningless; NaN is the lowest score. NaN for a label that no image is known to have.
    """
    return np.array([_average_precision(*column) for column in zip(scores.T, present.T, strict=True)], np.float64)


def _average_precision(scores: np.ndarray, present: np.ndarray) -> float:
    known = ~np.isnan(present)
    values, right = np.nan_to_num(scores[known].astype(np.float64), nan=-np.inf, posinf=np.inf), present[known] > 0
    if not right.any():
        return np.nan
    order = np.argsort(-values, kind="stable")
    values, hits = values[order], np.cumsum(right[order])
    last = np.flatnonzero(np.append(values[1:] != values[:-1], True))  # of each threshold
    rise = np.diff(hits[last], prepend=0) / hits[-1]
    return float((hits[last] / (last + 1) * rise).sum())


def _binary_cross_entropy(logits: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Per image and label, float64 (N, A); NaN where unknown."""
    logits = logits.astype(np.float64)
    with np.errstate(invalid="ignore"):  # an answer that is not a number has no loss
        return np.logaddexp(0, logits) - present * logits


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else np.nan


def predicted(logits: np.ndarray) -> np.ndarray:
    """The predicted class (N,) of each image: the first of the highest logits, as `Classification.answer` ranks them.

    Logits of bytes tie often.
    """
    return logits.argmax(1)


def most_confused(confusion: np.ndarray, most: int) -> list[tuple[int, int, int]]:
    """The largest entries off the diagonal, at most `most`: (count, true class, predicted class)."""
    wrong = confusion.copy()
    np.fill_diagonal(wrong, 0)
    true, taken = np.nonzero(wrong)
    counts = wrong[true, taken]
    order = np.argsort(-counts, kind="stable")[:most]
    return [(int(counts[k]), int(true[k]), int(taken[k])) for k in order]
