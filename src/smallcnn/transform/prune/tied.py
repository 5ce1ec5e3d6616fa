"""Which channels belong together, as follows from the graph: sets that can be removed as a whole.

A channel that a convolution or dense layer computes passes through norms, activations, depthwise convolutions and
pools, is added to others, multiplied, joined, shuffled or flattened, until other layers read it. All channels that meet
on the way form a set. Anwar et al. 2017 (arXiv 1512.08571) and Fang et al. 2023 (arXiv 2301.12900, section 3) group
channels in the same way.

| operator | ties |
|---|---|
| add; sub; scale | equal channels of its inputs |
| depthwise convolution | each channel with those that it computes from it |
| grouped convolution | channels at the same place of every group, read and computed: the groups stay equal |
| shuffle | channels at the same place of every group |
| flatten | all positions of a channel |

Channels of the input, of an output, of a detector's rows, and those that local response normalisation mixes are fixed.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from smallcnn.errors import GraphError
from smallcnn.ir import ops
from smallcnn.ir.graph import Graph, Node


@dataclass(frozen=True)
class Part:
    """The entries `indices` of one `axis` of the stored tensor `tensor`, and the node that it belongs to."""

    node: str
    tensor: str
    axis: int
    indices: tuple[int, ...]


@dataclass(frozen=True)
class Tied:
    """Channels that can only be removed together.

    `channels` are their places in the result of each node that carries them, `layers` the convolutions and dense layers
    among these. `made` are the filters, biases and norms that compute them, `read` the columns of weights that read
    them.
    """

    channels: Mapping[str, tuple[int, ...]]
    layers: tuple[str, ...]
    made: tuple[Part, ...]
    read: tuple[Part, ...]

    @property
    def width(self) -> int:
        """The most channels that one layer computes."""
        return max(len(self.channels[layer]) for layer in self.layers)


def tied(graph: Graph) -> tuple[Tied, ...]:
    """The sets of channels that can be removed, in the order of the layers that compute them.

    A set that has all channels of a node is not among them. Raises GraphError for a network with whole numbers.
    """
    names = _Names()
    carried: dict[str, np.ndarray] = {}
    for node in graph:
        if node.tensor.number != "float32" or any(weight.tensor.grid for weight in graph.weights_of(node).values()):
            raise GraphError(f"{graph.name} is quantized; prune the float model that it was made from")
        carried[node.name] = _carried(graph, node, [carried[name] for name in node.inputs], names)
    for output in graph.outputs:
        names.fix(carried[output.node])
    roots = names.roots()
    carried = {name: roots[channels] for name, channels in carried.items()}
    fixed = {int(roots[one]) for one in names.fixed}
    fixed |= {int(channels[0]) for channels in carried.values() if (channels == channels[0]).all()}
    return tuple(_sets(graph, carried, fixed))


def families(sets: Sequence[Tied]) -> tuple[tuple[int, ...], ...]:
    """The numbers of the sets by the layers that compute them: sets with a layer in common are in one family."""
    found: list[tuple[set[str], list[int]]] = []
    for number, one in enumerate(sets):
        layers, numbers = set(one.layers), [number]
        for family in [family for family in found if family[0] & layers]:
            found.remove(family)
            layers, numbers = layers | family[0], family[1] + numbers
        found.append((layers, numbers))
    return tuple(sorted(tuple(sorted(numbers)) for _, numbers in found))


def places(sets: Iterable[Tied]) -> dict[str, list[int]]:
    """The places of the channels of some sets, in each node that carries them."""
    found: dict[str, list[int]] = {}
    for one in sets:
        for name, own in one.channels.items():
            found.setdefault(name, []).extend(own)
    return found


class _Names:
    """Numbers for channels, of which some stand for the same set: a union-find structure."""

    def __init__(self) -> None:
        self._parent: list[int] = []
        self.fixed: set[int] = set()

    def fresh(self, count: int) -> np.ndarray:
        start = len(self._parent)
        self._parent += range(start, start + count)
        return np.arange(start, start + count)

    def fix(self, channels: np.ndarray) -> np.ndarray:
        self.fixed |= set(channels.tolist())
        return channels

    def tie(self, *rows: np.ndarray) -> np.ndarray:
        """Ties channels at the same place of rows of one length; returns the first row."""
        first, *others = rows
        for row in others:
            for one, other in zip(first.tolist(), row.tolist(), strict=True):
                a, b = self._root(one), self._root(other)
                self._parent[max(a, b)] = min(a, b)
        return first

    def roots(self) -> np.ndarray:
        """The number that stands for the set of each number."""
        roots = np.array(self._parent, np.int64)
        while ((higher := roots[roots]) != roots).any():
            roots = higher
        return roots

    def _root(self, one: int) -> int:
        while (parent := self._parent[one]) != one:
            self._parent[one] = self._parent[parent]
            one = parent
        return one


_PASS = (
    ops.BatchNorm, ops.Activation, ops.PRelu, ops.Clip, ops.Exp, ops.Dropout, ops.Pad, ops.Pool, ops.GlobalPool,
    ops.Resize,
)  # fmt: skip
"""Operators whose channel c depends on channel c alone."""


def _carried(graph: Graph, node: Node, inputs: list[np.ndarray], names: _Names) -> np.ndarray:
    """The number of each channel of a node's result, given those of its inputs."""
    match node.op:
        case ops.Conv() as op if graph.is_depthwise(node):
            return np.repeat(inputs[0], op.out // op.groups)
        case ops.Conv() as op:
            made = names.fresh(op.out)
            for channels in (inputs[0], made):
                names.tie(*channels.reshape(op.groups, -1))
            return made
        case ops.Dense() as dense:
            return names.fresh(dense.out)
        case ops.Add() | ops.Sub() | ops.Scale():
            return names.tie(*inputs)
        case ops.Concat():
            return np.concatenate(inputs)
        case ops.Slice(start=start, stop=stop):
            return inputs[0][start:stop]
        case ops.Shuffle(groups=groups):
            rows = inputs[0].reshape(groups, -1)
            names.tie(*rows)
            return rows.T.ravel()
        case ops.Flatten():
            return np.tile(inputs[0], prod(node.shape) // len(inputs[0]))
        case ops.LocalResponseNorm():
            return names.fix(inputs[0])
        case op if isinstance(op, _PASS):
            return inputs[0]
    for channels in inputs:  # the input; rows, and what decodes them
        names.fix(channels)
    return names.fix(names.fresh(node.shape[-1]))


def _sets(graph: Graph, carried: Mapping[str, np.ndarray], fixed: set[int]) -> Iterator[Tied]:
    """The sets of all numbers that are not fixed."""
    channels: dict[int, dict[str, tuple[int, ...]]] = {}
    made: dict[int, list[Part]] = {}
    read: dict[int, list[Part]] = {}
    for node in graph:
        own = _places(carried[node.name], fixed)
        for one, places in own.items():
            channels.setdefault(one, {})[node.name] = places
            made.setdefault(one, []).extend(
                Part(node.name, f"{node.name}.{key}", 0, places) for key in graph.weights_of(node)
            )
        if isinstance(node.op, ops.Conv | ops.Dense) and not graph.is_depthwise(node):
            inputs = carried[node.inputs[0]]
            columns = graph.weights_of(node)["weight"].shape[1]  # of a grouped convolution: of its first group
            for one, places in _places(inputs[:columns], fixed).items():
                read.setdefault(one, []).append(Part(node.name, f"{node.name}.weight", 1, places))
    for one in sorted(channels):
        layers = tuple(name for name in channels[one] if isinstance(graph[name].op, ops.Conv | ops.Dense))
        yield Tied(channels[one], layers, tuple(made[one]), tuple(read.get(one, ())))


def _places(channels: np.ndarray, fixed: set[int]) -> dict[int, tuple[int, ...]]:
    """The places of each number that is not fixed."""
    found: dict[int, list[int]] = {}
    for place, one in enumerate(channels.tolist()):
        if one not in fixed:
            found.setdefault(one, []).append(place)
    return {one: tuple(places) for one, places in found.items()}
