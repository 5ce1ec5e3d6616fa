"""Exporters' spellings of one operator: several elementwise steps of a file are recognised as they are added.

Constants that scale and shift, ReLU with an upper bound, hard sigmoid, a map times a number per channel.
"""

from collections.abc import Iterator
from dataclasses import replace
from math import inf

import numpy as np

from smallcnn.errors import FileError
from smallcnn.foreign import views
from smallcnn.foreign.network import Affine, Network
from smallcnn.foreign.views import Array, View, decimal
from smallcnn.ir import ops
from smallcnn.ir.checks import shown
from smallcnn.ir.graph import Node

EPSILON = 1e-30
"""Epsilon of a batch norm that only scales and shifts: too small to change a variance of 1."""

FLOAT32 = float(np.finfo(np.float32).max)
_PEEPHOLE = 4  # maximum steps of scale and shift that spell one operator


def clip(net: Network, view: View, low: float, high: float, label: str) -> View:
    """min(max(x, low), high), as a named activation if there is one."""
    node, most = view.node, decimal(FLOAT32)
    low, high = (-inf if low <= -most else low), (inf if high >= most else high)
    if not low < high:
        raise FileError(f"clips between {low} and {high}")
    if inner := _bounds(node.op):
        both = min(max(inner[0], low), high), min(max(inner[1], low), high)
        if both[0] < both[1] and (both[0] == 0 or isinstance(node.op, ops.Clip)):
            (low, high), node = both, net.nodes[node.inputs[0]]
            view = replace(view, node=node)
    if (low, high) == (0, 1) and (source := _spelled(net, node, 1 / 6, 0.5)):
        return net.activation(replace(view, node=source), "hard_sigmoid", label)
    if (low, high) == (0, 6):
        return net.activation(view, "relu6", label)
    if (low, high) == (0, inf):
        return net.activation(view, "relu", label)
    if (low, high) == (-inf, inf):
        return view
    return net.on(view, ops.Clip(low=max(low, -FLOAT32), high=min(high, FLOAT32)), label)


def leaky_relu(net: Network, view: View, slope: float, label: str) -> View:
    """x or slope * x."""
    if slope == 0:
        return net.activation(view, "relu", label)
    return net.activation(view, "leaky_relu", label, slope=slope)


def hard_sigmoid(net: Network, view: View, slope: float, offset: float, label: str) -> View:
    """min(max(slope * x + offset, 0), 1)."""
    if close(slope, 1 / 6) and close(offset, 0.5):
        return net.activation(view, "hard_sigmoid", label)
    line = scale_and_shift(net, view, np.array(slope), np.array(offset), f"{label}.line")
    return clip(net, line, 0, 1, label)


def scale_and_shift(net: Network, view: View, scale: Array, shift: Array, label: str) -> View:
    """Scale and shift per channel; recognises a step that undoes earlier ones or completes a hard sigmoid."""
    channels = view.node.shape[-1]
    net.budget.spend(4 * channels)
    scale, shift = (np.broadcast_to(np.asarray(value, np.float64), (channels,)) for value in (scale, shift))
    if not (np.isfinite(scale).all() and np.isfinite(shift).all()):
        raise FileError("scales or shifts by an infinite or NaN value")
    node = view.node
    if _equal(scale, shift, 1, 0):
        return view
    if node.op == ops.Activation(function="relu6") and _equal(scale, shift, 1 / 6, 0):
        source = _spelled(net, net.nodes[node.inputs[0]], 1, 3)
        if source:
            return net.activation(replace(view, node=source), "hard_sigmoid", label)
    for line in lines(net, node):
        if line.source is not node and _equal(*line.after(scale, shift), 1, 0):
            return replace(view, node=line.source)
    one, zero = np.ones(channels, np.float32), np.zeros(channels, np.float32)
    made = net.add(ops.BatchNorm(epsilon=EPSILON), [node], label,
                    weight=scale, bias=shift, running_mean=zero, running_var=one)  # fmt: skip
    net.affine[made.name] = Affine(node, scale, shift)
    return replace(view, node=made)


def gate(net: Network, a: View, b: View, label: str) -> View:
    """A map times a vector, per channel."""
    a, b = net.ordered(a), net.ordered(b)
    if _has_plane(b) or (len(a.node.shape) == 1 and not _has_plane(a)):
        a, b = b, a
    axes = max(len(a.dims), len(b.dims))
    pairs = zip(views.broadcast(a.dims, axes), views.broadcast(b.dims, axes), strict=True)
    aligned = all(factors in ((), over) for over, factors in pairs)
    if len(a.node.shape) != 3 or _has_plane(b) or not aligned or a.node.shape[-1] != b.node.shape[-1]:
        raise FileError(
            f"multiplies two results, {shown(a.sizes)} and {shown(b.sizes)}; the graph can only multiply a map by "
            "a vector with one number per channel, or x by hard_sigmoid(x)"
        )
    node = net.add(ops.Scale(), [a.node, net.vector(b).node], label)
    return View(node, views.broadcast(a.dims, axes))


def lines(net: Network, node: Node) -> Iterator[Affine]:
    """The nodes that `node` scales and shifts: itself and the sources of the steps before it."""
    line = Affine(node, np.ones(1), np.zeros(1))
    for _ in range(_PEEPHOLE):
        yield line
        step = net.affine.get(line.source.name)
        if step is None:
            return
        line = Affine(step.source, *step.after(line.scale, line.shift))
    yield line


def _spelled(net: Network, node: Node, scale: float, shift: float) -> Node | None:
    """The result r with `node` = `scale` * r + `shift`, in one or a few steps."""
    return next((line.source for line in lines(net, node) if _equal(line.scale, line.shift, scale, shift)), None)


def _bounds(op: ops.Op) -> tuple[float, float] | None:
    """The bounds of an operator that only clips."""
    match op:
        case ops.Activation(function="relu"):
            return 0, inf
        case ops.Activation(function="relu6"):
            return 0, 6
        case ops.Clip(low=low, high=high):
            return (-inf if low <= -FLOAT32 else low), (inf if high >= FLOAT32 else high)
    return None


def _has_plane(view: View) -> bool:
    return any(atom.axis != views.CHANNELS for dim in view.dims for atom in dim)


def _equal(scale: Array, shift: Array, wanted_scale: float, wanted_shift: float) -> bool:
    """Whether these equal the wanted numbers, to a few roundings of float32."""
    return close(scale, wanted_scale) and close(shift, wanted_shift)


def close(values: Array | float, wanted: float) -> bool:
    """Whether all equal the wanted number, to a few roundings of float32."""
    return bool((np.abs(np.asarray(values) - wanted) <= 5e-7 * max(abs(wanted), 0.1)).all())
