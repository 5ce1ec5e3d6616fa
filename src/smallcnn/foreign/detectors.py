"""The end of detectors: where their anchors lie, and the four outputs."""

from collections.abc import Sequence

import numpy as np

from smallcnn.errors import FileError
from smallcnn.foreign.network import Network
from smallcnn.foreign.views import Array
from smallcnn.ir import ops
from smallcnn.ir.graph import Node
from smallcnn.ir.ops.detection import Score
from smallcnn.tasks.detection import BOXES, CLASSES, COUNT, SCORES

_EXACT = 1e-6


def grids(net: Network, coded: Node, anchors: Array, rounding: float = 0.0) -> tuple[ops.AnchorGrid, ...]:
    """The grids of anchors (N, 4), centre x, centre y, width, height, for the maps that make up the rows of a code.

    Raises FileError unless every map has its anchors at the centres of its cells, up to `rounding`, and the same sizes
    in each.
    """
    found, start = [], 0
    for rows, columns, each in _maps(net, coded):
        count = rows * columns * each
        block = anchors[start : start + count].reshape(-1, each, 4) if start + count <= len(anchors) else anchors[:0]
        start += count
        sizes = tuple((float(width), float(height)) for width, height in block[0, :, 2:]) if len(block) else ()
        if not sizes or np.abs(block[:, :, 2:] - block[:1, :, 2:]).max() > _EXACT:
            raise FileError(f"has anchors of different sizes in the cells of a map of {rows}x{columns}")
        grid = ops.AnchorGrid(cells=(rows, columns), sizes=sizes, step=(1 / rows, 1 / columns))
        off = np.abs(np.array(grid.boxes()).reshape(-1, each, 4)[:, :, :2] - block[:, :, :2]).max()
        if off > rounding + _EXACT:
            raise FileError(f"has anchors off the centres of the cells of a map of {rows}x{columns}, by {off:.3g}")
        found.append(grid)
    if start != len(anchors):
        raise FileError(f"has {len(anchors):,} anchors for {start:,} codes")
    return tuple(found)


def _maps(net: Network, node: Node) -> list[tuple[int, int, int]]:
    """Height, width and rows of each cell of the maps that a tensor of rows consists of."""
    if isinstance(node.op, ops.Join):
        return [found for name in node.inputs for found in _maps(net, net.nodes[name])]
    if isinstance(node.op, ops.Rows):
        height, width, channels = net.nodes[node.inputs[0]].shape
        return [(height, width, channels // node.op.columns)]
    if len(node.inputs) != 1 or len(node.shape) != 2:
        raise FileError(f"reads codes of {node.op.kind}, which are not rows of maps")
    return _maps(net, net.nodes[node.inputs[0]])


def without_sigmoid(net: Network, scores: Node) -> tuple[Node, Score]:
    """The raw scores, and what makes probabilities of them."""
    if isinstance(scores.op, ops.Activation) and scores.op.function == "sigmoid":
        return net.nodes[scores.inputs[0]], "sigmoid"
    return scores, "none"


def outputs(net: Network, op: ops.Detect, inputs: Sequence[Node], label: str) -> dict[str, Node]:
    """Adds a detector's end; its outputs by name."""
    found = net.add(op, inputs, label)
    boxes, score, number = (
        net.add(ops.Slice(start=start, stop=stop), [found], f"{label}.{name}")
        for name, start, stop in ((BOXES, 0, 4), ("score", 4, 5), ("class", 5, 6))
    )
    return {
        BOXES: boxes,
        SCORES: net.add(ops.Flatten(), [score], f"{label}.{SCORES}"),
        CLASSES: net.add(ops.Flatten(), [number], f"{label}.{CLASSES}"),
        COUNT: net.add(ops.Count(), [score], f"{label}.{COUNT}"),
    }
