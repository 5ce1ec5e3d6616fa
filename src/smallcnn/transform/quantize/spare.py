"""Spare channels: those that are always 0 become second copies of the channels whose rounding costs most.

The first layers of MobileNets have few channels, and some of them dead, while the rounding of the others costs more
than that of all later layers. A copy computes the same numbers, half a step of the bytes apart. So it is rounded
differently, and the mean of both, which the next layer takes by half of the weights for each, has half of the error.
More copies divide the step further. In float nothing changes, and no layer grows. (Zhao et al. 2019, arXiv 1901.09504,
add copies of channels to halve their range.)

A channel and its copies pass through a depthwise layer side by side.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from smallcnn.ir import ops
from smallcnn.ir.graph import Graph, Node
from smallcnn.ir.rewrite import only_reader
from smallcnn.ir.types import Grid
from smallcnn.transform.fold import Weights
from smallcnn.transform.quantize.gains import noise_gains
from smallcnn.transform.quantize.reach import Channels, Reach

Array = np.ndarray

_MOSTLY = 0.9
"""Share of its numbers that relu or relu6 must leave to a channel that is copied. Bounded numbers of copies are the
same: where a whole window is, what its reader subtracts for their distance costs more than rounding does."""


@dataclass(frozen=True)
class Copied:
    """A network with copies. `offsets` gives for each layer with copies the part of a step (C,) to add to channels."""

    weights: dict[str, Array]
    reach: dict[str, Reach]
    offsets: dict[str, Array]


@dataclass(frozen=True)
class _Chain:
    """Layers whose channels correspond, each with a relu or relu6 after it, and the layer that reads the last."""

    layers: tuple[Node, ...]
    activations: tuple[Node, ...]
    reader: Node


def with_copies(graph: Graph, weights: Weights, found: Channels, in_float: Collection[str]) -> Copied:
    """The same network with each dead channel a copy of another, where layers and their readers have biases.

    Layers `in_float` stay, and so do those that read them.
    """
    changed = {name: value.astype(np.float64) for name, value in weights.items()}
    reach, offsets = dict(found.reach), dict[str, Array]()
    gains = noise_gains(graph, weights, found.inside)
    for node in graph:
        chain = _chain(graph, node)
        if chain is None or any(one.name in in_float for one in (*chain.layers, chain.reader)):
            continue
        first, last = (reach[layer.name].dead for layer in (chain.layers[0], chain.layers[-1]))
        dead = first | last
        if not dead.any() or dead.all():
            continue
        unbounded = {
            layer.name: found.inside[act.name] >= _MOSTLY
            for layer, act in zip(chain.layers, chain.activations, strict=True)
        }
        costs = sum(
            np.square(reach[layer.name].peaks(_bounds(act))) * gains[act.name] * unbounded[layer.name]
            for layer, act in zip(chain.layers, chain.activations, strict=True)
        )
        costs = np.where(dead, 0, costs)
        if not costs.any():
            continue
        copy_of, share, place = _shared_out(costs, dead)
        _move_constants(chain, changed, first)
        for layer in chain.layers:
            for key in ("weight", "bias"):
                changed[f"{layer.name}.{key}"] = changed[f"{layer.name}.{key}"][copy_of]
            reach[layer.name] = reach[layer.name].of(copy_of)
            offsets[layer.name] = place * share * unbounded[layer.name][copy_of]
        weight = changed[f"{chain.reader.name}.weight"]
        changed[f"{chain.reader.name}.weight"] = weight[:, copy_of] * share.reshape(-1, *[1] * (weight.ndim - 2))
    return Copied({name: value.astype(np.float32) for name, value in changed.items()}, reach, offsets)


def apart(graph: Graph, weights: Weights, offsets: Mapping[str, Array], grids: Mapping[str, Grid]) -> dict[str, Array]:
    """The weights with copies the parts `offsets` of a step apart, on grids by activation; the readers subtract them.

    At a padded border a reader subtracts up to a step too much.
    """
    changed = {name: value.astype(np.float64) for name, value in weights.items()}
    for name, parts in offsets.items():
        (activation,) = graph.consumers[name]
        (reader,) = graph.consumers[activation.name]
        moved = parts * grids[activation.name].scale[0]
        weight = changed[f"{reader.name}.weight"]
        sums = weight.reshape(*weight.shape[:2], -1).sum(2)
        changed[f"{name}.bias"] = changed[f"{name}.bias"] + moved
        extra = sums[:, 0] * moved if graph.is_depthwise(reader) else sums @ moved
        changed[f"{reader.name}.bias"] = changed[f"{reader.name}.bias"] - extra
    return {name: value.astype(np.float32) for name, value in changed.items()}


def _chain(graph: Graph, node: Node) -> _Chain | None:
    """The chain that starts with a layer, of one or two; None if there is none."""
    if not isinstance(node.op, ops.Conv | ops.Dense) or not node.op.bias or graph.is_depthwise(node):
        return None
    layers, activations = [node], list[Node]()
    while True:
        activation = only_reader(graph, layers[-1])
        if activation is None or not isinstance(activation.op, ops.Activation) or activation.op.bounds is None:
            return None
        activations.append(activation)
        reader = only_reader(graph, activation)
        if reader is None or not isinstance(reader.op, ops.Conv | ops.Dense):
            return None
        if not reader.op.bias:
            return None
        if isinstance(reader.op, ops.Dense) or reader.op.groups == 1:
            # at a border, windows hold zeros in place of a depthwise layer's constant: no bias can stand for it
            padded = isinstance(reader.op, ops.Conv) and reader.op.padding != ops.NO_PADDING
            return None if padded and len(layers) == 2 else _Chain(tuple(layers), tuple(activations), reader)
        if len(layers) == 2 or not graph.is_depthwise(reader) or reader.op.out != node.shape[-1]:
            return None
        layers.append(reader)


def _shared_out(costs: Array, dead: Array) -> tuple[Array, Array, Array]:
    """For each channel: which one it becomes a copy of, or itself; one over its number of copies; its place in them.

    Copies go where they lower the costs most; n copies cost 1 / n**2.
    """
    copy_of, count, place = np.arange(len(costs)), np.ones(len(costs)), np.zeros(len(costs))
    for channel in np.flatnonzero(dead):
        best = int(np.argmax(costs * (1 / count**2 - 1 / (count + 1) ** 2)))
        copy_of[channel], place[channel] = best, count[best]
        count[best] += 1
    return copy_of, 1 / count[copy_of], place


def _move_constants(chain: _Chain, weights: dict[str, Array], dead: Array) -> None:
    """Moves what a depthwise layer makes of dead channels, a constant, to the biases of the reader."""
    if len(chain.layers) == 1:
        return
    constant = np.where(dead, np.clip(weights[f"{chain.layers[1].name}.bias"], *_bounds(chain.activations[1])), 0)
    weight, bias = (f"{chain.reader.name}.{key}" for key in ("weight", "bias"))
    weights[bias] = weights[bias] + weights[weight].reshape(*weights[weight].shape[:2], -1).sum(2) @ constant


def _bounds(node: Node) -> tuple[float, float]:
    assert node.op.bounds is not None
    return node.op.bounds
