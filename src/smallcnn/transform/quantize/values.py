"""Runs a network node by node on a batch, so that every result can be looked at."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Protocol

import numpy as np

from smallcnn.errors import DataError
from smallcnn.ir.graph import Graph, Node
from smallcnn.ir.rewrite import in_order
from smallcnn.ir.types import RANGES, Grid
from smallcnn.reference import floating
from smallcnn.system.memory import give_back
from smallcnn.transform.fold import Weights

Array = np.ndarray
Report = Callable[[int, int], None]
"""Called with the number of nodes done and their total."""

_TOGETHER = 8
_TIDY = 2
"""Nodes between two returns of freed memory: after each, a tenth of the time goes into getting it back."""


class Operators(Protocol):
    """Computes one node of a float network: float32 inputs (N, ...), channels last, and the node's own weights."""

    def __call__(self, node: Node, inputs: list[Array], weights: Mapping[str, Array]) -> Array:
        """The node's result, float32 (N, ...)."""


@dataclass(frozen=True)
class Bytes:
    """Real numbers on a grid of uint8, in a quarter of their memory; a slice of it is float32."""

    stored: Array
    grid: Grid

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""
        return self.stored.shape

    def __getitem__(self, some: slice) -> Array:
        return self.real(self.stored[some])

    def real(self, stored: Array) -> Array:
        """What these bytes stand for, float32."""
        found = stored.astype(np.float32)
        found -= self.grid.zero[0]
        found *= np.float32(self.grid.scale[0])
        return found


def to_bytes(values: Array, grid: Grid) -> Array:
    """The nearest bytes, uint8: saturated, ties to even."""
    found = values / np.float32(grid.scale[0])
    np.rint(found, out=found)
    found += grid.zero[0]
    np.clip(found, *RANGES["uint8"], out=found)
    return found.astype(np.uint8)


def batches(count: int) -> Iterator[slice]:
    """The places of so many images, a few at a time, so that what is computed from them takes little memory."""
    return (slice(start, start + _TOGETHER) for start in range(0, count, _TOGETHER))


def by_definition(node: Node, inputs: list[Array], weights: Mapping[str, Array]) -> Array:
    """Operators by their definition, slow."""
    wide = [value.astype(np.float64) for value in inputs]
    return np.asarray(floating.apply(node.op, wide, weights)).astype(np.float32)


def own_weights(graph: Graph, node: Node, weights: Weights) -> dict[str, Array]:
    """The weights of one node, by key."""
    return {key: weights[f"{node.name}.{key}"] for key in graph.weights_of(node)}


def usable(images: Array, most: int) -> Array:
    """At most so many of the images, evenly spread. Raises DataError if there are none to learn ranges from."""
    if not len(images):
        raise DataError("no calibration images")
    flat = images.reshape(len(images), -1)
    if (flat.min(1) == flat.max(1)).all():
        raise DataError("the calibration images show nothing: all pixels of each are equal")
    return images[np.linspace(0, len(images) - 1, min(most, len(images))).round().astype(int)]


def walk(graph: Graph, weights: Weights, images: Array, operators: Operators) -> Iterator[tuple[Node, Array]]:
    """Each node with its result for prepared images (N, H, W, C)."""
    values: dict[str, Array] = {}
    for done, (node, finished) in enumerate(in_order(graph)):
        inputs = [values[name] for name in node.inputs]
        values[node.name] = operators(node, inputs, own_weights(graph, node, weights)) if inputs else images
        yield node, values[node.name]
        for name in finished:
            del values[name]
        tidy(done)


def tidy(done: int) -> None:
    """Returns freed memory to the system now and then, with the number of nodes done."""
    if done % _TIDY == 0:
        give_back()


def live_bytes(graph: Graph) -> int:
    """The most bytes that `walk` holds per image at any time."""
    most, held = 0, dict[str, int]()
    for node, finished in in_order(graph):
        held[node.name] = 4 * prod(node.shape)
        most = max(most, sum(held.values()))
        for name in finished:
            del held[name]
    return most
