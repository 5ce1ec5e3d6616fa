"""From logits to probabilities, and how good they are: top-1, top-5, the confusion matrix."""

from dataclasses import dataclass

import numpy as np


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities (classes,) in float64 for the logits (classes,) of one picture."""
    powers = np.exp(logits.astype(np.float64) - logits.max())
    return powers / powers.sum()


@dataclass(frozen=True)
class Metrics:
    """Counts over a set of pictures. `confusion[i, j]` is how many of class i were taken for class j."""

    images: int
    top1: float
    top5: float
    loss: float
    confusion: np.ndarray


def measure(logits: np.ndarray, labels: np.ndarray) -> Metrics:
    """From logits (N, classes) and labels (N,), N at least 1; `loss` is the mean cross-entropy.

    A tie counts against the network, in the confusion matrix too, and so does a logit that is not a number.
    """
    count, classes = logits.shape
    if not count:
        raise ValueError("no predictions to measure")
    logits = logits.astype(np.float64)
    rows = np.arange(count)
    true = logits[rows, labels]
    rank = (~(logits < true[:, None])).sum(1)  # 1 is the best
    log_total = np.log(np.exp(logits - logits.max(1, keepdims=True)).sum(1)) + logits.max(1)
    logits[rows, labels] = -np.inf
    taken_for = np.where(rank == 1, labels, logits.argmax(1))
    confusion = np.zeros((classes, classes), np.int64)
    np.add.at(confusion, (labels, taken_for), 1)
    return Metrics(
        images=count,
        top1=float((rank == 1).mean()),
        top5=float((rank <= 5).mean()),
        loss=float((log_total - true).mean()),
        confusion=confusion,
    )
