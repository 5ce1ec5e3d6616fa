"""A scale per channel around a quantize, moved into the layers on both sides.

Bytes of one tensor have a single scale here. Files by NNCF give the input of a depthwise convolution one per channel.
Their reader writes that as a scale per channel, a quantize with a single scale, and the inverse after the dequantize.
The first moves before a ReLU into the scales of the weights before it, the second into those of the depthwise
convolution. No whole number changes: it is the equalisation of Nagel et al. (2019, arXiv:1906.04721, section 4.1).
"""

from collections.abc import Mapping
from dataclasses import replace
from math import inf

import numpy as np

from smallcnn.foreign.network import Affine
from smallcnn.foreign.views import Array
from smallcnn.ir import ops
from smallcnn.ir.graph import Graph, Node
from smallcnn.ir.rewrite import only_reader, rewrite
from smallcnn.ir.types import RANGES, Grid

_Weights = dict[str, Array]


def without_channel_scales(
    graph: Graph, affine: Mapping[str, Affine], weights: Mapping[str, _Weights]
) -> tuple[Graph, dict[str, _Weights]]:
    """The graph without the scales next to a quantize or dequantize that a layer can take; weights by node."""
    changed: dict[str, ops.Op] = {}
    gone: list[str] = []
    made = dict(weights)
    for node in graph:
        step = affine.get(node.name)
        if step is None or (step.scale <= 0).any() or (step.shift != 0).any():
            continue
        reader, source = only_reader(graph, node), graph[node.inputs[0]]
        found, quantized = None, reader is not None and isinstance(reader.op, ops.Quantize)
        if reader and isinstance(reader.op, ops.Quantize):
            found = _before(graph, node, step.scale, reader.op)
        elif reader and isinstance(source.op, ops.Dequantize):
            found = _after(graph, reader, step.scale)
        if found is None:
            continue
        layer, scale, unbounded = found
        op = changed.get(layer.name, layer.op)
        assert isinstance(op, ops.Conv | ops.Dense)
        changed |= unbounded
        changed[layer.name], own = _scaled(op, made[layer.name], scale)
        if quantized and "bias" in own:
            own["bias"] = (own["bias"] * scale).astype(np.float32)
        made[layer.name] = own
        gone.append(node.name)
    return rewrite(graph, ops=changed, without=gone), made


_Found = tuple[Node, Array, dict[str, ops.Op]]
"""The layer that takes a scale, the scale of each of its outputs, and operators that lose their upper bound."""


def _before(graph: Graph, node: Node, scale: Array, quantize: ops.Quantize) -> _Found | None:
    """The layer before a scale, directly or with a ReLU between; None if it has other readers."""
    (step,), (zero,), most = quantize.grid.scale, quantize.grid.zero, RANGES[quantize.number][1]
    unbounded: dict[str, ops.Op] = {}
    source = graph[node.inputs[0]]
    if only_reader(graph, source) != node:
        return None
    if isinstance(source.op, ops.Activation) and source.op.function in ("relu", "relu6"):
        bound = inf if source.op.function == "relu" else 6.0
        if (bound * scale <= step * (most - zero - 0.5)).any():  # the bound is below the largest byte
            return None
        unbounded[source.name] = ops.Activation(function="relu")
        before = graph[source.inputs[0]]
        if only_reader(graph, before) != source:
            return None
        source = before
    return (source, scale, unbounded) if isinstance(source.op, ops.Conv | ops.Dense) else None


def _after(graph: Graph, reader: Node, scale: Array) -> _Found | None:
    """The depthwise convolution after a scale, directly or with shuffles between."""
    while isinstance(reader.op, ops.Shuffle):
        scale = scale.reshape(reader.op.groups, -1).T.reshape(-1)
        following = only_reader(graph, reader)
        if following is None:
            return None
        reader = following
    if not isinstance(reader.op, ops.Conv) or reader.op.groups != len(scale):
        return None
    return reader, np.repeat(scale, reader.op.out // len(scale)), {}


def _scaled(op: ops.Conv | ops.Dense, own: _Weights, scale: Array) -> tuple[ops.Conv | ops.Dense, _Weights]:
    """A layer with its weights multiplied by `scale`, per output."""
    if op.grid is None:
        shape = (-1, *[1] * (own["weight"].ndim - 1))
        return op, own | {"weight": (own["weight"] * scale.reshape(shape)).astype(np.float32)}
    scales, zeros = (np.broadcast_to(entries, (op.out,)) for entries in (op.grid.scale, op.grid.zero))
    return replace(op, grid=Grid(tuple((scales * scale).tolist()), tuple(zeros.tolist()))), dict(own)
