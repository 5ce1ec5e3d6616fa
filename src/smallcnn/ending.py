"""What turns a network's outputs into answers: the ending, which belongs to the model.

softmax   one of the classes: probabilities that sum to 1
sigmoid   each label by itself: independent probabilities, any number of which may be high
none      scores, which are no probabilities: only their order means something

The graph always stops before its ending, at the logits, so that every engine, training and temperature see the same
numbers. A network with one output that means yes or no has two logits, 0 and z, whose softmax is 1 - p and p
(`logits.to_logits` makes them).
"""

from typing import Literal, get_args

import numpy as np

from smallcnn.checks import shown
from smallcnn.errors import FileError

Ending = Literal["softmax", "sigmoid", "none"]

PRESENT = 0.5
"""A label is present, if labels are independent, from this probability on."""


def check_ending(said: str) -> Ending:
    """`said`, if there is such an ending; FileError otherwise."""
    for ending in get_args(Ending):
        if said == ending:
            return ending
    raise FileError(f"its ending is {shown(said)}; there are {', '.join(get_args(Ending))}")


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities (..., classes) in float64 for logits (..., classes)."""
    powers = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def probabilities(logits: np.ndarray, ending: Ending) -> np.ndarray:
    """What logits (..., classes) say, float64: probabilities, or the scores themselves if the ending is "none"."""
    if ending == "softmax":
        return softmax(logits)
    if ending == "none":
        return logits.astype(np.float64)
    small = np.exp(-np.abs(logits.astype(np.float64)))  # never overflows
    return np.where(logits < 0, small, 1.0) / (1 + small)


def logits_of(answers: np.ndarray, ending: Ending) -> np.ndarray:
    """The inverse of `probabilities`, float32: for softmax up to a number added to all. 0 and 1 become finite."""
    least = np.finfo(np.float32).tiny
    if ending == "softmax":
        return np.log(np.maximum(answers, least))
    if ending == "none":
        return answers
    rest = np.maximum(1 - answers, np.finfo(np.float32).epsneg / 2)  # half of the last step below 1
    return np.log(np.maximum(answers, least)) - np.log(rest)
