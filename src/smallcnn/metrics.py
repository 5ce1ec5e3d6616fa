"""How good answers are: top-1, top-5, the confusion matrix."""

from dataclasses import dataclass

import numpy as np

from smallcnn.ending import Ending


@dataclass(frozen=True)
class Metrics:
    """Counts over a set of images. `confusion[i, j]` is how many of class i were taken for class j."""

    images: int
    top1: float
    top5: float
    loss: float
    confusion: np.ndarray


def measure(logits: np.ndarray, labels: np.ndarray, ending: Ending = "softmax") -> Metrics:
    """From logits (N, classes) and labels (N,), N at least 1.

    `loss` is the mean cross-entropy: of the softmax, or of each sigmoid by itself; not a number for scores. A tie
    counts against the network, in the confusion matrix too, and so does a logit that is not a number.
    """
    count, classes = logits.shape
    if not count:
        raise ValueError("no predictions to measure")
    logits = logits.astype(np.float64)
    rows = np.arange(count)
    true = logits[rows, labels]
    rank = (~(logits < true[:, None])).sum(1)  # 1 is the best
    confusion = np.zeros((classes, classes), np.int64)
    np.add.at(confusion, (labels, taken_for(logits, labels)), 1)
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


def taken_for(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The class (N,) that each image is taken for: its own only if no other logit is as high."""
    others = logits.astype(np.float64)
    rows = np.arange(len(labels))
    true = others[rows, labels]
    others[rows, labels] = -np.inf
    best = others.argmax(1)
    return np.where(true > others[rows, best], labels, best)


def most_confused(confusion: np.ndarray, most: int) -> list[tuple[int, int, int]]:
    """The largest entries off the diagonal, at most `most`: (count, true class, taken for)."""
    true, taken = np.nonzero(confusion)
    wrong = true != taken
    true, taken = true[wrong], taken[wrong]
    counts = confusion[true, taken]
    order = np.argsort(-counts, kind="stable")[:most]
    return [(int(counts[k]), int(true[k]), int(taken[k])) for k in order]
