"""Cross-layer equalisation: channels of one edge are scaled so that each uses more of the range they share.

Multiplying a channel of one layer and dividing the weights that read it by the same factor changes nothing in float,
as relu, pooling and moving pass a positive factor on (Nagel et al. 2019, arXiv 1906.04721, section 4.1). Bytes are on
one grid per edge, weights on one per output; so a factor trades the rounding of activations against that of the
weights that read them:

    factor = sqrt(range of the edge / range of the channel  *  weights that read the channel / largest such weights)

A depthwise layer has a grid for each channel, so before it a factor costs nothing: the channel takes half the range.
The other half is left for images that were not seen.
relu6 passes a factor on only where it bounds nothing: channels that reach 6 on the calibration images stay.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import numpy as np

from smallcnn.ir import ops
from smallcnn.ir.graph import Graph, Node
from smallcnn.transform.fold import Weights

Array = np.ndarray

_HEADROOM = 2.0
"""What a channel may reach on other images, over what was seen. Channels that were scaled to fill the range saturated
there: MobileNetV2 kept 96.7 % of its answers instead of 98.3 %."""
_MOST = 64.0
"""Largest factor: beyond, a channel is all but dead, and its range on other images unknown."""


@dataclass(frozen=True)
class _Reading:
    """A layer that reads channels: `channels` holds for each of its inputs the channel of the source, or -1."""

    node: Node
    channels: Array


def equalised(graph: Graph, weights: Weights, peaks: Mapping[str, Array]) -> tuple[dict[str, Array], tuple[str, ...]]:
    """Weights of the same network with equalised channels, and the names of the layers whose channels changed.

    `peaks` holds for each layer the largest magnitude of each channel of its result on the calibration images, after
    the relu or relu6 that follows, if one does.
    """
    changed = {name: value.astype(np.float64) for name, value in weights.items()}
    names = []
    for node in graph:
        if not isinstance(node.op, ops.Conv | ops.Dense) or node.name not in peaks:
            continue
        reached = _readings(graph, node)
        if reached is None:
            continue
        readings, most = reached
        factor = _factors(graph, changed, readings, peaks[node.name], most)
        if factor is None:
            continue
        for key in graph.weights_of(node):
            value = changed[f"{node.name}.{key}"]
            changed[f"{node.name}.{key}"] = value * factor.reshape(-1, *[1] * (value.ndim - 1))
        for reading in readings:
            inverse = np.where(reading.channels < 0, 1, 1 / factor[reading.channels])
            name = f"{reading.node.name}.weight"
            changed[name] = changed[name] * _along_inputs(reading.node.op, inverse, changed[name])
        names.append(node.name)
    return {name: value.astype(np.float32) for name, value in changed.items()}, tuple(names)


def _factors(
    graph: Graph, weights: Mapping[str, Array], readings: list[_Reading], peaks: Array, most: float
) -> Array | None:
    """The factor of each channel; None if there is nothing to gain."""
    live = peaks > 0
    if not live.any():
        return None
    expected = np.where(live, _HEADROOM * peaks, 1)
    room = np.maximum(np.where(live, peaks.max() / expected, 1), 1)
    relative = np.zeros(len(peaks))
    free = True
    for reading in readings:
        weight = np.abs(weights[f"{reading.node.name}.weight"])
        if graph.is_depthwise(reading.node):
            continue
        free = False
        share = weight / np.maximum(weight.reshape(len(weight), -1).max(1), 1e-30).reshape(-1, *[1] * (weight.ndim - 1))
        largest = _by_input(reading.node.op, share)
        np.maximum.at(relative, reading.channels[reading.channels >= 0], largest[reading.channels >= 0])
    factor = room if free else np.sqrt(room * np.maximum(relative, 1e-6) / max(relative.max(), 1e-6))
    factor = np.clip(factor, 1 / _MOST, np.minimum(room, _MOST))
    fixed = ~live | (peaks >= most * (1 - 1e-3))
    factor = np.where(fixed, 1, np.minimum(factor, np.maximum(most / expected, 1)))
    return None if np.allclose(factor, 1, rtol=1e-3) else factor


def _readings(graph: Graph, node: Node) -> tuple[list[_Reading], float] | None:
    """The layers that read a layer's channels, and the bound that relu6 sets; None if a factor cannot pass."""
    ends = {*(output.node for output in graph.outputs)}
    found: list[_Reading] = []
    bound = np.inf
    waiting = {node.name: np.arange(node.shape[-1])}
    for one in graph.nodes[graph.nodes.index(node) :]:
        if one.name not in waiting:
            continue
        channels = waiting[one.name]
        if one.name in ends or not graph.consumers[one.name]:
            return None
        for reader in graph.consumers[one.name]:
            passed = _passed(graph, reader, one, channels, waiting)
            if passed is None:
                return None
            if isinstance(reader.op, ops.Conv | ops.Dense):
                found.append(_Reading(reader, passed))
                continue
            if isinstance(reader.op, ops.Activation) and reader.op.function == "relu6":
                bound = 6.0
            waiting[reader.name] = passed
    return found, bound


def _passed(graph: Graph, reader: Node, source: Node, channels: Array, others: Mapping[str, Array]) -> Array | None:
    """The source channel of each channel that a reader gives, or of each that a layer reads; None if it mixes them."""
    match reader.op:
        case ops.Conv():
            return channels
        case ops.Dense() | ops.Dropout() | ops.Pad() | ops.Pool() | ops.GlobalPool():
            return channels
        case ops.Activation(function="relu" | "relu6" | "leaky_relu"):
            return channels
        case ops.Flatten():
            return np.tile(channels, prod(source.shape[:-1]))
        case ops.Slice(start=start, stop=stop):
            return channels[start:stop]
        case ops.Shuffle(groups=groups):
            return channels.reshape(groups, -1).T.reshape(-1)
        case ops.Concat():
            parts = [
                channels if name == source.name else others.get(name, np.full(graph[name].shape[-1], -1))
                for name in reader.inputs
            ]
            return np.concatenate(parts)
        case _:
            return None


def _along_inputs(op: ops.Op, factors: Array, weight: Array) -> Array:
    """Factors of a layer's input channels in the form of its weights (out, in of its group, ...)."""
    if not isinstance(op, ops.Conv):
        return factors[None, :]
    per_group = factors.reshape(op.groups, 1, -1)
    wide = np.broadcast_to(per_group, (op.groups, op.out // op.groups, per_group.shape[-1]))
    return wide.reshape(op.out, weight.shape[1], 1, 1)


def _by_input(op: ops.Op, weight: Array) -> Array:
    """The largest weight that reads each input channel."""
    if not isinstance(op, ops.Conv):
        return weight.max(0)
    grouped = weight.reshape(op.groups, op.out // op.groups, weight.shape[1], -1)
    return grouped.max((1, 3)).reshape(-1)
