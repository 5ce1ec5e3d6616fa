"""Calibration: whether a network is right as often as its probabilities say, and temperature scaling to correct it.

Guo et al. 2017, "On Calibration of Modern Neural Networks", arXiv 1706.04599: expected calibration error over 15 bins
(equation 3), and temperature scaling (section 4.2): logits divided by the temperature with the lowest cross-entropy.
"""

from dataclasses import dataclass, replace

import numpy as np

from smallcnn.errors import GraphError
from smallcnn.ir import ops
from smallcnn.ir.graph import Node
from smallcnn.ir.rewrite import rewrite
from smallcnn.model.model import Model
from smallcnn.tasks.ending import Ending, probabilities, softmax
from smallcnn.tasks.metrics import measure, predicted
from smallcnn.transform.adapt import classifier

BINS = 15
_ROWS = 256
_PRECISION = 1e-9  # relative precision of the temperature
_COLDEST, _HOTTEST = 0.02, 50.0
"""A temperature outside means there is no optimum: every image is correct, or the logits carry no information."""


@dataclass(frozen=True)
class Reliability:
    """Images by the probability of the predicted class: `BINS` bins of equal width, (low, high].

    `confidence` and `accuracy` are the means of each bin, NaN where `count` is 0. `error` is the expected calibration
    error, `loss` the mean cross-entropy, NaN where there is none.
    """

    count: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray
    error: float
    loss: float


@dataclass(frozen=True)
class Calibration:
    """Reliability `before` and `after` dividing the logits by `temperature`.

    `after` is cross-validated: each half of the images uses the temperature of the other half. `temperature` and
    `after` are None if no temperature can be fitted.
    """

    before: Reliability
    temperature: float | None
    after: Reliability | None


def calibrate(logits: np.ndarray, labels: np.ndarray, ending: Ending = "softmax") -> Calibration:
    """Calibration from logits (N, classes) and labels (N,); a half is every second image. Only a softmax is scaled."""
    before = reliability(logits, labels, ending)
    if ending != "softmax":
        return Calibration(before, None, None)
    temperature = fit_temperature(logits, labels)
    even, odd = (fit_temperature(logits[start::2], labels[start::2]) for start in (0, 1))
    if temperature is None or even is None or odd is None:
        return Calibration(before, None, None)
    scaled = logits.astype(np.float64)
    scaled[0::2] /= odd
    scaled[1::2] /= even
    return Calibration(before, temperature, reliability(scaled, labels, ending))


def reliability(logits: np.ndarray, labels: np.ndarray, ending: Ending = "softmax") -> Reliability:
    """Reliability from logits (N, classes) and labels (N,), N at least 1."""
    right = predicted(logits) == labels
    return replace(binned(probabilities(logits, ending).max(1), right), loss=measure(logits, labels, ending).loss)


def binned(confidence: np.ndarray, right: np.ndarray) -> Reliability:
    """Reliability of answers from their probabilities (N,) and whether each is right (N,); without loss."""
    place = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    count = np.bincount(place, minlength=BINS)
    with np.errstate(invalid="ignore"):
        mean_confidence, accuracy = (np.bincount(place, values, BINS) / count for values in (confidence, right))
    gaps = np.nan_to_num(np.abs(accuracy - mean_confidence))
    return Reliability(count, mean_confidence, accuracy, float(gaps @ count / max(len(right), 1)), np.nan)


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float | None:
    """The temperature with the lowest mean cross-entropy; None if there is none within bounds.

    The cross-entropy is convex in the inverse temperature, so its slope has one zero. It is found by Newton's method on
    the logarithm, with bisection where a step would leave the range.
    """
    if not len(labels):
        return None
    low, high = np.log(1 / _HOTTEST), np.log(1 / _COLDEST)
    if not _slope(logits, labels, low)[0] < 0 < _slope(logits, labels, high)[0]:
        return None
    at, before = 0.0, np.inf
    while abs(at - before) > _PRECISION:
        slope, rise = _slope(logits, labels, at)
        low, high = (at, high) if slope < 0 else (low, at)
        newton = at - slope / rise if rise > 0 else np.inf
        at, before = newton if low < newton < high else (low + high) / 2, at
    return float(np.exp(-at))


def _slope(logits: np.ndarray, labels: np.ndarray, at: float) -> tuple[float, float]:
    """The slope of the cross-entropy over the inverse temperature exp(`at`), and the slope's derivative by `at`."""
    total = rise = 0.0
    for start in range(0, len(labels), _ROWS):  # all of ImageNet at once would take gigabytes, and be slower
        part, own = logits[start : start + _ROWS].astype(np.float64), labels[start : start + _ROWS]
        weighted = softmax(part * np.exp(at))
        expected = (weighted * part).sum(1)
        total += float((expected - part[np.arange(len(own)), own]).sum())
        rise += float((weighted * (part - expected[:, None]) ** 2).sum()) * float(np.exp(at))
    return total, rise


def calibrated(model: Model, temperature: float) -> Model:
    """The network with its logits divided by `temperature` in the weights of its last layer, for any engine.

    Raises GraphError if a node after that layer does not pass a factor on.
    """
    graph = model.graph
    last = classifier(graph)
    after = graph.nodes[graph.nodes.index(last) + 1 :]
    scaled = rewrite(graph, ops={node.name: _scaled(node, 1 / temperature) for node in after})
    mine = {f"{last.name}.{key}" for key in graph.weights_of(last)}
    weights = {
        name: (value / np.float64(temperature)).astype(np.float32) if name in mine else value
        for name, value in model.weights.items()
    }
    return replace(model, graph=scaled, weights=weights)


def _scaled(node: Node, factor: float) -> ops.Op:
    """The operator to put in place of the node's when its input is multiplied by `factor`."""
    match node.op:
        case ops.Clip() as op:
            return replace(op, low=op.low * factor, high=op.high * factor)
        case ops.Activation(function="relu" | "leaky_relu"):
            return node.op
        case ops.GlobalPool() | ops.Pool() | ops.Flatten() | ops.Dropout():
            return node.op
    raise GraphError(f"cannot be calibrated: {node.name} ({node.op.kind}) after the last weights is not linear")
