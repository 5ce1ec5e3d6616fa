"""Endings: the function that turns a network's outputs into answers. It belongs to the model.

softmax   one of the classes: probabilities that sum to 1
sigmoid   independent labels: each has its own probability
none      scores, not probabilities: only their order is meaningful

The graph always stops at the logits, before the ending, so that every engine, training and temperature scaling see the
same numbers. A network with a single yes/no output has two logits, 0 and z, whose softmax is 1 - p and p
(see `logits.to_logits`).
"""

from typing import Literal, get_args

import numpy as np

from smallcnn.errors import FileError
from smallcnn.ir.checks import shown

Ending = Literal["softmax", "sigmoid", "none"]

PRESENT = 0.5
"""The probability from which an independent label counts as present."""


def check_ending(said: str) -> Ending:
    """`said`, if it is an ending; FileError otherwise."""
    for ending in get_args(Ending):
        if said == ending:
            return ending
    raise FileError(f"its ending is {shown(said)}; there are {', '.join(get_args(Ending))}")


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities (..., classes) in float64 for logits (..., classes)."""
    powers = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def probabilities(logits: np.ndarray, ending: Ending) -> np.ndarray:
    """Probabilities of logits (..., classes), float64; the scores themselves if the ending is "none"."""
    if ending == "softmax":
        return softmax(logits)
    if ending == "none":
        return logits.astype(np.float64)
    small = np.exp(-np.abs(logits.astype(np.float64)))  # never overflows
    return np.where(logits < 0, small, 1.0) / (1 + small)


def logits_of(answers: np.ndarray, ending: Ending) -> np.ndarray:
    """The inverse of `probabilities`, float32; for softmax up to an additive constant. 0 and 1 become finite."""
    least = np.finfo(np.float32).tiny
    if ending == "softmax":
        return np.log(np.maximum(answers, least))
    if ending == "none":
        return answers
    rest = np.maximum(1 - answers, np.finfo(np.float32).epsneg / 2)  # half the spacing of float32 below 1
    return np.log(np.maximum(answers, least)) - np.log(rest)
