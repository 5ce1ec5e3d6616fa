"""The definition of `ir.ops.Detect` for one image. Inputs, boxes, scores and their comparisons are float32, as in every
engine; exp, tanh, powers and sums of them are computed in float64 and rounded once, so that they depend on no library.
"""

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from smallcnn.ir import ops

Array = np.ndarray

_FIRST, _MORE = 4, 8
"""Boxes looked at first, per object to keep; and how many times as many whenever those were too few."""


def detect(op: ops.Detect, coded: Array, scores: Array, objectness: Array | None = None) -> Array:
    """Codes (N, 4), raw scores (N, C), objectness (N, 1) -> (most, 6): left, top, right, bottom, score, class."""
    boxes = decoded(op, np.asarray(coded, np.float32))
    likely = probabilities(op, np.asarray(scores, np.float32), objectness)
    if op.across:
        best = likely.argmax(1)
        anchor = np.flatnonzero(likely.max(1) > np.float32(op.threshold))
        number = best[anchor]
        group = np.zeros_like(number)
    else:
        anchor, number = np.nonzero(likely > np.float32(op.threshold))
        group = number
    score = likely[anchor, number]
    kept = suppressed(op, boxes[anchor], score, group, anchor)
    kept = kept[np.lexsort((anchor[kept], number[kept], -score[kept]))]
    found = np.zeros((op.most, 6), np.float32)
    found[: len(kept)] = np.concatenate([boxes[anchor[kept]], score[kept, None], number[kept, None]], 1)
    return found


@lru_cache(maxsize=8)
def anchors(op: ops.Detect) -> Array:
    """Centre x, centre y, width, height of every anchor, (N, 4) float32, read-only."""
    boxes = np.array([box for grid in op.anchors for box in grid.boxes()], np.float32)
    boxes.flags.writeable = False
    return boxes


def decoded(op: ops.Detect, coded: Array) -> Array:
    """Left, top, right, bottom (N, 4) float32 of the coded boxes."""
    place = anchors(op)
    code = coded[:, [1, 0, 3, 2]] if op.y_first else coded
    shift = _rounded(np.tanh, code[:, :2]) if op.centre == "tanh" else code[:, :2]
    centre = place[:, :2] + shift * np.float32(op.centre_scale) * place[:, 2:]
    grown = code[:, 2:] * np.float32(op.size_scale)
    match op.size:
        case "exp":
            grown = _rounded(np.exp, np.minimum(grown, np.float32(op.EXP_LIMIT)))
        case "sigmoid":
            grown = _rounded(_sigmoid, grown)
        case "linear":
            grown = np.maximum(grown, 0)
    half = grown * place[:, 2:] / 2
    boxes = np.concatenate([centre - half, centre + half], 1)
    return np.clip(boxes, 0, 1) if op.clip else boxes


def probabilities(op: ops.Detect, scores: Array, objectness: Array | None = None) -> Array:
    """The score of every anchor for every class of objects, (N, classes) float32."""
    match op.score:
        case "sigmoid":
            scores = _rounded(_sigmoid, scores)
        case "softmax":
            scores = _rounded(_softmax, scores)
    scores = scores[:, 1:] if op.background else scores
    if objectness is None:
        return scores
    own, power = np.asarray(objectness, np.float32), op.objectness_power
    return _rounded(lambda score: np.float64(own) ** power * np.maximum(score, 0) ** (1 - power), scores)


def suppressed(op: ops.Detect, boxes: Array, scores: Array, groups: Array, anchors: Array) -> Array:
    """The places that greedy non-maximum suppression keeps among boxes (n, 4), at most `most`, in the order it does.

    Boxes of one group suppress each other. Equal scores are taken by group, then by anchor. Only the best boxes are
    looked at, as long as they suffice: whether a box is kept depends on none after it.
    """
    count = _FIRST * op.most
    while True:
        best = np.arange(len(scores))
        if count < len(scores):
            best = np.flatnonzero(scores >= np.partition(scores, -count)[-count])
        order = best[np.lexsort((anchors[best], groups[best], -scores[best]))]
        kept: list[int] = []
        while len(order) and len(kept) < op.most:
            first, order = order[0], order[1:]
            kept.append(int(first))
            rivals = np.flatnonzero(groups[order] == groups[first])
            if len(rivals):
                beaten = overlap(boxes[first], boxes[order[rivals]]) > np.float32(op.overlap)
                order = np.delete(order, rivals[beaten])
        if len(kept) == op.most or len(best) == len(scores):
            return np.array(kept, np.int64)
        count *= _MORE


def overlap(box: Array, others: Array) -> Array:
    """Intersection over union (N,) of a box (4,) with others (N, 4); 0 where the union is empty."""
    sides = np.maximum(np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2]), 0)
    shared = sides[:, 0] * sides[:, 1]
    union = _area(box[None]) + _area(others) - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def _area(boxes: Array) -> Array:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def _rounded(function: Callable[[Array], Array], x: Array) -> Array:
    """A function in float64, rounded to float32."""
    with np.errstate(over="ignore"):
        return function(np.asarray(x, np.float64)).astype(np.float32)


def _sigmoid(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-x)))


def _softmax(x: Array) -> Array:
    powers = np.exp(x - x.max(1, keepdims=True))
    return np.asarray(powers / powers.sum(1, keepdims=True))
