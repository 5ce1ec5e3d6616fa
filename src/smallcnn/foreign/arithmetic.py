"""Arithmetic of two operands, results or constants; a constant is one number or one per channel."""

from dataclasses import replace

import numpy as np

from smallcnn.errors import FileError
from smallcnn.foreign import idioms, views
from smallcnn.foreign.gates import gated
from smallcnn.foreign.network import Network
from smallcnn.foreign.views import Array, View, decimal
from smallcnn.ir import ops
from smallcnn.ir.checks import shown

Operand = View | Array

_ONE, _ZERO = np.array(1.0), np.array(0.0)


def plus(net: Network, a: Operand, b: Operand, label: str) -> View:
    """The sum."""
    if isinstance(a, View) and isinstance(b, View):
        return net.sum([a, b], label)
    view, shift = _apart(net, a, b)
    return idioms.scale_and_shift(net, view, _ONE, shift, label)


def minus(net: Network, a: Operand, b: Operand, label: str) -> View:
    """The difference."""
    if isinstance(a, View) and isinstance(b, View):
        return net.together(ops.Sub(), [a, b], label)
    view, constant = _apart(net, a, b)
    sign = 1.0 if isinstance(a, View) else -1.0
    return idioms.scale_and_shift(net, view, np.array(sign), -sign * constant, label)


def times(net: Network, a: Operand, b: Operand, label: str) -> View:
    """The product: x times a clipped line of x, a map times a number per channel, a result times a constant."""
    if isinstance(a, View) and isinstance(b, View):
        swish = [gated(net, x, gate, label) for x, gate in ((a, b), (b, a)) if x.dims == gate.dims]
        return next(filter(None, swish), None) or idioms.gate(net, a, b, label)
    view, scale = _apart(net, a, b)
    return idioms.scale_and_shift(net, view, scale, _ZERO, label)


def over(net: Network, a: Operand, b: Operand, label: str) -> View:
    """The quotient of a result and a constant."""
    if isinstance(b, View):
        raise FileError("divides by a value that depends on the image")
    view, divisor = _apart(net, a, b)
    with np.errstate(divide="ignore"):
        scale = 1 / divisor
    return idioms.scale_and_shift(net, view, scale, _ZERO, label)


def prelu(net: Network, view: View, slopes: Array, label: str) -> View:
    """A leaky ReLU with learned slopes: one number, or one per channel, that may be repeated along the plane."""
    for axis in range(slopes.ndim):
        first = slopes.take([0], axis) if slopes.size else slopes
        slopes = first if (slopes == first).all() else slopes
    if slopes.size == 1 and slopes.item() >= 0:
        return idioms.leaky_relu(net, view, decimal(slopes.item()), label)
    view, slopes = per_channel(net, view, slopes)
    slopes = np.broadcast_to(slopes, view.node.shape[-1:])
    return replace(view, node=net.add(ops.PRelu(), [view.node], label, slope=slopes))


def _apart(net: Network, a: Operand, b: Operand) -> tuple[View, Array]:
    """The operand that is a result, and the constant as one number or one per channel."""
    view, constant = (a, b) if isinstance(a, View) else (b, a)
    if not isinstance(view, View) or isinstance(constant, View):
        raise FileError("computes with constants alone")
    return per_channel(net, view, constant)


def per_channel(net: Network, view: View, constant: Array) -> tuple[View, Array]:
    """`constant` as one number or one per channel of `view`, which it must not broadcast; float64."""
    columns = view.sizes[-1:]
    if constant.shape[-1:] == columns != view.node.shape[-1:] and columns != (1,):
        view = net.rows(view) or view
    view = net.ordered(view)
    axes = max(len(view.dims), constant.ndim)
    dims, channels = views.broadcast(view.dims, axes), view.node.shape[-1]
    for dim, size in zip(dims, (1,) * (axes - constant.ndim) + constant.shape, strict=True):
        if size != 1 and (dim != (views.Atom(views.CHANNELS, channels),) or size != channels):
            raise FileError(f"combines {shown(view.sizes)} with a constant of {shown(constant.shape)}, "
                            "which is not one number or one per channel")  # fmt: skip
    return replace(view, dims=dims), constant.reshape(-1).astype(np.float64)
