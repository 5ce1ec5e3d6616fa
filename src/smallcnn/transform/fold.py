"""Folds batch norm into the convolution or dense layer before it: Graph -> Graph, along with the weights.

A batch norm can be folded if it is the only reader of a convolution or dense layer, and both are on the same side of
the end of the features. Others stay.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from smallcnn.ir import ops
from smallcnn.ir.graph import Graph
from smallcnn.ir.rewrite import only_reader, rewrite

Weights = Mapping[str, np.ndarray]


def foldable(graph: Graph) -> dict[str, str]:
    """Batch norms that can be folded, by name, each with the layer that absorbs it."""
    pairs = {}
    for node in graph:
        absorbs = isinstance(node.op, ops.Conv | ops.Dense) and node.op.grid is None and node.name not in graph.taps
        norm = only_reader(graph, node) if absorbs else None
        if norm is not None and isinstance(norm.op, ops.BatchNorm):
            pairs[norm.name] = node.name
    return pairs


def fold_graph(graph: Graph) -> Graph:
    """The same network with every foldable batch norm removed and a bias on the layer before it."""
    pairs = foldable(graph)
    biased: dict[str, ops.Op] = {layer: replace(graph[layer].op, bias=True) for layer in pairs.values()}  # type: ignore[call-arg]
    return rewrite(graph, ops=biased, without=pairs)


def fold(graph: Graph, weights: Weights) -> tuple[Graph, dict[str, np.ndarray]]:
    """The folded network and its weights, each in its number type; the arithmetic is done in float64.

    Denormal weights become zero: processors multiply by them a hundred times as slowly, and engines take them for zero.
    """
    numbers = {name: weight.tensor.number for name, weight in graph.weights.items()}
    folded = {name: np.asarray(value, numbers[name]) for name, value in weights.items()}
    for norm, layer in foldable(graph).items():
        gamma, beta, mean, variance = (
            folded.pop(f"{norm}.{key}").astype(np.float64) for key in ("weight", "bias", "running_mean", "running_var")
        )
        op = graph[norm].op
        assert isinstance(op, ops.BatchNorm)
        weight = folded[f"{layer}.weight"].astype(np.float64)
        bias = folded.get(f"{layer}.bias", np.zeros(1)).astype(np.float64)
        with np.errstate(all="ignore"):  # non-finite values show in the answer
            scale = gamma / np.sqrt(variance + op.epsilon)
            folded[f"{layer}.weight"] = (weight * scale.reshape(-1, *[1] * (weight.ndim - 1))).astype(np.float32)
            folded[f"{layer}.bias"] = (beta + (bias - mean) * scale).astype(np.float32)
    result = fold_graph(graph)
    return result, {name: _normal(folded[name]) for name in result.weights}


def _normal(values: np.ndarray) -> np.ndarray:
    """Floats below the smallest normal number become zero; whole numbers stay."""
    if not np.issubdtype(values.dtype, np.floating):
        return values
    return values * (np.abs(values) >= np.finfo(values.dtype).tiny)
