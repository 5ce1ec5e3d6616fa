"""Shuffles whose groups do not divide are made to divide, so that channels between them can be removed.

A shuffle of g groups of m channels gives each of the g groups of the next convolution channels of every group before
it, but if g does not divide m, not equally many: with 3 groups of 20, a group reads 7, 7 and 6. Removing the channels
at the same place of every group then moves others into another group, so that all of them are tied (`tied`).

If g divides the channels of a group, each pair of groups, before and after the shuffle, shares equally many. So from
each pair that shares more the least channels go. The others move up: filters before the shuffle and depthwise filters
after it, and the columns of the grouped convolution, in each group in an order of its own. Every channel that is left
is read by the same weights as before. ShuffleNet v1 with 3 groups (Zhang et al. 2017, arXiv 1707.01083, Table 1) goes
from 60, 120 and 240 channels in its bottlenecks to 54, 117 and 234.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from smallcnn.ir import ops
from smallcnn.ir.graph import Graph, Node
from smallcnn.ir.ops import Op
from smallcnn.ir.rewrite import only_reader, rewrite
from smallcnn.transform.fold import Weights

Array = np.ndarray

_PASS = (ops.BatchNorm, ops.Activation, ops.PRelu, ops.Clip, ops.Dropout, ops.Pad, ops.Pool)


@dataclass(frozen=True)
class Uneven:
    """A shuffle whose groups do not divide.

    `before` are the nodes from the convolution that computes the channels on, `after` those from the shuffle on, until
    the grouped convolution `reader` reads them.
    """

    before: tuple[Node, ...]
    after: tuple[Node, ...]
    reader: Node
    groups: int
    channels: int

    @property
    def kept(self) -> int:
        """The most channels that divide."""
        return self.channels - self.channels % self.groups**2

    def cells(self, channels: int) -> Array:
        """The pair of groups, before and after the shuffle, of each of so many channels, in their order before it."""
        group = np.arange(channels) // (channels // self.groups)
        return group * self.groups + group[np.argsort(self.order(channels))]

    def order(self, channels: int) -> Array:
        """The place before the shuffle of each channel after it."""
        return np.arange(channels).reshape(self.groups, -1).T.ravel()


@dataclass(frozen=True)
class Cut:
    """The channels of an uneven shuffle that stay, by their old places and in their new order before the shuffle."""

    uneven: Uneven
    kept: Array

    @property
    def lost(self) -> dict[str, list[int]]:
        """The places of the others in each node that carries them."""
        gone = np.setdiff1d(np.arange(self.uneven.channels), self.kept)
        shuffled = np.argsort(self.uneven.order(self.uneven.channels))[gone]
        return {node.name: gone.tolist() for node in self.uneven.before} | {
            node.name: shuffled.tolist() for node in self.uneven.after
        }


def cuts(graph: Graph, weights: Weights) -> list[Cut]:
    """What to keep of each uneven shuffle: in every pair of groups the channels that are read with the largest weights.

    A weight counts times the scale of the last batch norm before it.
    """
    found = []
    for uneven in _uneven(graph):
        order = uneven.order(uneven.channels)
        norms = [node for node in uneven.after if isinstance(node.op, ops.BatchNorm)]
        scale = np.abs(weights[f"{norms[-1].name}.weight"]) if norms else np.ones(uneven.channels)
        columns = _by_group(weights[f"{uneven.reader.name}.weight"], uneven.groups)
        size = np.empty(uneven.channels)
        size[order] = (
            scale * np.sqrt(np.square(columns, dtype=np.float64).sum(axis=(1, *range(3, columns.ndim)))).ravel()
        )
        old, new = uneven.cells(uneven.channels), uneven.cells(uneven.kept)
        kept = np.empty(uneven.kept, np.int64)
        for cell in range(uneven.groups**2):
            own, places = np.flatnonzero(old == cell), np.flatnonzero(new == cell)
            kept[places] = np.sort(own[np.argsort(-size[own], kind="stable")[: len(places)]])
        found.append(Cut(uneven, kept))
    return found


def evened(graph: Graph, weights: Weights, made: Sequence[Cut]) -> tuple[Graph, dict[str, Array]]:
    """The network and its weights after these cuts.

    It computes what the whole network does if the weights that read the other channels are zero.
    """
    changed: dict[str, Op] = {}
    left = dict(weights)
    for cut in made:
        uneven, kept = cut.uneven, cut.kept
        shuffled = np.argsort(uneven.order(uneven.channels))[kept][uneven.order(uneven.kept)]
        for nodes, places in ((uneven.before, kept), (uneven.after, shuffled)):
            for node in nodes:
                if isinstance(node.op, ops.Conv):
                    depthwise = graph.is_depthwise(node)
                    groups = uneven.kept if depthwise else node.op.groups
                    changed[node.name] = replace(node.op, out=uneven.kept, groups=groups)
                for key in graph.weights_of(node):
                    left[f"{node.name}.{key}"] = left[f"{node.name}.{key}"][places]
        name = f"{uneven.reader.name}.weight"
        width = uneven.channels // uneven.groups
        columns = shuffled.reshape(uneven.groups, -1) % width
        left[name] = np.concatenate([
            rows[:, own] for rows, own in zip(np.split(left[name], uneven.groups), columns, strict=True)
        ])  # fmt: skip
    return rewrite(graph, ops=changed), left


def _by_group(weight: Array, groups: int) -> Array:
    """A grouped convolution's weights as (groups, out, columns, height, width)."""
    return weight.reshape(groups, -1, *weight.shape[1:])


def _uneven(graph: Graph) -> Iterator[Uneven]:
    for shuffle in graph:
        if not isinstance(shuffle.op, ops.Shuffle):
            continue
        groups, channels = shuffle.op.groups, shuffle.shape[-1]
        before, after = _before(graph, shuffle, groups), _from(graph, shuffle)
        reader = only_reader(graph, after[-1])
        if not before or reader is None or not isinstance(reader.op, ops.Conv) or reader.op.groups != groups:
            continue
        if channels % groups**2 and channels >= 2 * groups**2:
            yield Uneven(before, after, reader, groups, channels)


def _before(graph: Graph, shuffle: Node, groups: int) -> tuple[Node, ...]:
    """The nodes from the convolution on whose channels only the shuffle reads; none if there is no such convolution."""
    nodes = [shuffle]
    while nodes[0].inputs and only_reader(graph, before := graph[nodes[0].inputs[0]]) is nodes[0]:
        nodes.insert(0, before)
        if isinstance(before.op, ops.Conv) and not _per_channel(graph, before):
            return tuple(nodes[:-1]) if before.op.groups in (1, groups) else ()
        if not _per_channel(graph, before):
            break
    return ()


def _from(graph: Graph, shuffle: Node) -> tuple[Node, ...]:
    """The shuffle and the nodes after it that treat each channel by itself."""
    nodes = [shuffle]
    while (reader := only_reader(graph, nodes[-1])) and _per_channel(graph, reader):
        nodes.append(reader)
    return tuple(nodes)


def _per_channel(graph: Graph, node: Node) -> bool:
    match node.op:
        case ops.Conv(out=out, groups=groups):
            return out == groups and graph.is_depthwise(node)
    return isinstance(node.op, _PASS)
