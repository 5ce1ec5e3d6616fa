"""A network for another input size or number of classes: Graph -> Graph, for fine-tuning what someone else trained.

The operators stay as they are, padding included; only shapes follow. Layers whose weights get another shape are new.
"""

from collections.abc import Collection, Mapping
from dataclasses import replace

import numpy as np

from smallcnn import ops
from smallcnn.errors import GraphError
from smallcnn.graph import Graph, Node, make_node
from smallcnn.ops import Op


def with_resolution(graph: Graph, resolution: tuple[int, int]) -> Graph:
    """The network for inputs of (height, width). Raises GraphError naming the first layer that cannot follow."""
    first = graph.nodes[0]
    return _rebuilt(graph, {first.name: ops.Input((*resolution, graph.input_shape[2]))})


def with_classes(graph: Graph, classes: int) -> Graph:
    """The network with its last layer of weights for another number of classes, and nothing left that bounds logits.

    Raises GraphError if the last weights are not those of a classifier.
    """
    last = next(node for node in reversed(graph.nodes) if graph.weights_of(node))
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


def _rebuilt(graph: Graph, changed: Mapping[str, Op], without: Collection[str] = ()) -> Graph:
    """The graph with other operators at some nodes, some of one input left out, and shapes inferred anew."""
    nodes: dict[str, Node] = {}
    stands_for: dict[str, str] = {}
    for node in graph:
        if node.name in without:
            stands_for[node.name] = stands_for[node.inputs[0]]
            continue
        op = changed.get(node.name, node.op)
        nodes[node.name] = make_node(node.name, op, [nodes[stands_for[name]] for name in node.inputs])
        stands_for[node.name] = node.name
    return Graph(graph.name, tuple(nodes.values()), stands_for[graph.output], stands_for[graph.features])
