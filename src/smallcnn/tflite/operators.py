"""The supported TensorFlow Lite operators, by name.

Each function takes the network so far and the call, adds nodes and returns the result as a view: a tensor of the file
is a node's result with its axes arranged in some way (`smallcnn.onnx.views`), which eliminates reshapes and transposes.
Fused activations and the ranges of quantized tensors are applied by the reader.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import inf, prod

import numpy as np

from smallcnn.errors import FileError
from smallcnn.foreign import views
from smallcnn.foreign.channels_last import channels_last, map_last, per_channel, plain, product
from smallcnn.foreign.network import Network
from smallcnn.foreign.views import View
from smallcnn.ir import ops
from smallcnn.ir.builder import same_padding
from smallcnn.ir.checks import shown
from smallcnn.ir.graph import Node
from smallcnn.tflite.call import Call
from smallcnn.tflite.file import Array

_SAME, _VALID = 0, 1  # the schema's Padding


def _window(call: Call, plane: Sequence[int], kernel: ops.Pair) -> tuple[ops.Pair, ops.Padding]:
    """Stride, and padding around a plane of this size."""
    stride = (call.option("StrideH"), call.option("StrideW"))
    if min(stride) < 1 or min(kernel) < 1:
        raise FileError(f"has a window of {kernel} with strides {stride}")
    dilation = (call.option("DilationHFactor", 1), call.option("DilationWFactor", 1))
    if any(step != 1 and side > 1 for step, side in zip(dilation, kernel, strict=True)):
        raise FileError(f"has dilations {dilation}; only 1 is supported")
    match call.option("Padding"):
        case int(code) if code == _SAME:
            rows, columns = (same_padding(*side) for side in zip(plane, kernel, stride, strict=True))
            return stride, (rows, columns)
        case int(code) if code == _VALID:
            return stride, ops.NO_PADDING
        case code:
            raise FileError(f"has padding {code}, which is neither SAME nor VALID")


def _weights(call: Call, weight: Array) -> dict[str, Array]:
    if not call.has(2):
        return {"weight": weight}
    bias = call.real(2, "bias")
    if bias.size != len(weight):
        raise FileError(f"has a bias of {shown(bias.shape)} for {len(weight)} channels")
    return {"weight": weight, "bias": bias.reshape(-1)}


def _kernel(call: Call) -> Array:
    weight = call.real(1, "weight")
    if weight.ndim != 4:
        raise FileError(f"has a weight of {shown(weight.shape)}, not four axes")
    return weight


def conv(net: Network, call: Call) -> View:
    """CONV_2D, weights (out, height, width, in)."""
    weight = _kernel(call).transpose(0, 3, 1, 2)
    node, own = channels_last(net, call.view()), _weights(call, weight)
    if len(node.shape) == 1:
        if weight.shape[2:] != (1, 1):
            raise FileError("convolves an input averaged over the plane with a kernel larger than 1x1")
        own["weight"] = weight[:, :, 0, 0]
        return plain(net.add(ops.Dense(out=len(weight), bias="bias" in own), [node], call.label, **own))
    if not weight.shape[1] or node.shape[2] % weight.shape[1]:
        raise FileError(f"convolves {node.shape[2]} channels with a weight for {weight.shape[1]}")
    return _convolved(net, call, node, own, groups=node.shape[2] // weight.shape[1])


def depthwise(net: Network, call: Call) -> View:
    """DEPTHWISE_CONV_2D, weights (1, height, width, channels * multiplier)."""
    weight = _kernel(call).transpose(3, 0, 1, 2)
    node = map_last(net, call.view())
    if weight.shape[1] != 1:
        raise FileError(f"has a depthwise weight of {shown(weight.shape)}")
    return _convolved(net, call, node, _weights(call, weight), groups=node.shape[2])


def _convolved(net: Network, call: Call, node: Node, own: dict[str, Array], groups: int) -> View:
    out, _, *kernel = own["weight"].shape
    size = (kernel[0], kernel[1])
    stride, padding = _window(call, node.shape[:2], size)
    op = ops.Conv(out=out, kernel=size, stride=stride, padding=padding, groups=groups, bias="bias" in own)
    return plain(net.add(op, [node], call.label, **own))


def dense(net: Network, call: Call) -> View:
    """FULLY_CONNECTED, weights (out, in), over the whole input, whatever its axes."""
    view, weight = call.view(), call.real(1, "weight")
    if call.option("WeightsFormat"):
        raise FileError("has shuffled weights, which are not supported")
    own = _weights(call, weight)
    view = replace(view, dims=views.reshaped(view.dims, (1, prod(view.sizes))))
    return net.dense(view, weight, own.get("bias"), call.label)


def add(net: Network, call: Call) -> View:
    """ADD, of results and constants."""
    a, b = call.value(0), call.value(1)
    if isinstance(a, View) and isinstance(b, View):
        return net.sum([a, b], call.label)
    view, shift = _constant(net, a, b)
    return net.scale_and_shift(view, np.array(1.0), shift, call.label)


def sub(net: Network, call: Call) -> View:
    """SUB, of a result and a constant."""
    a, b = call.value(0), call.value(1)
    if isinstance(a, View) and isinstance(b, View):
        raise FileError("subtracts one result from another; the graph can add them")
    view, constant = _constant(net, a, b)
    sign = 1.0 if isinstance(a, View) else -1.0
    return net.scale_and_shift(view, np.array(sign), -sign * constant, call.label)


def mul(net: Network, call: Call) -> View:
    """MUL."""
    a, b = call.value(0), call.value(1)
    if isinstance(a, View) and isinstance(b, View):
        return product(net, a, b, call.label)
    view, scale = _constant(net, a, b)
    return net.scale_and_shift(view, scale, np.array(0.0), call.label)


def div(net: Network, call: Call) -> View:
    """DIV, of a result by a constant."""
    if call.depends(1):
        raise FileError("divides by a value that depends on the image")
    view, divisor = _constant(net, call.view(), call.value(1))
    with np.errstate(divide="ignore"):
        scale = 1 / divisor
    return net.scale_and_shift(view, scale, np.array(0.0), call.label)


def _constant(net: Network, a: View | Array, b: View | Array) -> tuple[View, Array]:
    """The operand that is a result, and the constant as one number or one per channel."""
    view, constant = (a, b) if isinstance(a, View) else (b, a)
    if not isinstance(view, View) or isinstance(constant, View):
        raise FileError("computes with constants alone")
    return per_channel(net, view, constant)


def max_pool(net: Network, call: Call) -> View:
    """MAX_POOL_2D."""
    node = map_last(net, call.view())
    kernel = (call.option("FilterHeight"), call.option("FilterWidth"))
    stride, padding = _window(call, node.shape[:2], kernel)
    return plain(net.add(ops.Pool(function="max", kernel=kernel, stride=stride, padding=padding), [node], call.label))


def average_pool(net: Network, call: Call) -> View:
    """AVERAGE_POOL_2D, which divides by the pixels inside the image."""
    node = map_last(net, call.view())
    kernel = (call.option("FilterHeight"), call.option("FilterWidth"))
    stride, padding = _window(call, node.shape[:2], kernel)
    if kernel == node.shape[:2] and padding == ops.NO_PADDING:
        return plain(net.add(ops.GlobalPool(), [node], call.label))
    op = ops.Pool(function="average", kernel=kernel, stride=stride, padding=padding)
    return plain(net.add(op, [node], call.label))


def mean(net: Network, call: Call) -> View:
    """MEAN, over the plane or one of its axes."""
    view = call.view()
    axes = sorted({_axis(axis, len(view.dims)) for axis in call.whole(1, "axes")})
    gone = {atom.axis: atom.size for axis in axes for atom in view.dims[axis]}
    node = view.node
    if any(axis == views.CHANNELS or size != node.shape[axis] for axis, size in gone.items()):
        raise FileError(f"averages {shown(view.sizes)} over axes {shown(axes)}, not height and width")
    left = [atom.axis for i, dim in enumerate(view.dims) if i not in axes for atom in dim]
    if gone and not {views.HEIGHT, views.WIDTH}.intersection(left):
        node = net.add(ops.GlobalPool(), [node], call.label)
    elif gone:
        kernel = (gone.get(views.HEIGHT, 1), gone.get(views.WIDTH, 1))
        node = net.add(ops.Pool(function="average", kernel=kernel, stride=(1, 1)), [node], call.label)
    keep = len(call.output.shape) == len(view.dims)
    return View(node, tuple(() if i in axes else dim for i, dim in enumerate(view.dims) if keep or i not in axes))


def pad(net: Network, call: Call) -> View:
    """PAD and PADV2, with zeros around the plane."""
    view, amounts = call.view(), call.whole(1, "paddings")
    if len(amounts) != 2 * len(view.dims):
        raise FileError(f"has {len(amounts)} paddings for {shown(view.sizes)}")
    margins = list(zip(amounts[::2], amounts[1::2], strict=True))
    if not any(amounts):
        return view
    if call.has(2) and (value := call.number(2, "value")) != 0:
        raise FileError(f"pads with {value:g}; only zeros are supported")
    if min(amounts) < 0:
        raise FileError(f"has negative paddings {shown(amounts)}")
    node = map_last(net, view)
    batch, rows, columns, channels = margins
    if any(batch) or any(channels):
        raise FileError("pads the channels" if any(channels) else "pads the batch")
    return plain(net.add(ops.Pad(padding=(rows, columns)), [node], call.label))


def concatenation(net: Network, call: Call) -> View:
    """CONCATENATION, along the channels."""
    parts = [call.value(i) for i in range(len(call.operator.inputs))]
    results = [part for part in parts if isinstance(part, View)]
    if len(results) < len(parts):
        raise FileError("joins a result with a constant")
    if len({len(part.dims) for part in results}) > 1:
        raise FileError("joins results of different numbers of axes")
    axis = _axis(call.option("Axis"), len(results[0].dims))
    return results[0] if len(results) == 1 else net.join(results, axis, call.label)


def split(net: Network, call: Call) -> list[View]:
    """SPLIT, into equal parts."""
    view, (axis,) = call.view(1), call.whole(0, "an axis")[:1] or [0]
    axis, parts = _axis(axis, len(view.dims)), len(call.operator.outputs)
    if view.sizes[axis] % parts:
        raise FileError(f"splits axis {axis} of {shown(view.sizes)} into {parts}")
    return _parts(net, call, view, axis, [view.sizes[axis] // parts] * parts)


def split_v(net: Network, call: Call) -> list[View]:
    """SPLIT_V, into parts of given sizes."""
    view, sizes, (axis,) = call.view(), call.whole(1, "sizes"), call.whole(2, "an axis")[:1] or [0]
    axis = _axis(axis, len(view.dims))
    if sizes.count(-1) == 1:
        sizes[sizes.index(-1)] = view.sizes[axis] - sum(sizes) - 1
    if sum(sizes) != view.sizes[axis] or min(sizes) < 1 or len(sizes) != len(call.operator.outputs):
        raise FileError(f"splits axis {axis} of {shown(view.sizes)} into {shown(sizes)}")
    return _parts(net, call, view, axis, sizes)


def _parts(net: Network, call: Call, view: View, axis: int, sizes: Sequence[int]) -> list[View]:
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    pairs = enumerate(zip(starts, sizes, strict=True))
    return [net.part(view, axis, start, start + size, f"{call.label}.{i}") for i, (start, size) in pairs]


def cut(net: Network, call: Call) -> View:
    """SLICE, of consecutive channels, rows or columns."""
    view, starts, sizes = call.view(), call.whole(1, "starts"), call.whole(2, "sizes")
    if not len(starts) == len(sizes) == len(view.dims):
        raise FileError(f"takes {shown(starts)}, {shown(sizes)} of {shown(view.sizes)}")
    for axis, (start, size) in enumerate(zip(starts, sizes, strict=True)):
        stop = view.sizes[axis] if size == -1 else start + size
        view = net.part(view, axis, start, stop, call.label)
    return view


def strided_cut(net: Network, call: Call) -> View:
    """STRIDED_SLICE, with steps of 1."""
    view = call.view()
    starts, stops, steps = (call.whole(i + 1, what) for i, what in enumerate(("starts", "ends", "steps")))
    if call.option("EllipsisMask") or call.option("NewAxisMask"):
        raise FileError("slices with an ellipsis or new axes")
    if not len(starts) == len(stops) == len(steps) <= len(view.dims):
        raise FileError(f"takes {shown(starts)} to {shown(stops)} of {shown(view.sizes)}")
    masks = [call.option(f"{name}Mask") for name in ("Begin", "End", "ShrinkAxis")]
    gone = []
    for axis, (start, stop, step) in enumerate(zip(starts, stops, steps, strict=True)):
        no_start, no_stop, one = (bool(mask >> axis & 1) for mask in masks)
        if one:
            start = _axis(start, view.sizes[axis])  # noqa: PLW2901
            no_start, no_stop, stop, step = False, False, start + 1, 1  # noqa: PLW2901
            gone.append(axis)
        if step != 1:
            raise FileError(f"takes every {step}th of axis {axis}; only consecutive ones are supported")
        taken = range(view.sizes[axis])[None if no_start else start : None if no_stop else stop]
        if not taken:
            raise FileError(f"takes an empty slice of axis {axis}")
        view = net.part(view, axis, taken[0], taken[-1] + 1, call.label)
    return replace(view, dims=tuple(dim for axis, dim in enumerate(view.dims) if axis not in gone))


def gather(net: Network, call: Call) -> View:
    """GATHER, of consecutive channels, rows or columns."""
    view, indices = call.view(), call.whole(1, "indices")
    axis = _axis(call.option("Axis"), len(view.dims))
    if call.option("BatchDims") or indices != list(range(indices[0], indices[0] + len(indices))):
        raise FileError("gathers indices that are not consecutive")
    view = net.part(view, axis, indices[0], indices[-1] + 1, call.label)
    return view if call.tensor(1).shape else replace(view, dims=view.dims[:axis] + view.dims[axis + 1 :])


def activation(function: ops.ActivationKind) -> Callable[[Network, Call], View]:
    """An activation without settings."""
    return lambda net, call: net.activation(call.view(), function, call.label)


def clipped(low: float, high: float) -> Callable[[Network, Call], View]:
    """An activation that is a clip."""
    return lambda net, call: net.clip(call.view(), low, high, call.label)


def leaky_relu(net: Network, call: Call) -> View:
    """LEAKY_RELU."""
    return _leaky(net, call, call.setting("Alpha", 0.2))


def prelu(net: Network, call: Call) -> View:
    """PRELU, if its slopes are one number."""
    slopes = call.real(1, "slope")
    if not slopes.size or (slopes != slopes.flat[0]).any():
        raise FileError("has a slope per channel; the graph's leaky ReLU has a single slope")
    return _leaky(net, call, float(slopes.flat[0]))


def _leaky(net: Network, call: Call, slope: float) -> View:
    if slope == 0:
        return net.activation(call.view(), "relu", call.label)
    return net.activation(call.view(), "leaky_relu", call.label, slope=slope)


def bound(net: Network, call: Call) -> View:
    """MINIMUM and MAXIMUM of a result and one number."""
    i = 0 if call.depends(0) else 1
    value = call.number(1 - i, "bound")
    low, high = (-inf, value) if call.operator.kind == "MINIMUM" else (value, inf)
    return net.clip(call.view(i), low, high, call.label)


def normalised(net: Network, call: Call) -> View:
    """LOCAL_RESPONSE_NORMALIZATION, whose alpha applies to the window's sum, not its mean."""
    size = 2 * call.option("Radius") + 1
    alpha, beta, bias = call.setting("Alpha", 1), call.setting("Beta", 0.5), call.setting("Bias", 1)
    op = ops.LocalResponseNorm(size=size, alpha=alpha * size, beta=beta, bias=bias)
    return plain(net.add(op, [map_last(net, call.view())], call.label))


def reshape(net: Network, call: Call) -> View:  # noqa: ARG001
    """RESHAPE, SQUEEZE and EXPAND_DIMS, to the output shape in the file."""
    view, target = call.moved(), call.output.shape
    if prod(target) != prod(view.sizes) and call.operator.kind == "RESHAPE" and call.has(1):
        target = tuple(call.whole(1, "a shape"))
        if target.count(-1) == 1:
            rest = -prod(target)
            target = tuple(prod(view.sizes) // max(rest, 1) if side == -1 else side for side in target)
    return replace(view, dims=views.reshaped(view.dims, target))


def transpose(net: Network, call: Call) -> View:  # noqa: ARG001
    """TRANSPOSE."""
    view, order = call.moved(), call.whole(1, "an order")
    if sorted(order) != list(range(len(view.dims))):
        raise FileError(f"transposes {shown(view.sizes)} by {shown(order)}")
    return replace(view, dims=tuple(view.dims[axis] for axis in order))


def same(net: Network, call: Call) -> View:  # noqa: ARG001
    """QUANTIZE, DEQUANTIZE and CAST, which change how numbers are stored."""
    return call.moved()


def softmax(net: Network, call: Call) -> View:
    """SOFTMAX and LOG_SOFTMAX, which end the network."""
    view = call.view()
    if any(view.dims[:-1]) or call.setting("Beta", 1.0) <= 0:
        raise FileError(f"is over the last axis of {shown(view.sizes)}, which is not all classes")
    if (beta := call.setting("Beta", 1.0)) != 1:
        view = net.scale_and_shift(view, np.array(beta), np.array(0.0), call.label)
    return replace(view, ended=call.operator.kind)


def argmax(net: Network, call: Call) -> View:  # noqa: ARG001
    """ARG_MAX over the classes, dropped because prediction does it."""
    view, axes = call.moved(), call.whole(1, "an axis")
    if prod(view.sizes) != view.sizes[_axis(axes[0], len(view.dims))]:
        raise FileError(f"is over axis {axes[0]} of {shown(view.sizes)}, which is not all classes")
    return replace(view, ended=view.ended or call.operator.kind)


def _axis(axis: int, axes: int) -> int:
    """An axis, counted from the front."""
    if not -axes <= axis < axes:
        raise FileError(f"names axis {axis} of {axes}")
    return axis % axes


Reader = Callable[[Network, Call], View | list[View]]

READERS: dict[str, Reader] = {
    "ADD": add,
    "ARG_MAX": argmax,
    "AVERAGE_POOL_2D": average_pool,
    "CAST": same,
    "CONCATENATION": concatenation,
    "CONV_2D": conv,
    "DEPTHWISE_CONV_2D": depthwise,
    "DEQUANTIZE": same,
    "DIV": div,
    "EXPAND_DIMS": reshape,
    "FULLY_CONNECTED": dense,
    "GATHER": gather,
    "HARD_SWISH": activation("hard_swish"),
    "LEAKY_RELU": leaky_relu,
    "LOCAL_RESPONSE_NORMALIZATION": normalised,
    "LOGISTIC": activation("sigmoid"),
    "LOG_SOFTMAX": softmax,
    "MAXIMUM": bound,
    "MAX_POOL_2D": max_pool,
    "MEAN": mean,
    "MINIMUM": bound,
    "MUL": mul,
    "PAD": pad,
    "PADV2": pad,
    "PRELU": prelu,
    "QUANTIZE": same,
    "RELU": activation("relu"),
    "RELU6": activation("relu6"),
    "RELU_0_TO_1": clipped(0, 1),
    "RELU_N1_TO_1": clipped(-1, 1),
    "RESHAPE": reshape,
    "SLICE": cut,
    "SOFTMAX": softmax,
    "SPLIT": split,
    "SPLIT_V": split_v,
    "SQUEEZE": reshape,
    "STRIDED_SLICE": strided_cut,
    "SUB": sub,
    "TRANSPOSE": transpose,
}

FUSED: dict[int, tuple[float, float]] = {0: (-inf, inf), 1: (0.0, inf), 2: (-1.0, 1.0), 3: (0.0, 6.0)}
"""The schema's ActivationFunctionType: NONE, RELU, RELU_N1_TO_1, RELU6, as limits."""
