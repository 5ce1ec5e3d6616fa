"""Makes up for removed channels without training: the layers that read them are solved again by least squares.

He et al. 2017 (arXiv 1707.06168, equation 4) and Luo et al. 2017, "ThiNet" (arXiv 1707.06342, section 3.2.3): weights
are chosen for which a layer's result is closest to that of the whole network, given the channels that are left, on
some images without labels. Layers follow each other, so that each also repairs what those before it could not.
"""

from collections.abc import Mapping

import numpy as np

from smallcnn.ir import ops
from smallcnn.ir.graph import Graph
from smallcnn.ir.rewrite import in_order
from smallcnn.transform.fold import Weights
from smallcnn.transform.quantize.rounding import statistics
from smallcnn.transform.quantize.values import Operators, own_weights, tidy

Array = np.ndarray


def repaired(
    graph: Graph, weights: Weights, lost: Mapping[str, list[int]], images: Array, operators: Operators
) -> dict[str, Array]:
    """The weights with which the network can do without the channels `lost`, by node and place, in their old shapes.

    These are all channels of some sets (`tied.places`) or between two layers: no other channel may depend on them but
    through the layers that read them.
    `images` are prepared (N, H, W, C). The mean of each result stays as it was: biases and the means of batch norms
    take up its shift. Layers with too many inputs for least squares keep their weights (see `rounding.statistics`).
    """
    changed = dict(weights)
    exact: dict[str, Array] = {}
    rough: dict[str, Array] = {}  # the same arrays as long as nothing is lost; lost channels are zero
    for done, (node, finished) in enumerate(in_order(graph)):
        own = own_weights(graph, node, weights)
        given, seen = [exact[name] for name in node.inputs], [rough[name] for name in node.inputs]
        value = operators(node, given, own) if given else images
        near = value
        if any(one is not other for one, other in zip(given, seen, strict=True)):
            new = dict(own)
            match node.op:
                case ops.Conv() | ops.Dense() as op:
                    inputs = statistics(op, own["weight"], seen[0], given[0])
                    if inputs is not None:
                        new["weight"] = inputs.repairing(own["weight"]).astype(np.float32)
                case ops.BatchNorm():
                    new["running_mean"] = own["running_mean"] + _shift(given[0], seen[0])
            near = operators(node, seen, new)
            if "bias" in own and not isinstance(node.op, ops.BatchNorm):
                shift = _shift(near, value)
                new["bias"] = own["bias"] + shift
                near += shift
            changed |= {f"{node.name}.{key}": one for key, one in new.items()}
        if node.name in lost:
            near = near.copy() if near is value else near
            near[..., lost[node.name]] = 0
        exact[node.name], rough[node.name] = value, near
        for name in finished:
            del exact[name], rough[name]
        tidy(done)
    return changed


def _shift(before: Array, after: Array) -> Array:
    """Difference of the means of each channel."""
    axes = tuple(range(before.ndim - 1))
    return (after.mean(axes, np.float64) - before.mean(axes, np.float64)).astype(np.float32)
