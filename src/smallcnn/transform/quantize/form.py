"""The form of a network that is quantized: float32, batch norm folded."""

from dataclasses import replace

import numpy as np

from smallcnn.errors import GraphError
from smallcnn.ir import ops
from smallcnn.ir.graph import Graph
from smallcnn.ir.rewrite import rewrite
from smallcnn.reference.numbers import real
from smallcnn.transform.fold import Weights, fold

Array = np.ndarray


def ready(graph: Graph, weights: Weights) -> tuple[Graph, dict[str, Array]]:
    """The network and its weights, float32, with every batch norm folded.

    A batch norm that no layer before it can absorb becomes a layer of its own: a depthwise 1x1 convolution, or a dense
    layer with a diagonal matrix after a vector. Weights stored on grids become the real numbers they stand for.
    Raises GraphError for a network that holds bytes between its layers, as it is quantized already.
    """
    check_unquantized(graph)
    graph, folded = fold(*_in_float32(graph, weights))
    changed: dict[str, ops.Op] = {}
    for node in graph:
        if isinstance(node.op, ops.BatchNorm):
            gamma, beta, mean, variance = (
                folded.pop(f"{node.name}.{key}").astype(np.float64)
                for key in ("weight", "bias", "running_mean", "running_var")
            )
            factor, channels = gamma / np.sqrt(variance + node.op.epsilon), node.shape[-1]
            if len(node.shape) == 3:
                changed[node.name] = ops.Conv(out=channels, groups=channels)
                weight = factor.reshape(-1, 1, 1, 1)
            else:
                changed[node.name] = ops.Dense(out=channels)
                weight = np.diag(factor)
            folded[f"{node.name}.weight"] = weight.astype(np.float32)
            folded[f"{node.name}.bias"] = (beta - mean * factor).astype(np.float32)
    graph = rewrite(graph, ops=changed)
    return graph, {name: folded[name] for name in graph.weights}


def with_biases(graph: Graph, weights: Weights) -> tuple[Graph, dict[str, Array]]:
    """The network with a bias on every layer, for corrections to go into."""
    added: dict[str, ops.Op] = {
        node.name: replace(node.op, bias=True)
        for node in graph
        if isinstance(node.op, ops.Conv | ops.Dense) and not node.op.bias
    }
    biased = rewrite(graph, ops=added)
    zeros = {f"{name}.bias": np.zeros(graph[name].shape[-1], np.float32) for name in added}
    return biased, {name: ({**weights, **zeros})[name] for name in biased.weights}


def check_unquantized(graph: Graph) -> None:
    """Raises GraphError if the network holds bytes between its layers."""
    if first := next((node for node in graph if node.tensor.number != "float32"), None):
        raise GraphError(f"{graph.name} is already quantized: {first.name} holds {first.tensor.number}")


def _in_float32(graph: Graph, weights: Weights) -> tuple[Graph, dict[str, Array]]:
    """The network with its weights as real numbers."""
    changed: dict[str, ops.Op] = {
        node.name: replace(node.op, number="float32", grid=None)
        for node in graph
        if isinstance(node.op, ops.Conv | ops.Dense) and node.op.grid is not None
    }
    plain = {name: real(weight.tensor, weights[name]).astype(np.float32) for name, weight in graph.weights.items()}
    return rewrite(graph, ops=changed), plain
