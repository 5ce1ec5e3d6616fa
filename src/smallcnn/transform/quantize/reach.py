"""What the channels of a float network give on calibration images."""

from dataclasses import dataclass

import numpy as np

from smallcnn.ir import ops
from smallcnn.ir.graph import Graph
from smallcnn.transform.fold import Weights
from smallcnn.transform.quantize.values import Operators, Report, walk

Array = np.ndarray

_DOUBLINGS = 3
"""A channel is dead if it is not expected to be above 0 on 2**3 times as many images either."""
_MOST_VALUES = 1 << 14


@dataclass(frozen=True)
class Reach:
    """The least and the largest number (C,) that the channels of a layer gave, and whether they stay below 0."""

    low: Array
    high: Array
    dead: Array

    def of(self, channels: Array) -> "Reach":
        """The reach of these channels."""
        return Reach(self.low[channels], self.high[channels], self.dead[channels])

    def peaks(self, bounds: tuple[float, float]) -> Array:
        """The largest magnitude of each channel after a relu, relu6 or clip."""
        return np.maximum(np.abs(np.clip(self.low, *bounds)), np.abs(np.clip(self.high, *bounds)))


@dataclass(frozen=True)
class Channels:
    """`reach` is that of each convolution and dense layer, before any activation.

    `inside` gives for each relu, relu6 and clip the share (C,) of its results that it did not bound.
    """

    reach: dict[str, Reach]
    inside: dict[str, Array]


def channels(graph: Graph, weights: Weights, images: Array, operators: Operators, report: Report) -> Channels:
    """What a ready network gives for prepared images (N, H, W, C)."""
    found = Channels({}, {})
    for done, (node, value) in enumerate(walk(graph, weights, images, operators)):
        report(done, len(graph.nodes))
        if isinstance(node.op, ops.Conv | ops.Dense):
            each = value.reshape(len(value), -1, value.shape[-1])
            found.reach[node.name] = Reach(each.min((0, 1)), each.max((0, 1)), _expected(each.max(1)) <= 0)
        elif node.op.bounds:
            low, high = node.op.bounds
            flat = value.reshape(-1, value.shape[-1])
            some = flat[:: len(flat) // _MOST_VALUES | 1]
            found.inside[node.name] = ((some > low) & (some < high)).mean(0)
    return found


def _expected(largest: Array) -> Array:
    """The largest number (C,) expected on 2**_DOUBLINGS times as many images, of the largest of each image (N, C).

    Half of the images, at random, contain the largest of all with probability 1/2, else the second largest with 1/4,
    and so on. The other half adds the difference. So much is expected to be added again whenever their number doubles.
    """
    ordered = np.sort(largest.astype(np.float64), 0)[::-1]
    chances = 0.5 ** np.arange(1, len(ordered) + 1)
    chances[-1] *= 2  # what is left
    return ordered[0] + _DOUBLINGS * (ordered[0] - chances @ ordered)
