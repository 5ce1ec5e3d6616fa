"""Arithmetic operators, elementwise or as a matrix product; constants are one number or one per channel."""

from collections.abc import Callable
from dataclasses import replace
from math import inf

import numpy as np

from smallcnn.errors import FileError
from smallcnn.foreign import views
from smallcnn.foreign.gates import gated
from smallcnn.foreign.network import EPSILON, Network, close
from smallcnn.foreign.views import Array, View, decimal
from smallcnn.ir import ops
from smallcnn.ir.checks import shown
from smallcnn.onnx.read.call import Call


def batch_norm(net: Network, call: Call) -> View:
    """BatchNormalization at inference."""
    view = net.ordered(call.view())
    if call.attributes.whole("training_mode", 0) or call.attributes.whole("spatial", 1) != 1:
        raise FileError("is batch norm in training mode, or not per channel")
    call.attributes.real("momentum", 0.9)
    epsilon = call.attributes.real("epsilon", 1e-5) or EPSILON
    channels = view.node.shape[-1]
    if len(view.dims) < 2 or view.sizes[1] != channels or {atom.axis for atom in view.dims[1]} - {views.CHANNELS}:
        raise FileError(f"normalises axis 1 of {shown(view.sizes)}, which is not the channels")
    names = {"weight": "scale", "bias": "shift", "running_mean": "mean", "running_var": "variance"}
    own = {key: call.weight(i, what) for i, (key, what) in enumerate(names.items(), 1)}
    if not (own["running_var"] + epsilon > EPSILON).all():
        raise FileError("has a variance that is not above 0")
    return replace(view, node=net.add(ops.BatchNorm(epsilon=epsilon), [view.node], call.label, **own))


def elementwise(function: ops.ActivationKind) -> Callable[[Network, Call], View]:
    """An activation without settings."""
    return lambda net, call: net.activation(call.view(), function, call.label)


def relu(net: Network, call: Call) -> View:
    """Relu, a lower bound."""
    return net.clip(call.view(), 0, inf, call.label)


def leaky_relu(net: Network, call: Call) -> View:
    """LeakyRelu."""
    return net.activation(call.view(), "leaky_relu", call.label, slope=call.attributes.real("alpha", 0.01))


def hard_sigmoid(net: Network, call: Call) -> View:
    """HardSigmoid: min(max(alpha * x + beta, 0), 1)."""
    alpha, beta = call.attributes.real("alpha", 0.2), call.attributes.real("beta", 0.5)
    if close(alpha, 1 / 6) and close(beta, 0.5):
        return net.activation(call.view(), "hard_sigmoid", call.label)
    line = net.scale_and_shift(call.view(), np.array(alpha), np.array(beta), f"{call.label}.line")
    return net.clip(line, 0, 1, call.label)


def prelu(net: Network, call: Call) -> View:
    """PRelu with one slope for all channels, a leaky ReLU."""
    slopes = call.weight(1, "slope")
    if not slopes.size or (slopes != slopes.reshape(-1)[0]).any():
        raise FileError("has a slope per channel; the graph's leaky ReLU has a single slope")
    return net.activation(call.view(), "leaky_relu", call.label, slope=decimal(float(slopes.reshape(-1)[0])))


def line(net: Network, call: Call) -> View:
    """Affine (operator set 1) and Neg."""
    alpha, beta = (-1.0, 0.0) if call.kind == "Neg" else (
        call.attributes.real("alpha", 1.0), call.attributes.real("beta", 0.0))  # fmt: skip
    return net.scale_and_shift(call.view(), np.array(alpha), np.array(beta), call.label)


def image_scaler(net: Network, call: Call) -> View:
    """ImageScaler from Core ML's converters: image * scale + bias, with a bias per channel of (N, C, H, W)."""
    view, scale = net.ordered(call.view()), call.attributes.real("scale", 1.0)
    bias = call.attributes.array("bias")
    bias = np.zeros(1) if bias is None else bias.astype(np.float64).reshape(-1)
    channels = view.node.shape[-1]
    if bias.size not in (1, channels) or len(view.sizes) != 4 or view.sizes[1] != channels:
        raise FileError(f"has a bias of {bias.size} numbers for {shown(view.sizes)}")
    return net.scale_and_shift(view, np.array(scale), bias, call.label)


def clip(net: Network, call: Call) -> View:
    """Clip, with its bounds as inputs or attributes."""
    low = call.attributes.real("min", call.number(1, "lower bound", -inf))
    high = call.attributes.real("max", call.number(2, "upper bound", inf))
    return net.clip(call.view(), decimal(low), decimal(high), call.label)


def bound(net: Network, call: Call) -> View:
    """Min or Max of a result and a number."""
    i = 0 if isinstance(call.values[0], View) else 1
    if len(call.values) != 2:
        raise FileError("needs exactly two inputs")
    value = decimal(call.number(1 - i, "bound", 0))
    low, high = (-inf, value) if call.kind == "Min" else (value, inf)
    return net.clip(call.view(i), low, high, call.label)


def add(net: Network, call: Call) -> View:
    """Add and Sum, of results and constants."""
    values = [call.value(i) for i in range(len(call.values))]
    terms = [value for value in values if isinstance(value, View)]
    view = net.sum(terms, call.label) if len(terms) > 1 else terms[0]
    for value in values:
        if not isinstance(value, View):
            view, shift = _per_channel(net, view, value)
            view = net.scale_and_shift(view, np.array(1.0), shift, call.label)
    return view


def sub(net: Network, call: Call) -> View:
    """Sub, of a result and a constant."""
    a, b = call.value(0), call.value(1)
    if isinstance(a, View) and isinstance(b, View):
        raise FileError("subtracts one result from another; the graph can add them")
    if isinstance(a, View):
        assert not isinstance(b, View)
        view, shift = _per_channel(net, a, b)
        return net.scale_and_shift(view, np.array(1.0), -shift, call.label)
    assert isinstance(b, View)
    view, shift = _per_channel(net, b, a)
    return net.scale_and_shift(view, np.array(-1.0), shift, call.label)


def mul(net: Network, call: Call) -> View:
    """Mul."""
    a, b = call.value(0), call.value(1)
    if isinstance(a, View) and isinstance(b, View):
        swish = [gated(net, x, gate, call.label) for x, gate in ((a, b), (b, a)) if x.dims == gate.dims]
        return next(filter(None, swish), None) or net.gate(a, b, call.label)
    view, constant = (a, b) if isinstance(a, View) else (b, a)
    assert isinstance(view, View)
    assert not isinstance(constant, View)
    view, scale = _per_channel(net, view, constant)
    return net.scale_and_shift(view, scale, np.array(0.0), call.label)


def div(net: Network, call: Call) -> View:
    """Div, of a result by a constant."""
    a, b = call.value(0), call.value(1)
    if isinstance(b, View) or not isinstance(a, View):
        raise FileError("divides by a value that depends on the image")
    view, divisor = _per_channel(net, a, b)
    with np.errstate(divide="ignore"):
        scale = 1 / divisor
    return net.scale_and_shift(view, scale, np.array(0.0), call.label)


def _per_channel(net: Network, view: View, constant: Array) -> tuple[View, Array]:
    """`constant` as one number or one per channel of `view`, which it must not broadcast; float64."""
    if constant.dtype.kind != "f":
        raise FileError(f"computes with a constant of {constant.dtype}")
    view = net.ordered(view)
    axes = max(len(view.dims), constant.ndim)
    dims = views.broadcast(view.dims, axes)
    whole_axis = (views.Atom(views.CHANNELS, view.node.shape[-1]),)
    for dim, size in zip(dims, (1,) * (axes - constant.ndim) + constant.shape, strict=True):
        if size != 1 and (dim != whole_axis or size != view.node.shape[-1]):
            raise FileError(f"combines {shown(view.sizes)} with a constant of {shown(constant.shape)}, "
                            "which is not one number or one per channel")  # fmt: skip
    return replace(view, dims=dims), constant.reshape(-1).astype(np.float64)


def gemm(net: Network, call: Call) -> View:
    """Gemm."""
    view, weight, bias = call.view(), call.weight(1, "weight"), call.bias(2)
    alpha, beta = call.attributes.real("alpha", 1.0), call.attributes.real("beta", 1.0)
    if len(view.dims) != 2 or weight.ndim != 2:
        raise FileError(f"multiplies {shown(view.sizes)} by {shown(weight.shape)}, not two matrices")
    if call.attributes.whole("transA", 0):
        view = replace(view, dims=view.dims[::-1])
    weight = weight if call.attributes.whole("transB", 0) else weight.T
    weight = weight if alpha == 1 else weight * alpha
    if bias is not None:
        if bias.size not in (1, len(weight)) or bias.shape[-1:] not in ((), (1,), (len(weight),)):
            raise FileError(f"adds {shown(bias.shape)} to {len(weight)} numbers")
        bias = np.broadcast_to(bias.reshape(-1), len(weight)) * beta
    return net.dense(view, weight, bias, call.label)


def matmul(net: Network, call: Call) -> View:
    """MatMul, of a result by a constant."""
    return net.dense(call.view(), call.weight(1, "weight").T, None, call.label)
