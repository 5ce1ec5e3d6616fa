"""Single pictures worth a look: wrong and sure of it, and those the network is least sure of."""

from dataclasses import dataclass

import numpy as np

from smallcnn.metrics import softmax, taken_for


@dataclass(frozen=True)
class Sample:
    """A picture at `place` among the answers, with the probability of the class it was taken for."""

    place: int
    true: int
    taken: int
    probability: float


def surest_mistakes(logits: np.ndarray, labels: np.ndarray, most: int) -> list[Sample]:
    """Wrong answers, the highest probability first."""
    samples = _samples(logits, labels)
    return sorted((one for one in samples if one.true != one.taken), key=lambda one: -one.probability)[:most]


def least_certain(logits: np.ndarray, labels: np.ndarray, most: int) -> list[Sample]:
    """Right and wrong answers, the lowest probability first."""
    return sorted(_samples(logits, labels), key=lambda one: one.probability)[:most]


def _samples(logits: np.ndarray, labels: np.ndarray) -> list[Sample]:
    said = taken_for(logits, labels)
    highest = softmax(logits)[np.arange(len(said)), said]
    columns = (labels.tolist(), said.tolist(), highest.tolist())
    return [Sample(place, *values) for place, values in enumerate(zip(*columns, strict=True))]
