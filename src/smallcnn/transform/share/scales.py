"""A scale for each output of a layer, so that filters of different size can share values.

Folding batch norm multiplies each filter by a factor of its own, and one codebook then serves filters whose sizes are
orders of magnitude apart. So the filters are divided by a power of 2^(1/4) near their largest weight, which a batch
norm after the layer multiplies back. Every engine folds it, so it costs no time; packed, it takes about a byte for each
output.
"""

from dataclasses import replace
from functools import partial

import numpy as np

from smallcnn.ir import ops
from smallcnn.ir.graph import Graph, Node, make_node
from smallcnn.ir.rewrite import After, rewrite, unused_name
from smallcnn.transform.fold import Weights, foldable
from smallcnn.transform.share.layers import shortened

Array = np.ndarray

_STEPS = 4
"""Scales in an octave: filters are then within 0.004 bits of the scale that serves them best."""
_MOST = 2.0**16
"""Largest ratio of a layer's scales: smaller filters are as good as zero."""
_BITS = 8
"""Bits of an output's scale when packed."""
_LEAST_GAIN = 0.15
"""Bits for each weight that scales must save. SqueezeNet 1.1 has 0.1 in most layers and is no better with scales there;
MobileNet v1 0.25 has 0.2 to 5, and all of its layers but the last are better with them."""
_EPSILON = 2.0**-10  # with a variance of 1 - 2^-10 the batch norm divides by exactly 1


def with_scales(graph: Graph, weights: Weights) -> tuple[Graph, dict[str, Array]]:
    """The same network with filters of one size, and a batch norm after each layer where that saves bytes.

    The graph has no batch norm to fold. Layers of the head stay as they are, so that it can still be replaced.
    """
    made = dict(weights)
    after: dict[str, After] = {}
    position = {node.name: place for place, node in enumerate(graph)}
    for node in graph:
        if not isinstance(node.op, ops.Conv | ops.Dense) or position[node.name] > position[graph.features]:
            continue
        weight = weights[f"{node.name}.weight"]
        largest = np.abs(weight).reshape(len(weight), -1).max(1).astype(np.float64)
        if not _pays(largest, weight.size):
            continue
        kept = np.maximum(largest, largest.max() / _MOST)
        scale = 2.0 ** (np.ceil(np.log2(kept) * _STEPS) / _STEPS)
        name, ones = unused_name(graph, f"{node.name}_scale"), np.ones(len(weight), np.float32)
        made[f"{node.name}.weight"] = (weight / _along(scale, weight)).astype(np.float32)
        made[f"{node.name}.bias"] = (weights[f"{node.name}.bias"] / scale).astype(np.float32)
        made |= {f"{name}.weight": scale.astype(np.float32), f"{name}.bias": 0 * ones}
        made |= {f"{name}.running_mean": 0 * ones, f"{name}.running_var": np.float32(1 - _EPSILON) * ones}
        after[node.name] = partial(_scaled, name)
    result = rewrite(graph, after=after)
    return result, {name: made[name] for name in result.weights}


def with_biases_in_scales(graph: Graph, weights: Weights) -> tuple[Graph, dict[str, Array]]:
    """The same network with the biases of its scaled layers in the batch norm, in the size of the outputs."""
    made = dict(weights)
    plain: dict[str, ops.Op] = {}
    for name, layer in foldable(graph).items():
        op = graph[layer].op
        assert isinstance(op, ops.Conv | ops.Dense)
        made[f"{name}.bias"] = shortened(made[f"{name}.bias"] + made[f"{name}.weight"] * made.pop(f"{layer}.bias"))
        plain[layer] = replace(op, bias=False)
    result = rewrite(graph, ops=plain)
    return result, {name: made[name] for name in result.weights}


def _scaled(name: str, layer: Node) -> list[Node]:
    return [make_node(name, ops.BatchNorm(epsilon=_EPSILON), [layer])]


def _pays(largest: Array, numbers: int) -> bool:
    """Whether filters of one size need fewer bits for the same error, by more than their scales take.

    The bits that a weight saves are half the logarithm of the mean over the geometric mean of the squared sizes (Jayant
    and Noll 1984, "Digital Coding of Waveforms", section 11.2).
    """
    power = largest[largest > largest.max() / _MOST] ** 2
    if len(power) < 2:
        return False
    gain = (np.log2(power.mean()) - np.log2(power).mean()) / 2
    return bool(gain > _LEAST_GAIN and numbers * gain > _BITS * len(largest))


def _along(scale: Array, weight: Array) -> Array:
    return scale.reshape(-1, *[1] * (weight.ndim - 1))
