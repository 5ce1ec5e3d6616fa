"""Splits a network read from a file into a network that stops at the logits and its ending.

For readers of other programs' files, where a sigmoid is an operator like any other. A softmax is not an operator here:
the reader has already removed it and reports it.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from smallcnn.errors import GraphError
from smallcnn.ir import ops
from smallcnn.ir.graph import Graph, Node, make_node
from smallcnn.ir.rewrite import rewrite, unused_name
from smallcnn.tasks.ending import Ending

Weights = Mapping[str, np.ndarray]

_MOVES = (ops.Flatten, ops.Shuffle, ops.Slice, ops.Concat, ops.Dropout)
"""Operators that pass numbers on unchanged, so that an elementwise function may come before or after them."""

_KEEPS_ZERO = ("relu", "relu6", "leaky_relu", "hard_swish")


def to_logits(graph: Graph, weights: Weights) -> tuple[Graph, dict[str, np.ndarray], Ending]:
    """The network without the sigmoid at its end, its weights, and its ending.

    A single output through a sigmoid becomes two logits, see `two_classes`. The ending is "softmax" by default, as most
    files stop at the logits. It is "none" for a single number, and for outputs bounded to 0..1 in another way, such as
    a hard sigmoid or an average of sigmoids, where a softmax would be meaningless.
    """
    without = without_sigmoid(graph)
    single = graph.output_shape == (1,)
    if without is not None:
        return (*two_classes(without, weights), "softmax") if single else (without, dict(weights), "sigmoid")
    return graph, dict(weights), "none" if single or _bounded(graph) else "softmax"


def without_sigmoid(graph: Graph) -> Graph | None:
    """The network without the sigmoid at its end, even if other operators then move its numbers; None if it has none.

    Every output must come from a sigmoid whose result no other node reads.
    """
    makers, moves = _end(graph)
    sigmoids = {node.name for node in makers if node.op == ops.Activation(function="sigmoid")}
    if len(sigmoids) < len(makers):
        return None
    if any(reader.name not in moves for name in sigmoids | moves for reader in graph.consumers[name]):
        return None
    return rewrite(graph, without=sigmoids)


def two_classes(graph: Graph, weights: Weights) -> tuple[Graph, dict[str, np.ndarray]]:
    """Turns a network with one logit z into one with two, 0 and z: their softmax is 1 - sigmoid(z) and sigmoid(z).

    The last layer with weights gets a first output that is 0, if the nodes after it keep 0. Otherwise a dense layer
    with weights 0 and 1 is added. Raises GraphError if there is more than one output.
    """
    if graph.output_shape != (1,):
        raise GraphError(f"{graph.name} has an output of shape {graph.output_shape}, not one number")
    layers = _widening(graph)
    if layers is None:
        name = unused_name(graph, "two_classes")
        added = {f"{name}.weight": np.array([[0], [1]], np.float32)}
        widen = ops.Dense(out=2, bias=False)
        return rewrite(graph, after={graph.output: lambda end: [make_node(name, widen, [end])]}), dict(weights) | added
    first = layers[0]
    assert isinstance(first.op, ops.Conv | ops.Dense)
    result = dict(weights)
    for node in layers:
        for key, weight in graph.weights_of(node).items():
            value = np.asarray(weights[f"{node.name}.{key}"])
            grid = weight.tensor.grid
            zero = np.full_like(value, grid.zero[0] if grid else key == "running_var")
            result[f"{node.name}.{key}"] = np.concatenate([zero, value])
    return rewrite(graph, ops={first.name: replace(first.op, out=2)}), result


def _widening(graph: Graph) -> list[Node] | None:
    """The layers with weights that get a second channel, starting with the classifier; None if one cannot."""
    after: list[Node] = []
    last = graph[graph.output]
    while _keeps_zero(last.op):
        after.append(last)
        last = graph[last.inputs[0]]
    alone = all(len(graph.consumers[node.name]) <= 1 for node in (last, *after))
    if not alone or not isinstance(last.op, ops.Conv | ops.Dense) or last.op.out != 1:
        return None
    return [last, *(node for node in reversed(after) if isinstance(node.op, ops.BatchNorm))]


def _keeps_zero(op: ops.Op) -> bool:
    """Whether a zero channel stays zero and the other is unaffected; the zeros given to a batch norm ensure it."""
    if isinstance(op, ops.Activation):
        return op.function in _KEEPS_ZERO
    return isinstance(op, ops.BatchNorm | ops.GlobalPool | ops.Pool | ops.Flatten | ops.Dropout)


def _end(graph: Graph) -> tuple[list[Node], set[str]]:
    """The operators that compute the outputs, and the names of those that only move them afterwards."""
    makers, moves = [], set()
    waiting = {graph.output}
    for node in reversed(graph.nodes):  # each node after all its readers
        if node.name not in waiting:
            continue
        if isinstance(node.op, _MOVES) or (isinstance(node.op, ops.GlobalPool) and _one_pixel(graph, node)):
            moves.add(node.name)
            waiting.update(node.inputs)
        else:
            makers.append(node)
    return makers, moves


def _one_pixel(graph: Graph, node: Node) -> bool:
    return graph[node.inputs[0]].shape[:2] == (1, 1)


def _bounded(graph: Graph) -> bool:
    """Whether an output is bounded to 0..1 and at most averaged or scaled since, not mixed with others."""
    waiting = {graph.output}
    for node in reversed(graph.nodes):
        if node.name in waiting:
            if _squeezes(node.op):
                return True
            if isinstance(node.op, (*_MOVES, ops.GlobalPool, ops.Pool, ops.BatchNorm, ops.Clip, ops.Add)):
                waiting.update(node.inputs)
    return False


def _squeezes(op: ops.Op) -> bool:
    if isinstance(op, ops.Activation):
        return op.function in ("sigmoid", "hard_sigmoid")
    return isinstance(op, ops.Clip) and op.low >= 0 and op.high <= 1
