"""Metrics: a task's scores by name; for classification also the confusion matrix."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from smallcnn.errors import GraphError
from smallcnn.tasks.attributes import Attributes
from smallcnn.tasks.classification import Classification
from smallcnn.tasks.ending import Ending
from smallcnn.tasks.task import Task


def scores(task: Task, outputs: Mapping[str, np.ndarray], targets: np.ndarray) -> dict[str, float]:
    """How well outputs (N, ...) by name answer the task, given its targets as in a batch (see `data.targets`).

    classification   top1, top5, loss                       of labels (N,)
    attributes       mean_average_precision, loss           of present (N, A)

    A score that the targets do not determine is NaN. Raises ValueError for no image.
    """
    if isinstance(task, Classification):
        (logits,) = outputs.values()
        found = measure(logits, targets, task.ending)
        return {"top1": found.top1, "top5": found.top5, "loss": found.loss}
    if isinstance(task, Attributes):
        (logits,) = outputs.values()
        if not len(logits):
            raise ValueError("no predictions to measure")
        precision = average_precision(logits, targets)
        return {
            "mean_average_precision": _mean(precision[~np.isnan(precision)]),
            "loss": _mean(_binary_cross_entropy(logits, targets)[~np.isnan(targets)]),
        }
    raise GraphError(f"there are no scores for {task.kind}")


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

    `loss` is the mean cross-entropy of the softmax or of each sigmoid; NaN for scores. A tie or a NaN counts as an
    error, in the confusion matrix too.
    """
    count, classes = logits.shape
    if not count:
        raise ValueError("no predictions to measure")
    logits = logits.astype(np.float64)
    rows = np.arange(count)
    true = logits[rows, labels]
    rank = (~(logits < true[:, None])).sum(1)  # 1 is the best
    confusion = np.zeros((classes, classes), np.int64)
    np.add.at(confusion, (labels, predicted(logits, labels)), 1)
    return Metrics(
        images=count,
        top1=float((rank == 1).mean()),
        top5=float((rank <= 5).mean()),
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


def predicted(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The predicted class (N,) of each image: its own only if no other logit is as high."""
    others = logits.astype(np.float64)
    rows = np.arange(len(labels))
    true = others[rows, labels]
    others[rows, labels] = -np.inf
    best = others.argmax(1)
    return np.where(true > others[rows, best], labels, best)


def most_confused(confusion: np.ndarray, most: int) -> list[tuple[int, int, int]]:
    """The largest entries off the diagonal, at most `most`: (count, true class, predicted class)."""
    wrong = confusion.copy()
    np.fill_diagonal(wrong, 0)
    true, taken = np.nonzero(wrong)
    counts = wrong[true, taken]
    order = np.argsort(-counts, kind="stable")[:most]
    return [(int(counts[k]), int(true[k]), int(taken[k])) for k in order]
