"""Which objects of a detector are certain, and which are possible, if its numbers are off by rounding.

Two engines agree on a code and on a score to some digits; which box of two suppresses the other may hang on the next
one. Every candidate of `reference.detection` therefore is

    suppressed   by a certain object of a clearly higher score, which clearly overlaps it
    certain      if its score is clearly above the threshold, no other possible object may suppress it, and fewer than
                 `most` may come before it
    possible     otherwise

Clearly means: by more than any error within the tolerance explains. An engine is right if it gives every certain object
and nothing that is not at least possible.
"""

import numpy as np

from smallcnn.ir import ops
from smallcnn.reference.detection import decoded, probabilities

Array = np.ndarray

_LEAST, _TIMES = 1024, 16
"""Candidates looked at, the best: so many, or as many times what is kept. A tolerance as wide as that of whole numbers
leaves thousands undecided. An object beyond them counts as not possible, so that an answer with it is refused."""


def sightings(
    op: ops.Detect, coded: Array, scores: Array, objectness: Array | None, tolerance: float
) -> tuple[Array, Array]:
    """The objects that are at least possible, (n, 6) by falling score as `Detect` gives them, and which are certain.

    `tolerance` is the error of a score, relative to the highest one, and of a box, in sides of the input.
    """
    boxes = decoded(op, np.asarray(coded, np.float32)).astype(np.float64)
    likely = probabilities(op, np.asarray(scores, np.float32), objectness).astype(np.float64)
    apart = tolerance * float(likely.max(initial=0))
    close = likely >= likely.max(1, keepdims=True) - 2 * apart if op.across else np.ones_like(likely, bool)
    anchor, number = np.nonzero(close & (likely > op.threshold - apart))
    score = likely[anchor, number]
    order = np.argsort(-score, kind="stable")[: max(_LEAST, _TIMES * op.most)]
    anchor, number, score = anchor[order], number[order], score[order]
    group = np.zeros_like(number) if op.across else number
    alone = np.ones(len(anchor), bool) if not op.across else close.sum(1)[anchor] == 1
    found: list[int] = []
    certain = np.zeros(len(anchor), bool)
    for i in range(len(anchor)):
        if np.count_nonzero(certain[found] & (score[found] > score[i] + 2 * apart)) >= op.most:
            break
        window = int(np.searchsorted(-score, -(score[i] - 2 * apart), side="right"))
        rivals = np.array([*found, *range(i + 1, window)], np.int64)
        rivals = rivals[(group[rivals] == group[i]) & (anchor[rivals] != anchor[i])]
        low, high = overlaps(boxes[anchor[i]], boxes[anchor[rivals]], tolerance)
        if (certain[rivals] & (score[rivals] > score[i] + 2 * apart) & (low > op.overlap)).any():
            continue
        clear = not (high > op.overlap).any() and score[i] > op.threshold + apart
        certain[i] = clear and alone[i]
        found.append(i)
    kept = np.array(found, np.int64)
    rows = np.concatenate([boxes[anchor[kept]], score[kept, None], number[kept, None]], 1)
    before = (rows[:, 4] >= rows[:, 4, None] - 2 * apart).sum(1)
    return rows, certain[kept] & (before <= op.most)


def overlaps(box: Array, others: Array, error: float) -> tuple[Array, Array]:
    """The least and the largest intersection over union of a box (4,) with others (n, 4) whose sides are all off by up
    to `error`."""
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    areas = [
        (
            np.maximum(box[2:] - box[:2] + 2 * off, 0).prod(),
            np.maximum(others[:, 2:] - others[:, :2] + 2 * off, 0).prod(1),
        )
        for off in (-error, error)
    ]
    bounds = []
    for off, (own, other) in ((-error, areas[1]), (error, areas[0])):
        shared = np.maximum(sides + 2 * off, 0).prod(1)
        union = own + other - shared
        ratio = np.divide(shared, union, out=np.full_like(shared, np.inf), where=union > 0)
        bounds.append(np.where(shared > 0, np.minimum(ratio, 1), 0))
    return bounds[0], bounds[1]
