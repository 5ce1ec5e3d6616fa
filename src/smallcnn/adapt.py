"""A network for another input size or number of classes: Graph -> Graph, for fine-tuning what someone else trained.

Operators stay as they are; shapes follow, and padding where it depends on them, as TensorFlow's SAME does.
"""

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import TypeGuard

import numpy as np

from smallcnn import ops
from smallcnn.builder import PADDINGS, PaddingRule
from smallcnn.errors import GraphError
from smallcnn.graph import Graph, Node, make_node
from smallcnn.ops import Op


def with_resolution(graph: Graph, resolution: tuple[int, int]) -> Graph:
    """The network for inputs of (height, width), its padding reckoned anew where it follows the size of the map.

    Raises GraphError naming the first layer that cannot follow, or whose weights would have another shape.
    """
    first = graph.nodes[0]
    changed = _rebuilt(graph, {first.name: ops.Input((*resolution, graph.input_shape[2]))}, padding=_paddings(graph))
    for name, weight in graph.weights.items():
        if changed.weights[name].shape != weight.shape:
            raise GraphError(
                f"{graph.name} has a fixed resolution, {graph.input_shape[0]}x{graph.input_shape[1]}: {name} would be "
                f"{changed.weights[name].shape} instead of {weight.shape}"
            )
    return changed


def _paddings(graph: Graph) -> dict[type[Op], PaddingRule]:
    """How the convolutions, and how the pools, of a network pad, if one rule explains them all."""
    rules: dict[type[Op], PaddingRule] = {}
    for kind in (ops.Conv, ops.Pool):
        windows = [(node.op, graph.input_shapes(node)[0]) for node in graph if isinstance(node.op, kind)]
        padded = [(op, shape) for op, shape in windows if _may_pad(op)]
        if all(op.padding == ops.NO_PADDING for op, _ in padded):
            continue
        for rule in PADDINGS.values():
            if all(op.padding == _along(rule, op, shape) for op, shape in padded):
                rules[kind] = rule
                break
    return rules


def _may_pad(op: Op) -> TypeGuard[ops.Conv | ops.Pool]:
    """A convolution that pads nothing here does so nowhere; a pool may, at a map of another size."""
    return isinstance(op, ops.Pool) or (isinstance(op, ops.Conv) and op.padding != ops.NO_PADDING)


def _along(rule: PaddingRule, op: ops.Conv | ops.Pool, shape: ops.Shape) -> ops.Padding:
    (height, width), (down, right) = op.kernel, op.stride
    return rule(shape[0], height, down), rule(shape[1], width, right)


def with_classes(graph: Graph, classes: int) -> Graph:
    """The network with its last layer of weights for another number of classes, and nothing left that bounds logits.

    Raises GraphError if the last weights are not those of a classifier.
    """
    last = next((node for node in reversed(graph.nodes) if graph.weights_of(node)), graph[graph.output])
    if not isinstance(last.op, ops.Conv | ops.Dense):
        raise GraphError(f"{graph.name} ends in {last.name}, a {last.op.kind}; it has no classifier to replace")
    after = graph.nodes[graph.nodes.index(last) :]
    bounds = {node.name for node in after if isinstance(node.op, ops.Clip)}
    changed = _rebuilt(graph, {last.name: replace(last.op, out=classes)}, without=bounds)
    if changed.output_shape != (classes,):
        raise GraphError(f"{graph.name}: replacing {last.name} gives {changed.output_shape}, not {classes} classes")
    return changed


def keep(graph: Graph, weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Those of `weights` that `graph` has, in the same shape."""
    wanted = {name: weight.shape for name, weight in graph.weights.items()}
    return {name: value for name, value in weights.items() if wanted.get(name) == value.shape}


def _rebuilt(
    graph: Graph,
    changed: Mapping[str, Op],
    *,
    without: Collection[str] = (),
    padding: Mapping[type[Op], PaddingRule] | None = None,
) -> Graph:
    """The graph with other operators at some nodes, some of one input left out, and shapes inferred anew.

    `padding` gives the rule for each kind of window; windows that had none keep none, unless they are pools.
    """
    rules = padding or {}
    nodes: dict[str, Node] = {}
    stands_for: dict[str, str] = {}
    for node in graph:
        if node.name in without:
            stands_for[node.name] = stands_for[node.inputs[0]]
            continue
        op, inputs = changed.get(node.name, node.op), [nodes[stands_for[name]] for name in node.inputs]
        if type(op) in rules and _may_pad(op):
            op = replace(op, padding=_along(rules[type(op)], op, inputs[0].shape))
        nodes[node.name] = make_node(node.name, op, inputs)
        stands_for[node.name] = node.name
    return Graph(graph.name, tuple(nodes.values()), stands_for[graph.output], stands_for[graph.features])
