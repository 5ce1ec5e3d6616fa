"""The supported Keras layers, by class.

Each function takes the network so far and the call, adds nodes and returns the result as a view: a Keras tensor is a
node's result with its axes arranged in some way (`smallcnn.onnx.views`), channels last.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import inf, prod
from typing import Any

import numpy as np

from smallcnn.errors import FileError
from smallcnn.foreign import views
from smallcnn.foreign.channels_last import channels_last, map_last, per_channel, plain, product
from smallcnn.foreign.network import EPSILON, Network
from smallcnn.foreign.views import Array, View
from smallcnn.ir import ops
from smallcnn.ir.builder import same_padding
from smallcnn.ir.checks import shown
from smallcnn.ir.graph import Node
from smallcnn.keras.call import Call
from smallcnn.keras.description import Layer

Reader = Callable[[Network, Call], View]


def tensor_names(layer: Layer) -> tuple[str, ...]:
    """Names of a layer's tensors, in Keras' order."""
    config = layer.config
    bias = ("bias",) if config.get("use_bias", config.get("bias", True)) else ()
    match layer.kind:
        case "Conv2D" | "Convolution2D" | "Dense":
            return ("kernel", *bias)
        case "DepthwiseConv2D":
            return ("depthwise_kernel", *bias)
        case "SeparableConv2D" | "SeparableConvolution2D":
            return ("depthwise_kernel", "pointwise_kernel", *bias)
        case "BatchNormalization" | "SyncBatchNormalization":
            learned = [key for key, flag in (("gamma", "scale"), ("beta", "center")) if config.get(flag, True)]
            return (*learned, "moving_mean", "moving_variance")
        case "PReLU":
            return ("alpha",)
        case "Normalization" if config.get("mean") is None:
            return ("mean", "variance", "count")
    return ()


# --- windows -------------------------------------------------------------------------------------------------------


def _is_channels_last(call: Call) -> None:
    said = call.option("data_format", "dim_ordering", default="channels_last")
    if said not in ("channels_last", "tf", "default"):
        raise FileError(f"has data_format {shown(said)}; only channels_last is supported")


def _padding(call: Call, plane: Sequence[int], kernel: ops.Pair, stride: ops.Pair) -> ops.Padding:
    if min(*kernel, *stride) < 1:
        raise FileError(f"has a window of {kernel} with strides {stride}")
    match call.option("padding", "border_mode", default="valid"):
        case "same":
            rows, columns = (same_padding(*side) for side in zip(plane, kernel, stride, strict=True))
            return rows, columns
        case "valid":
            return ops.NO_PADDING
        case said:
            raise FileError(f"has padding {shown(said)}, which is neither same nor valid")


def _convolved(net: Network, call: Call, node: Node, label: str, own: dict[str, Array], groups: int) -> Node:
    """A convolution with the layer's strides and padding, its weight (out, in / groups, height, width)."""
    _is_channels_last(call)
    kernel = (own["weight"].shape[2], own["weight"].shape[3])
    dilation = call.two("dilation_rate", default=1)
    if any(step != 1 and side > 1 for step, side in zip(dilation, kernel, strict=True)):
        raise FileError(f"has dilations {dilation}; only 1 is supported")
    stride = call.two("strides", "subsample", default=1)
    padding = _padding(call, node.shape[:2], kernel, stride)
    out = len(own["weight"])
    op = ops.Conv(out=out, kernel=kernel, stride=stride, padding=padding, groups=groups, bias="bias" in own)
    return net.add(op, [node], label, **own)


def _four(value: Array, what: str) -> Array:
    if value.ndim != 4 or not value.size:
        raise FileError(f"has a {what} of {shown(value.shape)}, not four axes")
    return value


def _depthwise_weight(value: Array) -> Array:
    """(height, width, channels, multiplier) -> (channels * multiplier, 1, height, width)."""
    height, width, channels, multiplier = _four(value, "kernel").shape
    return value.transpose(2, 3, 0, 1).reshape(channels * multiplier, 1, height, width)


def conv(net: Network, call: Call) -> View:
    """Conv2D, kernels (height, width, in / groups, out)."""
    own = call.tensors(*tensor_names(call.layer))
    weight = _four(own.pop("kernel"), "kernel").transpose(3, 2, 0, 1)
    node = channels_last(net, call.view())
    if len(node.shape) == 1:
        if weight.shape[2:] != (1, 1):
            raise FileError("convolves an input averaged over the plane with a kernel larger than 1x1")
        op = ops.Dense(out=len(weight), bias="bias" in own)
        return activated(net, call, plain(net.add(op, [node], call.label, weight=weight[:, :, 0, 0], **own)))
    if node.shape[2] % weight.shape[1]:
        raise FileError(f"convolves {node.shape[2]} channels with a kernel for {weight.shape[1]}")
    made = _convolved(net, call, node, call.label, {"weight": weight, **own}, node.shape[2] // weight.shape[1])
    return activated(net, call, plain(made))


def depthwise(net: Network, call: Call) -> View:
    """DepthwiseConv2D, kernels (height, width, channels, multiplier)."""
    own = call.tensors(*tensor_names(call.layer))
    node = map_last(net, call.view())
    own["weight"] = _depthwise_weight(own.pop("depthwise_kernel"))
    return activated(net, call, plain(_convolved(net, call, node, call.label, own, node.shape[2])))


def separable(net: Network, call: Call) -> View:
    """SeparableConv2D: a depthwise convolution, then one of 1x1."""
    own = call.tensors(*tensor_names(call.layer))
    node = map_last(net, call.view())
    weight = _depthwise_weight(own.pop("depthwise_kernel"))
    first = _convolved(net, call, node, f"{call.label}.depthwise", {"weight": weight}, node.shape[2])
    own["weight"] = _four(own.pop("pointwise_kernel"), "kernel").transpose(3, 2, 0, 1)
    op = ops.Conv(out=len(own["weight"]), bias="bias" in own)
    return activated(net, call, plain(net.add(op, [first], f"{call.label}.pointwise", **own)))


def dense(net: Network, call: Call) -> View:
    """Dense, kernels (in, out), over the last axis."""
    own = call.tensors(*tensor_names(call.layer))
    weight, view = own.pop("kernel").T, call.view()
    if weight.ndim != 2:
        raise FileError(f"has a kernel of {shown(weight.shape)}, not two axes")
    if any(view.dims[:-1]):  # a map, pixel by pixel
        op = ops.Conv(out=len(weight), bias="bias" in own)
        node = map_last(net, view)
        return activated(net, call, plain(net.add(op, [node], call.label, weight=weight[:, :, None, None], **own)))
    made = net.dense(view, weight, own.get("bias"), call.label)
    return activated(net, call, replace(made, dims=(*view.dims[:-1], made.dims[-1])))


def pool(function: Any) -> Reader:
    """MaxPooling2D and AveragePooling2D, which divides by the pixels inside the image."""

    def read(net: Network, call: Call) -> View:
        _is_channels_last(call)
        node = map_last(net, call.view())
        kernel = call.two("pool_size", default=2)
        stride = call.two("strides", default=kernel)
        padding = _padding(call, node.shape[:2], kernel, stride)
        op = ops.Pool(function=function, kernel=kernel, stride=stride, padding=padding)
        return plain(net.add(op, [node], call.label))

    return read


def _kept(call: Call, view: View) -> View:
    return view if call.flag("keepdims", default=False) else replace(view, dims=(view.dims[0], view.dims[3]))


def global_average_pool(net: Network, call: Call) -> View:
    """GlobalAveragePooling2D."""
    _is_channels_last(call)
    node = channels_last(net, call.view())
    return _kept(call, plain(net.add(ops.GlobalPool(), [node], call.label) if len(node.shape) == 3 else node))


def global_max_pool(net: Network, call: Call) -> View:
    """GlobalMaxPooling2D, a maximum over a window as large as the plane."""
    _is_channels_last(call)
    node = channels_last(net, call.view())
    if len(node.shape) == 3:
        op = ops.Pool(function="max", kernel=(node.shape[0], node.shape[1]), stride=(1, 1))
        node = net.add(op, [node], call.label)
    return _kept(call, plain(node))


def _margins(call: Call, name: str) -> ops.Padding:
    """((top, bottom), (left, right)) from a setting in that form, (height, width), or one number."""
    value = call.option(name, default=1)
    rows = [value, value] if isinstance(value, int) else value
    if isinstance(rows, list | tuple) and len(rows) == 4:  # Keras 1
        rows = [rows[:2], rows[2:]]
    if not isinstance(rows, list | tuple) or len(rows) != 2:
        raise FileError(f"has {name} {shown(value)}")
    (top, bottom), (left, right) = ([side, side] if isinstance(side, int) else side for side in rows)
    sides = (top, bottom, left, right)
    if not all(isinstance(side, int) and side >= 0 for side in sides):
        raise FileError(f"has {name} {shown(value)}")
    return (top, bottom), (left, right)


def zero_padding(net: Network, call: Call) -> View:
    """ZeroPadding2D."""
    _is_channels_last(call)
    return plain(net.add(ops.Pad(padding=_margins(call, "padding")), [map_last(net, call.view())], call.label))


def cropping(net: Network, call: Call) -> View:
    """Cropping2D."""
    _is_channels_last(call)
    (top, bottom), (left, right) = _margins(call, "cropping")
    op = ops.Pad(padding=((-top, -bottom), (-left, -right)))
    return plain(net.add(op, [map_last(net, call.view())], call.label))


# --- numbers -------------------------------------------------------------------------------------------------------


def batch_norm(net: Network, call: Call) -> View:
    """BatchNormalization over the channels."""
    view = net.ordered(call.view())
    axis = call.option("axis", default=-1)
    axis = axis[0] if isinstance(axis, list) and len(axis) == 1 else axis
    if axis not in (-1, len(view.dims) - 1) or call.option("mode", default=0) not in (0, 2):
        raise FileError(f"normalises axis {shown(axis)} of {shown(view.sizes)}, which is not the channels")
    own = call.tensors(*tensor_names(call.layer))
    channels = view.node.shape[-1]
    if {atom.axis for atom in view.dims[-1]} - {views.CHANNELS} or view.sizes[-1] != channels:
        raise FileError(f"normalises {shown(view.sizes)}, whose last axis is not the channels")
    epsilon = call.real("epsilon", default=1e-3) or EPSILON
    if not (own["moving_variance"] + epsilon > EPSILON).all():
        raise FileError("has a variance that is not above 0")
    made = net.add(
        ops.BatchNorm(epsilon=epsilon), [view.node], call.label,
        weight=own.get("gamma", np.ones(channels, np.float32)), bias=own.get("beta", np.zeros(channels, np.float32)),
        running_mean=own["moving_mean"], running_var=own["moving_variance"],
    )  # fmt: skip
    return replace(view, node=made)


def rescaling(net: Network, call: Call) -> View:
    """Rescaling: x * scale + offset."""
    view, scale = per_channel(net, call.view(), np.asarray(call.option("scale", default=1.0), np.float64))
    view, offset = per_channel(net, view, np.asarray(call.option("offset", default=0.0), np.float64))
    return net.scale_and_shift(view, scale, offset, call.label)


def normalization(net: Network, call: Call) -> View:
    """Normalization: (x - mean) / sqrt(variance), or its inverse."""
    config = call.layer.config
    if config.get("mean") is None:
        own = call.tensors(*tensor_names(call.layer))
        mean, variance = own["mean"], own["variance"]
    else:
        mean, variance = (np.asarray(config.get(key), np.float64) for key in ("mean", "variance"))
    view, mean = per_channel(net, call.view(), mean)
    view, variance = per_channel(net, view, variance)
    std = np.maximum(np.sqrt(variance), 1e-7)  # Keras' epsilon
    if call.flag("invert", default=False):
        return net.scale_and_shift(view, std, mean, call.label)
    return net.scale_and_shift(view, 1 / std, -mean / std, call.label)


def add(net: Network, call: Call) -> View:
    """Add, of results, or of a result and a constant."""
    results = call.views()
    if len(results) > 1:
        return net.sum(results, call.label)
    view, constant = _operands(net, call)
    return net.scale_and_shift(view, np.array(1.0), constant, call.label)


def subtract(net: Network, call: Call) -> View:
    """Subtract, of a result and a constant."""
    if len(call.views()) > 1:
        raise FileError("subtracts one result from another; the graph can add them")
    sign = 1.0 if isinstance(call.pair("x", "y", "x1", "x2")[0], View) else -1.0
    view, constant = _operands(net, call)
    return net.scale_and_shift(view, np.array(sign), -sign * constant, call.label)


def multiply(net: Network, call: Call) -> View:
    """Multiply: a map by a number per channel, x by hard_sigmoid(x), or a result by a constant."""
    results = call.views()
    if len(results) == 2:
        return product(net, results[0], results[1], call.label)
    if len(results) > 2:
        raise FileError(f"multiplies {len(results)} results; the graph can multiply two")
    view, constant = _operands(net, call)
    return net.scale_and_shift(view, constant, np.array(0.0), call.label)


def divide(net: Network, call: Call) -> View:
    """A result divided by a constant."""
    if not isinstance(call.pair("x", "y", "x1", "x2")[0], View) or len(call.views()) > 1:
        raise FileError("divides by a value that depends on the image")
    view, constant = _operands(net, call)
    if not constant.all():
        raise FileError("divides by 0")
    return net.scale_and_shift(view, 1 / constant, np.array(0.0), call.label)


def _operands(net: Network, call: Call) -> tuple[View, Array]:
    """The operand that is a result, and the constant as one number or one per channel."""
    a, b = call.pair("x", "y", "x1", "x2")
    view, constant = (a, b) if isinstance(a, View) else (b, a)
    if not isinstance(view, View) or isinstance(constant, View):
        raise FileError("computes with constants alone")
    return per_channel(net, view, constant)


def average(net: Network, call: Call) -> View:
    """Average, of results."""
    results = call.views()
    total = net.sum(results, call.label)
    return net.scale_and_shift(total, np.array(1 / len(results)), np.array(0.0), f"{call.label}.scale")


def concatenate(net: Network, call: Call) -> View:
    """Concatenate, along the channels."""
    parts = call.views()
    axis = call.option("axis", "concat_axis", default=-1)
    if not parts or len({len(part.dims) for part in parts}) > 1 or axis not in (-1, len(parts[0].dims) - 1):
        raise FileError(f"joins {len(parts)} results along axis {shown(axis)}; channels can be joined")
    return parts[0] if len(parts) == 1 else net.join(parts, len(parts[0].dims) - 1, call.label)


# --- activations ---------------------------------------------------------------------------------------------------


def activated(net: Network, call: Call, view: View) -> View:
    """The result with the layer's activation applied."""
    return _activation(net, call, view, call.layer.config.get("activation"), f"{call.label}.activation")


def activation(net: Network, call: Call) -> View:
    """Activation."""
    return _activation(net, call, call.view(), call.layer.config.get("activation"), call.label)


def _activation(net: Network, call: Call, view: View, said: Any, label: str) -> View:
    """An activation by its name, or a layer in its place."""
    if isinstance(said, dict):
        inner = said.get("config")
        if said.get("class_name") in _ACTIVATION_LAYERS and isinstance(inner, dict):
            layer = replace(call.layer, kind=str(said["class_name"]), config=inner)
            return READERS[layer.kind](net, replace(call, layer=layer, arguments=[view], named={}, label=label))
        said = inner if isinstance(inner, str) else said.get("class_name")
    match said:
        case None | "linear":
            return view
        case "relu" | "sigmoid":
            return net.activation(view, said, label)
        case "relu6":
            return net.clip(view, 0, 6, label)
        case "hard_sigmoid":
            return _hard_sigmoid(net, call, view, label)
        case "hard_swish" | "hard_silu":
            return net.activation(view, "hard_swish", label)
        case "leaky_relu":
            return net.activation(view, "leaky_relu", label, slope=0.2)
        case "softmax" | "log_softmax":
            return _softmax(view, said)
    raise FileError(f"has the activation {shown(said)}, which the graph does not have")


def _hard_sigmoid(net: Network, call: Call, view: View, label: str) -> View:
    """relu6(x + 3) / 6 since Keras 3; of slope 0.2 before."""
    if call.version >= 3:
        return net.activation(view, "hard_sigmoid", label)
    return net.clip(net.scale_and_shift(view, np.array(0.2), np.array(0.5), f"{label}.slope"), 0, 1, label)


def _softmax(view: View, kind: str) -> View:
    if any(view.dims[:-1]):
        raise FileError(f"is a softmax over the last axis of {shown(view.sizes)}, which is not all classes")
    return replace(view, ended=kind)


def named_activation(name: str) -> Reader:
    """A layer or operation that is an activation without settings."""
    return lambda net, call: _activation(net, call, call.view(), name, call.label)


def softmax(net: Network, call: Call) -> View:  # noqa: ARG001
    """Softmax."""
    view, axis = call.view(), call.option("axis", default=-1)
    if axis not in (-1, len(view.dims) - 1):
        raise FileError(f"is over axis {shown(axis)} of {shown(view.sizes)}, which is not all classes")
    return _softmax(view, "softmax")


def relu(net: Network, call: Call) -> View:
    """ReLU, with an upper end and a slope below 0."""
    view, most = call.view(), call.option("max_value")
    slope, threshold = call.real("negative_slope", default=0), call.real("threshold", default=0)
    if threshold != 0:
        raise FileError(f"is a ReLU with the threshold {threshold:g}; only 0 is known")
    if slope == 0:
        return net.clip(view, 0, inf if most is None else call.real("max_value", default=0), call.label)
    if most is not None:
        raise FileError("is a ReLU with both a slope and an upper bound, which the graph does not have")
    return net.activation(view, "leaky_relu", call.label, slope=slope)


def leaky_relu(net: Network, call: Call) -> View:
    """LeakyReLU."""
    return _leaky(net, call, call.real("negative_slope", "alpha", default=0.3))


def prelu(net: Network, call: Call) -> View:
    """PReLU, if its slopes are one number."""
    slopes = call.tensors("alpha")["alpha"]
    if not slopes.size or (slopes != slopes.flat[0]).any():
        raise FileError("has several slopes; the graph's leaky ReLU has a single slope")
    return _leaky(net, call, float(slopes.flat[0]))


def _leaky(net: Network, call: Call, slope: float) -> View:
    if slope == 0:
        return net.activation(call.view(), "relu", call.label)
    return net.activation(call.view(), "leaky_relu", call.label, slope=slope)


# --- shapes --------------------------------------------------------------------------------------------------------


def flatten(net: Network, call: Call) -> View:  # noqa: ARG001
    """Flatten."""
    _is_channels_last(call)
    view = call.moved()
    return replace(view, dims=views.reshaped(view.dims, (1, prod(view.sizes))))


def reshape(net: Network, call: Call) -> View:  # noqa: ARG001
    """Reshape; one side may be left open."""
    view, target = call.moved(), call.option("target_shape", "newshape")
    if not isinstance(target, list | tuple) or not all(isinstance(side, int) for side in target):
        raise FileError(f"reshapes {shown(view.sizes)} to {shown(target)}")
    sides = list(target)
    if sides.count(-1) == 1:
        known = -prod(sides)
        sides[sides.index(-1)] = prod(view.sizes) // max(known, 1)
    return replace(view, dims=views.reshaped(view.dims, (1, *sides)))


def permute(net: Network, call: Call) -> View:  # noqa: ARG001
    """Permute, whose axes are counted from 1, after the batch."""
    view, order = call.moved(), call.option("dims")
    if not isinstance(order, list | tuple) or sorted(map(repr, order)) != sorted(map(repr, range(1, len(view.dims)))):
        raise FileError(f"permutes {shown(view.sizes)} by {shown(order)}")
    return replace(view, dims=(view.dims[0], *(view.dims[axis] for axis in order)))


def same(net: Network, call: Call) -> View:  # noqa: ARG001
    """A layer that acts only in training."""
    return call.moved()


def resizing(net: Network, call: Call) -> View:  # noqa: ARG001
    """Resizing to the size the image already has."""
    view, size = call.moved(), (call.whole("height"), call.whole("width"))
    if view.sizes[1:3] != size:
        raise FileError(f"resizes {shown(view.sizes[1:3])} to {size}, which the graph cannot do")
    return view


READERS: dict[str, Reader] = {
    "Activation": activation,
    "ActivityRegularization": same,
    "Add": add,
    "AlphaDropout": same,
    "Average": average,
    "AveragePooling2D": pool("average"),
    "BatchNormalization": batch_norm,
    "Concatenate": concatenate,
    "Conv2D": conv,
    "Convolution2D": conv,
    "Cropping2D": cropping,
    "Dense": dense,
    "DepthwiseConv2D": depthwise,
    "Divide": divide,
    "Dropout": same,
    "Flatten": flatten,
    "GaussianDropout": same,
    "GaussianNoise": same,
    "GlobalAveragePooling2D": global_average_pool,
    "GlobalMaxPooling2D": global_max_pool,
    "HardSigmoid": named_activation("hard_sigmoid"),
    "HardSilu": named_activation("hard_silu"),
    "HardSwish": named_activation("hard_swish"),
    "Identity": same,
    "LeakyReLU": leaky_relu,
    "LeakyRelu": leaky_relu,
    "MaxPooling2D": pool("max"),
    "Multiply": multiply,
    "Normalization": normalization,
    "PReLU": prelu,
    "Permute": permute,
    "RandomBrightness": same,
    "RandomContrast": same,
    "RandomCrop": resizing,
    "RandomFlip": same,
    "RandomHeight": same,
    "RandomRotation": same,
    "RandomTranslation": same,
    "RandomWidth": same,
    "RandomZoom": same,
    "ReLU": relu,
    "Relu": named_activation("relu"),
    "Relu6": named_activation("relu6"),
    "Rescaling": rescaling,
    "Reshape": reshape,
    "Resizing": resizing,
    "SeparableConv2D": separable,
    "SeparableConvolution2D": separable,
    "Sigmoid": named_activation("sigmoid"),
    "Softmax": softmax,
    "SpatialDropout2D": same,
    "Subtract": subtract,
    "SyncBatchNormalization": batch_norm,
    "TrueDivide": divide,
    "ZeroPadding2D": zero_padding,
}
"""Layers, and the operations that Keras 3 writes between them."""

FUNCTIONS: dict[str, str] = {
    "__operators__.add": "Add", "math.add": "Add", "math.subtract": "Subtract", "math.multiply": "Multiply",
    "math.truediv": "TrueDivide", "math.divide": "TrueDivide", "nn.relu": "Relu", "nn.relu6": "Relu6",
    "math.sigmoid": "Sigmoid", "nn.sigmoid": "Sigmoid", "identity": "Identity",
    "Add": "Add", "AddV2": "Add", "BiasAdd": "Add", "Sub": "Subtract", "Mul": "Multiply", "RealDiv": "TrueDivide",
    "Relu": "Relu", "Relu6": "Relu6", "Sigmoid": "Sigmoid", "Identity": "Identity",
}  # fmt: skip
"""TensorFlow's operations between layers, as TFOpLambda and TensorFlowOpLayer of Keras 2 name them."""

_ACTIVATION_LAYERS = ("ReLU", "LeakyReLU", "Softmax", "PReLU")
