"""Which detection finds which object: COCO's greedy matching, for any number of images at once.

In each image the detections of a class choose in the order of their scores. Each takes the object of its class with the
highest intersection over union (IoU) that reaches the threshold and is still free; an object to be found goes before
one to be ignored. A crowd, and an object that is difficult, is taken any number of times. The IoU with a crowd is the
share of the detection's area inside it.

Definition: `COCOeval.evaluateImg` and `maskApi.c: bbIou` of pycocotools; for difficult objects `VOCevaldet.m`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from smallcnn.tasks.detection import DetectionAnswer
from smallcnn.tasks.objects import CROWD, PLAIN, Detections, Objects

_PAIRS = 1 << 20
"""Most pairs of detection and object whose IoU is computed together, which bounds the memory."""


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs (P,) of a detection and an object in the same image, by their indices, and their IoU."""

    detections: np.ndarray
    objects: np.ndarray
    iou: np.ndarray


def by_score(detections: Detections) -> tuple[np.ndarray, np.ndarray]:
    """The order of the detections by image and falling score, ties as they came; and each one's rank in its image."""
    order = np.lexsort((-detections.scores, detections.images))
    images = detections.images[order]
    return order, np.arange(len(order)) - np.searchsorted(images, images)


def pairs(detections: Detections, objects: Objects, least: float, *, crowds: bool = True) -> Pairs:
    """The pairs with an IoU of at least `least`, whatever their classes. Both tables go image by image.

    Without `crowds` the IoU with a crowd is that with any other object.
    """
    first, last = (np.searchsorted(objects.images, detections.images, side) for side in ("left", "right"))
    found = [Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))]
    for chunk in _chunks(last - first):
        count = last[chunk] - first[chunk]
        mine = np.repeat(np.arange(chunk.start, chunk.stop), count)
        theirs = np.arange(count.sum()) + np.repeat(first[chunk] - np.cumsum(count) + count, count)
        iou = overlap(detections.boxes[mine], objects.boxes[theirs], crowd=(objects.flags[theirs] == CROWD) & crowds)
        near = iou >= least
        found.append(Pairs(mine[near], theirs[near], iou[near]))
    return Pairs(*(np.concatenate([getattr(one, name) for one in found]) for name in ("detections", "objects", "iou")))


def overlap(boxes: np.ndarray, others: np.ndarray, crowd: np.ndarray | bool = False) -> np.ndarray:
    """IoU (...,) of boxes (..., 4) with others; where these are a `crowd`, the share of the box inside. 0 if empty."""
    inside = np.minimum(boxes[..., 2:], others[..., 2:]) - np.maximum(boxes[..., :2], others[..., :2])
    shared = np.where((inside > 0).all(-1), inside.prod(-1), 0.0)
    area, other = area_of(boxes), area_of(others)
    union = np.where(crowd, area, area + other - shared)
    return np.divide(shared, union, out=np.zeros_like(shared), where=shared > 0)


def area_of(boxes: np.ndarray) -> np.ndarray:
    """Areas (...,) of boxes (..., 4)."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def match(rank: np.ndarray, objects: Objects, near: Pairs, ignored: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """The object that each detection takes at each threshold, (T, D): its index, or -1 for none.

    The detections have the `rank` (D,) in their image, all tables are of one class, and `ignored` (B,) marks the
    objects that need not be found.
    """
    taken = np.full((len(thresholds), len(rank)), -1, np.int64)
    free = np.ones((len(thresholds), len(objects)), bool)
    endless = objects.flags != PLAIN
    # the last pair of a detection that is still possible is the one it takes; of equal ones COCO takes the later object
    order = np.lexsort((near.objects, near.iou, ~ignored[near.objects], near.detections, rank[near.detections]))
    mine, theirs, iou = near.detections[order], near.objects[order], near.iou[order]
    reaches = iou >= np.minimum(thresholds, 1 - 1e-10)[:, None]
    for start, stop in _runs(rank[mine]):  # images side by side, each one's detections in turn
        which, first = np.unique(mine[start:stop], return_index=True)
        own = theirs[start:stop]
        possible = reaches[:, start:stop] & (free[:, own] | endless[own])
        best = np.maximum.reduceat(np.where(possible, np.arange(stop - start), -1), first, axis=1)
        level, place = np.nonzero(best >= 0)
        chosen = own[best[level, place]]
        free[level, chosen] = False
        taken[level, which[place]] = chosen
    return taken


def match_classes(
    detections: Detections, objects: Objects, classes: int, threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    """The object that each detection takes at one threshold, and its rank among those of its class in its image, (D,).

    Detections and objects are of `classes` classes, in any order; those flagged need not be found.
    """
    mine, theirs = (table.images * classes + table.classes for table in (detections, objects))
    place = np.argsort(theirs, kind="stable")
    order, rank = by_score(replace(detections, images=mine))
    found = replace(detections.take(order), images=mine[order])
    sorted_objects = replace(objects.take(place), images=theirs[place])
    near = pairs(found, sorted_objects, threshold)
    (taken,) = match(rank, sorted_objects, near, sorted_objects.flags != PLAIN, np.array([threshold]))
    takes, ranks = np.empty_like(order), np.empty_like(order)
    takes[order] = np.where(taken < 0, -1, np.append(place, -1)[taken])
    ranks[order] = rank
    return takes, ranks


def found_by_both(one: DetectionAnswer, other: DetectionAnswer) -> int:
    """The number of objects that two answers to an image have in common: of one class, with an IoU of at least 0.5.

    By falling score, each takes the nearest that is still free.
    """
    free = np.ones(len(other.scores), bool)
    for box, number in zip(one.boxes, one.classes, strict=True):
        near = np.where(free & (other.classes == number), overlap(box[None], other.boxes), 0)
        if near.size and near.max() >= 0.5:
            free[near.argmax()] = False
    return int((~free).sum())


def _chunks(counts: np.ndarray) -> Iterator[slice]:
    """Slices of `counts` whose sums are at most `_PAIRS`, or that hold one."""
    ends = np.cumsum(counts)
    start = 0
    while start < len(counts):
        before = ends[start - 1] if start else 0
        stop = max(int(np.searchsorted(ends, before + _PAIRS, "right")), start + 1)
        yield slice(start, stop)
        start = stop


def _runs(values: np.ndarray) -> Iterator[tuple[int, int]]:
    """Start and end of each run of equal numbers in sorted `values`."""
    edges = np.flatnonzero(np.diff(values, prepend=-1, append=-1)) if len(values) else np.zeros(0, np.int64)
    return zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)
