"""The supported TensorFlow Lite operators, by name.

Each function takes the network so far and the call, adds nodes and returns the result as a view: a tensor of the file
is a node's result with its axes arranged in some way (`foreign.views`), which eliminates reshapes and transposes.
Fused activations and the ranges of quantized tensors are applied by the reader.
"""

from collections.abc import Callable
from dataclasses import replace
from math import inf, prod

import numpy as np

from smallcnn.errors import FileError
from smallcnn.foreign import arithmetic, idioms
from smallcnn.foreign.arithmetic import Operand
from smallcnn.foreign.network import Network
from smallcnn.foreign.views import View, along
from smallcnn.ir import ops
from smallcnn.ir.checks import shown
from smallcnn.tflite import moving, resizing, windows
from smallcnn.tflite.call import Call, Reader


def binary(function: Callable[[Network, Operand, Operand, str], View]) -> Reader:
    """ADD, SUB, MUL and DIV."""
    return lambda net, call: function(net, call.value(0), call.value(1), call.label)


def activation(function: ops.ActivationKind) -> Callable[[Network, Call], View]:
    """An activation without settings."""
    return lambda net, call: net.activation(call.view(), function, call.label)


def clipped(low: float, high: float) -> Callable[[Network, Call], View]:
    """An activation that is a clip."""
    return lambda net, call: idioms.clip(net, call.view(), low, high, call.label)


def leaky_relu(net: Network, call: Call) -> View:
    """LEAKY_RELU."""
    return idioms.leaky_relu(net, call.view(), call.setting("Alpha", 0.2), call.label)


def prelu(net: Network, call: Call) -> View:
    """PRELU, with one slope or one per channel."""
    return arithmetic.prelu(net, call.view(), call.real(1, "slope"), call.label)


def exp(net: Network, call: Call) -> View:
    """EXP."""
    return net.on(call.view(), ops.Exp(), call.label)


def bound(net: Network, call: Call) -> View:
    """MINIMUM and MAXIMUM of a result and one number."""
    i = 0 if call.depends(0) else 1
    value = call.number(1 - i, "bound")
    low, high = (-inf, value) if call.operator.kind == "MINIMUM" else (value, inf)
    return idioms.clip(net, call.view(i), low, high, call.label)


def softmax(net: Network, call: Call) -> View:
    """SOFTMAX and LOG_SOFTMAX, which end the network."""
    view = call.view()
    if (any(view.dims[:-1]) and not isinstance(view.node.op, ops.Join)) or call.setting("Beta", 1.0) <= 0:
        raise FileError(f"is over the last axis of {shown(view.sizes)}, which is not all classes")
    if (beta := call.setting("Beta", 1.0)) != 1:
        view = idioms.scale_and_shift(net, view, np.array(beta), np.array(0.0), call.label)
    return replace(view, ended=call.operator.kind)


def argmax(net: Network, call: Call) -> View:  # noqa: ARG001
    """ARG_MAX over the classes, dropped because prediction does it."""
    view, axes = call.moved(), call.whole(1, "an axis")
    if prod(view.sizes) != view.sizes[along(axes[0], len(view.dims))]:
        raise FileError(f"is over axis {axes[0]} of {shown(view.sizes)}, which is not all classes")
    return replace(view, ended=view.ended or call.operator.kind)


READERS: dict[str, Reader] = {
    "ADD": binary(arithmetic.plus),
    "ARG_MAX": argmax,
    "AVERAGE_POOL_2D": windows.average_pool,
    "CAST": moving.same,
    "CONCATENATION": moving.concatenation,
    "CONV_2D": windows.conv,
    "DEPTHWISE_CONV_2D": windows.depthwise,
    "DEQUANTIZE": moving.same,
    "DIV": binary(arithmetic.over),
    "EXP": exp,
    "EXPAND_DIMS": moving.reshape,
    "FULLY_CONNECTED": windows.dense,
    "GATHER": moving.gather,
    "HARD_SWISH": activation("hard_swish"),
    "LEAKY_RELU": leaky_relu,
    "LOCAL_RESPONSE_NORMALIZATION": windows.normalised,
    "LOGISTIC": activation("sigmoid"),
    "LOG_SOFTMAX": softmax,
    "MAXIMUM": bound,
    "MAX_POOL_2D": windows.max_pool,
    "MEAN": windows.mean,
    "MINIMUM": bound,
    "MUL": binary(arithmetic.times),
    "PAD": windows.pad,
    "PADV2": windows.pad,
    "PRELU": prelu,
    "QUANTIZE": moving.same,
    "RELU": activation("relu"),
    "RELU6": activation("relu6"),
    "RELU_0_TO_1": clipped(0, 1),
    "RELU_N1_TO_1": clipped(-1, 1),
    "RESHAPE": moving.reshape,
    "RESIZE_BILINEAR": resizing.bilinear,
    "RESIZE_NEAREST_NEIGHBOR": resizing.nearest,
    "SLICE": moving.cut,
    "SOFTMAX": softmax,
    "SPLIT": moving.split,
    "SPLIT_V": moving.split_v,
    "SQUEEZE": moving.reshape,
    "STRIDED_SLICE": moving.strided_cut,
    "SUB": binary(arithmetic.minus),
    "TRANSPOSE": moving.transpose,
}

FUSED: dict[int, tuple[float, float]] = {0: (-inf, inf), 1: (0.0, inf), 2: (-1.0, 1.0), 3: (0.0, 6.0)}
"""The schema's ActivationFunctionType: NONE, RELU, RELU_N1_TO_1, RELU6, as limits."""
