"""Ranges of results, and the limits that quantized tensors impose on them.

A quantized layer saturates at the ends of its tensor's range. The float network does not round, but clips to the same
range, unless the result cannot exceed it, or exceeds it by less than one step of the tensor, which is rounding.
"""

from dataclasses import replace
from math import inf

import numpy as np

from smallcnn.errors import FileError
from smallcnn.foreign import idioms
from smallcnn.foreign.network import Network
from smallcnn.foreign.views import View
from smallcnn.ir import ops
from smallcnn.ir.graph import Node
from smallcnn.tflite.file import Array, Grid

Range = tuple[float, float]

_ANY: Range = (-inf, inf)
_SAME = (ops.Pool, ops.GlobalPool, ops.Flatten, ops.Slice, ops.Shuffle, ops.Dropout, ops.Pad, ops.Resize, ops.Rows)
"""Operators whose results lie between the smallest and the largest of their input, or are 0."""


class Ranges:
    """The ranges of a network's results."""

    def __init__(self, net: Network) -> None:
        self.net = net
        self.known: dict[str, Range] = {}

    def of(self, node: Node) -> Range:
        """The range of the results of `node`."""
        passed = []
        while node.name not in self.known and isinstance(node.op, _SAME):
            passed.append(node)
            node = self.net.nodes[node.inputs[0]]
        low, high = self.known.get(node.name) or self._own(node)
        for later in reversed(passed):
            if isinstance(later.op, ops.Pad):
                low, high = min(low, 0.0), max(high, 0.0)
            self.known[later.name] = (low, high)
        return low, high

    def _own(self, node: Node) -> Range:
        if node.op.bounds:
            return node.op.bounds
        match node.op:
            case ops.Activation(function="sigmoid" | "hard_sigmoid"):
                return 0.0, 1.0
            case ops.Exp():
                return 0.0, inf
            case ops.Concat() | ops.Join():
                parts = [self.of(self.net.nodes[name]) for name in node.inputs]
                return min(low for low, _ in parts), max(high for _, high in parts)
            case ops.BatchNorm() if node.name in self.net.affine:
                step = self.net.affine[node.name]
                low, high = self.known.get(step.source.name, _ANY)
                ends = np.stack([_line(step.scale, step.shift, low), _line(step.scale, step.shift, high)])
                return float(ends.min()), float(ends.max())
        return _ANY

    def note(self, view: View) -> None:
        """Stores the range of a result for its readers."""
        self.known[view.node.name] = self.of(view.node)

    def limit(self, view: View, low: float, high: float, grid: Grid | None, label: str) -> View:
        """min(max(x, low), high), combined with the reachable ends of the tensor that stores the result."""
        step = 0.0
        if grid is not None:
            step, least, most = grid.scale, grid.low + 0.0, grid.high
            if abs(most - 6) <= step / 2:
                most = 6.0  # a ReLU6 expressed by the tensor's range
            if not max(low, least) < min(high, most):
                raise FileError(f"has an activation that turns all values from {least:g} to {most:g} into one")
            low, high = max(low, least), min(high, most)
        reached_low, reached_high = self.of(view.node)
        low = -inf if reached_low >= low - step else low
        high = inf if reached_high <= high + step else high
        if (low, high) == _ANY:
            return view
        op = view.node.op
        if isinstance(op, ops.Clip) and max(low, op.low) < min(high, op.high):  # both limits in one clip
            low, high = max(low, op.low), min(high, op.high)
            view = replace(view, node=self.net.nodes[view.node.inputs[0]])
        return idioms.clip(self.net, view, low, high, label)


def _line(scale: Array, shift: Array, end: float) -> Array:
    """One end of a range after scale and shift; with a factor of 0, only the shift."""
    with np.errstate(invalid="ignore"):
        return np.where(scale == 0, 0.0, scale * end) + shift
