"""Removes sets of tied channels: Graph -> Graph, along with the weights."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np

from smallcnn.errors import GraphError
from smallcnn.ir import ops
from smallcnn.ir.graph import Graph
from smallcnn.ir.ops import Op
from smallcnn.ir.rewrite import rewrite
from smallcnn.transform.prune.tied import Tied, places


def remove_from_graph(graph: Graph, sets: Iterable[Tied]) -> Graph:
    """The network without these sets of its `tied` channels. Raises GraphError naming a node that would have none."""
    kept = {node.name: np.ones(node.shape[-1], bool) for node in graph}
    for name, lost in places(sets).items():
        kept[name][lost] = False
    changed: dict[str, Op] = {}
    for node in graph:
        own = kept[node.name]
        if not own.any():
            raise GraphError(f"{node.name} would have no channels left")
        before = kept[node.inputs[0]] if node.inputs else own
        if own.all() and before.all():
            continue
        match node.op:
            case ops.Conv() as op:
                depthwise = graph.is_depthwise(node)
                groups = int(before.sum()) if depthwise else op.groups
                changed[node.name] = replace(op, out=int(own.sum()), groups=groups)
            case ops.Dense() as dense:
                changed[node.name] = replace(dense, out=int(own.sum()))
            case ops.Slice(start=start):
                start = int(before[:start].sum())
                changed[node.name] = ops.Slice(start=start, stop=start + int(own.sum()))
    return rewrite(graph, ops=changed)


def remove(
    graph: Graph, weights: Mapping[str, np.ndarray], sets: Iterable[Tied]
) -> tuple[Graph, dict[str, np.ndarray]]:
    """The network and its weights without these sets of its `tied` channels; see `remove_from_graph`.

    It computes what the whole network does if the weights that read these channels are zero.
    """
    sets = tuple(sets)
    result = remove_from_graph(graph, sets)
    gone: dict[tuple[str, int], list[int]] = {}
    for one in sets:
        for part in (*one.made, *one.read):
            gone.setdefault((part.tensor, part.axis), []).extend(part.indices)
    left = dict(weights)
    for (tensor, axis), indices in gone.items():
        left[tensor] = np.delete(left[tensor], indices, axis)
    return result, left
