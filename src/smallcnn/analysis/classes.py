"""Class by class: how many are found, how many of those named are right, and which are taken for which."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from smallcnn.metrics import most_confused, taken_for


@dataclass(frozen=True)
class ClassScore:
    """One class; `support` images are of it, `named` were taken for it.

    `recall` (found of the support), `precision` (right of the named) and `f1` (their harmonic mean) are None where
    there is nothing to divide by.
    """

    label: str
    support: int
    named: int
    recall: float | None
    precision: float | None
    f1: float | None


@dataclass(frozen=True)
class Pair:
    """`count` images of class `true` were taken for class `taken`; `places` are theirs among the answers."""

    true: int
    taken: int
    count: int
    places: tuple[int, ...]


def class_scores(confusion: np.ndarray, labels: Sequence[str]) -> list[ClassScore]:
    """One per class, in the order of the labels."""
    scores = []
    for right, support, named, label in zip(
        np.diag(confusion).tolist(), confusion.sum(1).tolist(), confusion.sum(0).tolist(), labels, strict=True
    ):
        scores.append(
            ClassScore(
                label, support, named, _part(right, support), _part(right, named), _part(2 * right, support + named)
            )
        )
    return scores


def confused_pairs(confusion: np.ndarray, logits: np.ndarray, labels: np.ndarray, most: int) -> list[Pair]:
    """The pairs with the most images, largest first."""
    said = taken_for(logits, labels)
    return [
        Pair(true, taken, count, tuple(np.flatnonzero((labels == true) & (said == taken)).tolist()))
        for count, true, taken in most_confused(confusion, most)
    ]


def _part(count: int, total: int) -> float | None:
    return count / total if total else None
