"""Scores per class: precision, recall, F1, and the most confused pairs."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from smallcnn.tasks.metrics import most_confused, predicted


@dataclass(frozen=True)
class ClassScore:
    """Scores of one class: `support` images belong to it, `named` images were predicted as it.

    `recall`, `precision` and `f1` are None where they would divide by zero.
    """

    label: str
    support: int
    named: int
    recall: float | None
    precision: float | None
    f1: float | None


@dataclass(frozen=True)
class Pair:
    """`count` images of class `true` were predicted as class `taken`; `places` are their indices among the answers."""

    true: int
    taken: int
    count: int
    places: tuple[int, ...]


def class_scores(confusion: np.ndarray, labels: Sequence[str]) -> list[ClassScore]:
    """One score per class, in the order of the labels."""
    scores = []
    for right, support, named, label in zip(
        np.diag(confusion).tolist(), confusion.sum(1).tolist(), confusion.sum(0).tolist(), labels, strict=True
    ):
        scores.append(
            ClassScore(
                label, support, named, _share(right, support), _share(right, named), _share(2 * right, support + named)
            )
        )
    return scores


def confused_pairs(confusion: np.ndarray, logits: np.ndarray, labels: np.ndarray, most: int) -> list[Pair]:
    """The pairs with the most images, largest first."""
    said = predicted(logits)
    return [
        Pair(true, taken, count, tuple(np.flatnonzero((labels == true) & (said == taken)).tolist()))
        for count, true, taken in most_confused(confusion, most)
    ]


def _share(count: int, total: int) -> float | None:
    return count / total if total else None
