"""Folds batch norm into the convolution or dense layer before it: Graph -> Graph, along with the weights.

A batch norm can be folded if it is the only reader of a convolution or dense layer, and both are on the same side of
the end of the features. Others stay.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from smallcnn.ir import ops
from smallcnn.ir.graph import Graph, Node, make_node

Weights = Mapping[str, np.ndarray]


def foldable(graph: Graph) -> dict[str, str]:
    """Batch norms that can be folded, by name, each with the layer that absorbs it."""
    pairs = {}
    for node in graph:
        if isinstance(node.op, ops.BatchNorm):
            source = graph[node.inputs[0]]
            alone = len(graph.consumers[source.name]) == 1 and source.name != graph.features
            if alone and isinstance(source.op, ops.Conv | ops.Dense):
                pairs[node.name] = source.name
    return pairs


def fold_graph(graph: Graph) -> Graph:
    """The same network with every foldable batch norm removed and a bias on the layer before it."""
    pairs = foldable(graph)
    absorbing = set(pairs.values())
    nodes: dict[str, Node] = {}
    for node in graph:
        if node.name in pairs:
            continue
        op = replace(node.op, bias=True) if node.name in absorbing else node.op  # type: ignore[call-arg]
        nodes[node.name] = make_node(node.name, op, [nodes[pairs.get(name, name)] for name in node.inputs])
    return Graph(
        graph.name,
        tuple(nodes.values()),
        pairs.get(graph.output, graph.output),
        pairs.get(graph.features, graph.features),
    )


def fold(graph: Graph, weights: Weights) -> tuple[Graph, dict[str, np.ndarray]]:
    """The folded network and its weights, float32; the arithmetic is done in float64."""
    folded = {name: np.asarray(value, np.float32) for name, value in weights.items()}
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
    return result, {name: folded[name] for name in result.weights}
