"""Memory of a network, each tensor in its number type: its weights, and what is alive at once while it runs."""

from collections import Counter
from collections.abc import Callable
from math import prod

from smallcnn.ir import ops
from smallcnn.ir.graph import Graph
from smallcnn.ir.rewrite import in_order, only_reader
from smallcnn.ir.types import Number, Tensor
from smallcnn.transform.fold import foldable


def weight_bytes(graph: Graph) -> dict[Number, int]:
    """Bytes stored for inference by number type: batch norm folded, biases included.

    Counts the result of `fold.fold_graph` without building it.
    """
    folded = foldable(graph)
    gains_bias = set(folded.values())
    count: Counter[Number] = Counter()
    for node in graph:
        if node.name not in folded:
            tensors = {key: weight.tensor for key, weight in graph.weights_of(node).items()}
            if node.name in gains_bias:
                tensors["bias"] = Tensor((node.shape[-1],))
            for tensor in tensors.values():
                count[tensor.number] += tensor.bytes
    return dict(count)


def peak_elements(graph: Graph) -> int:
    """Most elements alive at once when nodes run one by one in order, freeing tensors after their last reader.

    Batch norm, activation, dropout and flatten work in place. The input image counts while it is needed. What only a
    quantize reads is stored as that quantizes it.
    """
    return _peak(graph, lambda tensor: prod(tensor.shape))


def peak_bytes(graph: Graph) -> int:
    """Most bytes alive at once, as for `peak_elements`."""
    return _peak(graph, lambda tensor: tensor.bytes)


def _peak(graph: Graph, size: Callable[[Tensor], int]) -> int:
    live: dict[str, int] = {}
    peak = 0
    for node, finished in in_order(graph):
        in_place = isinstance(node.op, (*ops.IN_PLACE, ops.Quantize)) and bool(finished)
        reader = only_reader(graph, node)
        kept = reader if reader and isinstance(reader.op, ops.Quantize) and node.inputs else node
        live[node.name] = size(kept.tensor)
        peak = max(peak, sum(live.values()) - (live[node.inputs[0]] if in_place else 0))
        for name in finished:
            del live[name]
    return peak
