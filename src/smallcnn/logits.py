"""A network as its file ends it -> one that stops at the logits, and the ending it had.

For readers of other programs' files, where a sigmoid is an operator like any other. A softmax is not one of ours, so
the reader has left it out already and says so.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from smallcnn import ops
from smallcnn.adapt import rebuilt
from smallcnn.ending import Ending
from smallcnn.errors import GraphError
from smallcnn.graph import Graph, Node, make_node

Weights = Mapping[str, np.ndarray]

_MOVES = (ops.Flatten, ops.Shuffle, ops.Slice, ops.Concat, ops.Dropout)
"""Operators that give each number on as it is, so that it does not matter whether a function comes before or after."""

_KEEPS_ZERO = ("relu", "relu6", "leaky_relu", "hard_swish")


def to_logits(graph: Graph, weights: Weights) -> tuple[Graph, dict[str, np.ndarray], Ending]:
    """The network without the sigmoid at its end, its weights, and its ending.

    One output through a sigmoid becomes two logits, see `two_classes`. The ending is "softmax" where nothing at the end
    says otherwise, as most files stop at the logits; "none" for a single number and for what is bounded by 0 and 1 in
    another way, as by a hard sigmoid: a softmax over those would mean nothing.
    """
    without = without_sigmoid(graph)
    single = graph.output_shape == (1,)
    if without is not None:
        return (*two_classes(without, weights), "softmax") if single else (without, dict(weights), "sigmoid")
    return graph, dict(weights), "none" if single or any(map(_bounded, _end(graph)[0])) else "softmax"


def without_sigmoid(graph: Graph) -> Graph | None:
    """The network without the sigmoid at its end, whatever moves its numbers afterwards; None if it does not have one.

    Every output has to come from a sigmoid that nothing else reads.
    """
    makers, moves = _end(graph)
    if not all(node.op == ops.Activation(function="sigmoid") for node in makers):
        return None
    if any(reader.name not in moves for node in makers for reader in graph.consumers[node.name]):
        return None
    return rebuilt(graph, {}, without={node.name for node in makers})


def two_classes(graph: Graph, weights: Weights) -> tuple[Graph, dict[str, np.ndarray]]:
    """For a network with one logit z, the one with two, 0 and z: their softmax is 1 - sigmoid(z) and sigmoid(z).

    The last layer of weights gets a first output that is 0, if what comes after it leaves that 0; otherwise a dense
    layer with weights 0 and 1 is added. Raises GraphError if there is more than one output.
    """
    if graph.output_shape != (1,):
        raise GraphError(f"{graph.name} has an output of shape {graph.output_shape}, not one number")
    layers = _widening(graph)
    if layers is None:
        name = _free(graph, "two_classes")
        last = make_node(name, ops.Dense(out=2, bias=False), [graph[graph.output]])
        added = {f"{name}.weight": np.array([[0], [1]], np.float32)}
        return Graph(graph.name, (*graph.nodes, last), name, graph.features), dict(weights) | added
    first = layers[0]
    assert isinstance(first.op, ops.Conv | ops.Dense)
    result = dict(weights)
    for node in layers:
        for key in graph.weights_of(node):
            value = np.asarray(weights[f"{node.name}.{key}"])
            zero = np.full_like(value, key == "running_var")
            result[f"{node.name}.{key}"] = np.concatenate([zero, value])
    return rebuilt(graph, {first.name: replace(first.op, out=2)}), result


def _widening(graph: Graph) -> list[Node] | None:
    """The layers of weights that get a second channel, the last of a classifier first; None if one cannot."""
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
    """Whether a channel that is 0 stays 0, and the other one what it was; a batch norm's zeros are chosen so."""
    if isinstance(op, ops.Activation):
        return op.function in _KEEPS_ZERO
    return isinstance(op, ops.BatchNorm | ops.GlobalPool | ops.Pool | ops.Flatten | ops.Dropout)


def _end(graph: Graph) -> tuple[list[Node], set[str]]:
    """The operators that compute the outputs, and the names of those that only move them afterwards."""
    makers, moves = [], set()
    waiting = {graph.output}
    for node in reversed(graph.nodes):  # each after all that read it
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


def _bounded(node: Node) -> bool:
    """Whether an operator gives numbers between 0 and 1."""
    match node.op:
        case ops.Activation(function=function):
            return function in ("sigmoid", "hard_sigmoid")
        case ops.Clip(low=low, high=high):
            return low >= 0 and high <= 1
    return False


def _free(graph: Graph, name: str) -> str:
    """`name`, or with underscores if the graph has it."""
    taken = {part for node in graph for part in (node.name, node.name.split(".")[0])}
    while name in taken:
        name += "_"
    return name
