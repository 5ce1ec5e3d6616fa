"""Classification metrics: top-1, top-5, the confusion matrix."""

from dataclasses import dataclass

import numpy as np

from smallcnn.tasks.ending import Ending


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
    true, said = np.nonzero(confusion)
    wrong = true != said
    true, said = true[wrong], said[wrong]
    counts = confusion[true, said]
    order = np.argsort(-counts, kind="stable")[:most]
    return [(int(counts[k]), int(true[k]), int(said[k])) for k in order]
