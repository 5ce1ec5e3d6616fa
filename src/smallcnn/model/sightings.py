"""A detector's answer to the probe image: what an engine must give, and what it may.

A detector decides between near ties, so two right engines may give other rows; see `reference.certainty`. Besides the
outputs, the answer to compare with says which objects are possible and which of them certain.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from smallcnn.ir import ops
from smallcnn.tasks.detection import BOXES, CLASSES, COUNT, OUTPUTS, SCORES

if TYPE_CHECKING:
    from smallcnn.ir.graph import Graph, Node

POSSIBLE, CERTAIN, TOLERANCE = EXTRA = ("possible", "certain", "tolerance")
"""Beside the outputs: (n, 6) as `ops.Detect` gives rows, (n,) 1 or 0, and (1,), see `certainty.sightings`."""

READ = "read."
Array = np.ndarray


def end_of(graph: "Graph") -> "Node | None":
    """The node that decides, if the network is a detector."""
    found = [node for node in graph if isinstance(node.op, ops.Detect)]
    return found[0] if len(found) == 1 and tuple(graph.results) == OUTPUTS else None


def with_inputs(graph: "Graph") -> "Graph":
    """The network with what its end reads as outputs, too, called by `READ` and the name of the node."""
    from smallcnn.ir.graph import Output

    end = end_of(graph)
    assert end is not None
    read = tuple(Output(READ + name, name) for name in end.inputs)
    return replace(graph, outputs=(*graph.outputs, *read))


def told(graph: "Graph", outputs: Mapping[str, Array], read: list[Array], tolerance: float) -> dict[str, Array]:
    """The answer to compare with: a detector's outputs for one image, and what follows from what its end `read`."""
    from smallcnn.reference.certainty import sightings  # a compiled file runs without it

    end = end_of(graph)
    assert end is not None
    assert isinstance(end.op, ops.Detect)
    rows, certain = sightings(end.op, read[0], read[1], read[2] if len(read) > 2 else None, tolerance)
    return {**outputs, POSSIBLE: rows, CERTAIN: certain.astype(np.float64), TOLERANCE: np.array([tolerance])}


def telling(graph: "Graph", answer: Mapping[str, Array]) -> "Graph | None":
    """A detector with a threshold of 0, if no object in its answer to the probe image is certain.

    Such an answer would say nothing about the network. Its twin, made in the same way, is then compared instead.
    """
    from smallcnn.transform.limits import Limits, limited  # a compiled file runs without it

    if POSSIBLE not in answer or answer[CERTAIN].any():
        return None
    return limited(graph, Limits(threshold=0.0))


def detection_error(got: Mapping[str, Array], wanted: Mapping[str, Array]) -> float:
    """The largest error of any object: of its score, relative to the highest score, or its box, in sides of the input.

    Infinite if a certain object is missing, a row is not possible, or the rows are not as a detector gives them.
    """
    shapes = {name: wanted[name].shape for name in OUTPUTS}
    if {name: value.shape for name, value in got.items()} != shapes:
        return float("inf")
    rows = np.concatenate([got[BOXES], got[SCORES][:, None], got[CLASSES][:, None]], 1).astype(np.float64)
    count, possible = float(got[COUNT][0]), wanted[POSSIBLE]
    real = rows[:, 4] > 0
    falling = (np.diff(rows[:, 4]) <= 0).all()
    if not (np.isfinite(rows).all() and falling and count == real.sum() and not rows[~real].any()):
        return float("inf")
    tolerance = float(wanted[TOLERANCE][0])
    left, worst = np.ones(len(possible), bool), 0.0
    top = float(possible[:, 4].max(initial=np.finfo(np.float32).tiny))
    for row in rows[real]:
        off = np.maximum(np.abs(possible[:, 4] - row[4]) / top, _box_errors(possible[:, :4], row[:4]))
        off = np.where(left & (possible[:, 5] == row[5]), off, np.inf)
        place = int(off.argmin()) if len(off) else 0
        if not len(off) or not off[place] <= tolerance:
            return float("inf")
        left[place] = False
        worst = max(worst, float(off[place]))
    return float("inf") if (left & (wanted[CERTAIN] > 0)).any() else worst


def _box_errors(boxes: Array, box: Array) -> Array:
    """The largest difference of any side, relative to the largest side beyond the input."""
    return np.asarray(np.abs(boxes - box).max(1) / np.maximum(1, np.abs(boxes).max(1)))
