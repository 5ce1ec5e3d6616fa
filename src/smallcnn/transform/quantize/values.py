"""Runs a network node by node on a batch, so that every result can be looked at."""

from collections.abc import Iterator, Mapping
from math import prod
from typing import Protocol

import numpy as np

from smallcnn.ir.graph import Graph, Node
from smallcnn.ir.rewrite import in_order
from smallcnn.reference import floating
from smallcnn.transform.fold import Weights

Array = np.ndarray


class Operators(Protocol):
    """Computes one node of a float network: float32 inputs (N, ...), channels last, and the node's own weights."""

    def __call__(self, node: Node, inputs: list[Array], weights: Mapping[str, Array]) -> Array:
        """The node's result, float32 (N, ...)."""


def by_definition(node: Node, inputs: list[Array], weights: Mapping[str, Array]) -> Array:
    """Operators by their definition, slow."""
    wide = [value.astype(np.float64) for value in inputs]
    return np.asarray(floating.apply(node.op, wide, weights)).astype(np.float32)


def own_weights(graph: Graph, node: Node, weights: Weights) -> dict[str, Array]:
    """The weights of one node, by key."""
    return {key: weights[f"{node.name}.{key}"] for key in graph.weights_of(node)}


def walk(graph: Graph, weights: Weights, images: Array, operators: Operators) -> Iterator[tuple[Node, Array]]:
    """Each node with its result for prepared images (N, H, W, C)."""
    values: dict[str, Array] = {}
    for node, finished in in_order(graph):
        inputs = [values[name] for name in node.inputs]
        values[node.name] = operators(node, inputs, own_weights(graph, node, weights)) if inputs else images
        yield node, values[node.name]
        for name in finished:
            del values[name]


def live_bytes(graph: Graph) -> int:
    """The most bytes that `walk` holds per image at any time."""
    most, held = 0, dict[str, int]()
    for node, finished in in_order(graph):
        held[node.name] = 4 * prod(node.shape)
        most = max(most, sum(held.values()))
        for name in finished:
            del held[name]
    return most
