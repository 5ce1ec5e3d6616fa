"""Images worth a look: the most confident errors and the least certain answers."""

from dataclasses import dataclass

import numpy as np

from smallcnn.tasks.ending import Ending, probabilities
from smallcnn.tasks.metrics import predicted


@dataclass(frozen=True)
class Sample:
    """An image at index `place` of the answers, with the predicted class `taken` and its probability."""

    place: int
    true: int
    taken: int
    probability: float


def surest_mistakes(logits: np.ndarray, labels: np.ndarray, most: int, ending: Ending = "softmax") -> list[Sample]:
    """Wrong answers, highest probability first."""
    said, probability = _answers(logits, ending)
    wrong = np.flatnonzero(said != labels)
    return _samples(wrong[np.argsort(-probability[wrong], kind="stable")][:most], said, probability, labels)


def least_certain(logits: np.ndarray, labels: np.ndarray, most: int, ending: Ending = "softmax") -> list[Sample]:
    """Right and wrong answers, lowest probability first."""
    said, probability = _answers(logits, ending)
    return _samples(np.argsort(probability, kind="stable")[:most], said, probability, labels)


def _answers(logits: np.ndarray, ending: Ending) -> tuple[np.ndarray, np.ndarray]:
    """The predicted class (N,) of each image and its probability (N,)."""
    said = predicted(logits)
    return said, probabilities(logits, ending)[np.arange(len(said)), said]


def _samples(places: np.ndarray, said: np.ndarray, probability: np.ndarray, labels: np.ndarray) -> list[Sample]:
    return [Sample(i, int(labels[i]), int(said[i]), float(probability[i])) for i in places.tolist()]
