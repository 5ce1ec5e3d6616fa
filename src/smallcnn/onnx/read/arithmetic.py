"""Arithmetic operators, elementwise or as a matrix product; constants are one number or one per channel."""

from collections.abc import Callable
from dataclasses import replace
from math import inf

import numpy as np

from smallcnn.errors import FileError
from smallcnn.foreign import arithmetic, idioms, views
from smallcnn.foreign.arithmetic import Operand
from smallcnn.foreign.idioms import EPSILON
from smallcnn.foreign.network import Network
from smallcnn.foreign.views import View, decimal
from smallcnn.ir import ops
from smallcnn.ir.checks import shown
from smallcnn.ir.types import RANGES, Grid, Tensor
from smallcnn.onnx.read.call import Call
from smallcnn.reference import numbers


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
    return idioms.clip(net, call.view(), 0, inf, call.label)


def leaky_relu(net: Network, call: Call) -> View:
    """LeakyRelu."""
    return idioms.leaky_relu(net, call.view(), call.attributes.real("alpha", 0.01), call.label)


def hard_sigmoid(net: Network, call: Call) -> View:
    """HardSigmoid: min(max(alpha * x + beta, 0), 1)."""
    alpha, beta = call.attributes.real("alpha", 0.2), call.attributes.real("beta", 0.5)
    return idioms.hard_sigmoid(net, call.view(), alpha, beta, call.label)


def prelu(net: Network, call: Call) -> View:
    """PRelu, with one slope or one per channel."""
    return arithmetic.prelu(net, call.view(), call.weight(1, "slope"), call.label)


def exp(net: Network, call: Call) -> View:
    """Exp."""
    return net.on(call.view(), ops.Exp(), call.label)


def line(net: Network, call: Call) -> View:
    """Affine (operator set 1) and Neg."""
    alpha, beta = (-1.0, 0.0) if call.kind == "Neg" else (
        call.attributes.real("alpha", 1.0), call.attributes.real("beta", 0.0))  # fmt: skip
    return idioms.scale_and_shift(net, call.view(), np.array(alpha), np.array(beta), call.label)


def image_scaler(net: Network, call: Call) -> View:
    """ImageScaler from Core ML's converters: image * scale + bias, with a bias per channel of (N, C, H, W)."""
    view, scale = net.ordered(call.view()), call.attributes.real("scale", 1.0)
    bias = call.attributes.array("bias")
    bias = np.zeros(1) if bias is None else bias.astype(np.float64).reshape(-1)
    channels = view.node.shape[-1]
    if bias.size not in (1, channels) or len(view.sizes) != 4 or view.sizes[1] != channels:
        raise FileError(f"has a bias of {bias.size} numbers for {shown(view.sizes)}")
    return idioms.scale_and_shift(net, view, np.array(scale), bias, call.label)


def clip(net: Network, call: Call) -> View:
    """Clip, with its bounds as inputs or attributes."""
    view = call.view()
    if view.node.tensor.grid is not None:
        return _clipped_bytes(net, call, view, view.node.tensor.grid)
    low = call.attributes.real("min", call.number(1, "lower bound", -inf))
    high = call.attributes.real("max", call.number(2, "upper bound", inf))
    return idioms.clip(net, view, decimal(low), decimal(high), call.label)


def _clipped_bytes(net: Network, call: Call, view: View, grid: Grid) -> View:
    """A clip of bytes between bytes, as one of the real numbers they stand for."""
    number, ends = view.node.tensor.number, RANGES[view.node.tensor.number]
    given = [call.constant(1), call.constant(2)]
    if any(bound is not None and len(bound) != 1 for bound in given):
        raise FileError(f"has bounds {shown(given)}, not two numbers")
    low, high = (bound[0] if bound else end for bound, end in zip(given, ends, strict=True))
    (scale,), (zero,) = grid.scale, grid.zero
    six = numbers.stored(number, grid, np.array(6.0))
    if (low, high) == ends:
        return view
    if low == zero and high in (six, ends[1]):
        return net.activation(view, "relu" if high == ends[1] else "relu6", call.label)
    if not low < high:
        raise FileError(f"clips between {low} and {high}")
    return net.on(view, ops.Clip(low=scale * (low - zero), high=scale * (high - zero)), call.label)


def bound(net: Network, call: Call) -> View:
    """Min or Max of a result and a number."""
    i = 0 if isinstance(call.values[0], View) else 1
    if len(call.values) != 2:
        raise FileError("needs exactly two inputs")
    value = decimal(call.number(1 - i, "bound", 0))
    low, high = (-inf, value) if call.kind == "Min" else (value, inf)
    return idioms.clip(net, call.view(i), low, high, call.label)


def add(net: Network, call: Call) -> View:
    """Add and Sum, of results and constants."""
    values = [call.operand(i) for i in range(len(call.values))]
    terms = [value for value in values if isinstance(value, View)]
    view = net.sum(terms, call.label) if len(terms) > 1 else terms[0]
    for value in values:
        if not isinstance(value, View):
            view = arithmetic.plus(net, view, value, call.label)
    return view


def _binary(function: Callable[[Network, Operand, Operand, str], View]) -> Callable[[Network, Call], View]:
    return lambda net, call: function(net, call.operand(0), call.operand(1), call.label)


sub, mul, div = (_binary(function) for function in (arithmetic.minus, arithmetic.times, arithmetic.over))


def gemm(net: Network, call: Call) -> View:
    """Gemm."""
    view, bias = call.view(), call.bias(2)
    alpha, beta = call.attributes.real("alpha", 1.0), call.attributes.real("beta", 1.0)
    weight, stored = call.stored(1, outputs=0 if call.attributes.whole("transB", 0) else 1)
    if len(view.dims) != 2 or weight.ndim != 2:
        raise FileError(f"multiplies {shown(view.sizes)} by {shown(weight.shape)}, not two matrices")
    if call.attributes.whole("transA", 0):
        view = replace(view, dims=view.dims[::-1])
    if alpha != 1:
        weight, stored = numbers.real(stored, weight).astype(np.float32) * alpha, Tensor(weight.shape)
    if bias is not None:
        if bias.size not in (1, len(weight)) or bias.shape[-1:] not in ((), (1,), (len(weight),)):
            raise FileError(f"adds {shown(bias.shape)} to {len(weight)} numbers")
        bias = np.broadcast_to(bias.reshape(-1), len(weight)) * beta
    return net.dense(view, weight, bias, call.label, number=stored.number, grid=stored.grid)


def matmul(net: Network, call: Call) -> View:
    """MatMul, of a result by a constant."""
    weight, stored = call.stored(1, outputs=1)
    return net.dense(call.view(), weight, None, call.label, number=stored.number, grid=stored.grid)
