"""TensorFlow Lite operators with a window over the plane: convolutions, pools, means, margins; and dense layers."""

from collections.abc import Sequence
from dataclasses import replace
from math import prod

import numpy as np

from smallcnn.errors import FileError
from smallcnn.foreign import views
from smallcnn.foreign.channels_last import channels_last, map_last, plain
from smallcnn.foreign.dilation import dilated
from smallcnn.foreign.network import Network
from smallcnn.foreign.views import View, along
from smallcnn.ir import ops
from smallcnn.ir.builder import same_padding
from smallcnn.ir.checks import shown
from smallcnn.ir.graph import Node
from smallcnn.ir.types import Tensor
from smallcnn.tflite.call import Call
from smallcnn.tflite.file import Array

_SAME, _VALID = 0, 1  # the schema's Padding


def _window(call: Call, plane: Sequence[int], kernel: ops.Pair) -> tuple[ops.Pair, ops.Padding]:
    """Stride, and padding around a plane of this size; `kernel` is the area that a filter reads."""
    stride = (call.option("StrideH"), call.option("StrideW"))
    if min(stride) < 1 or min(kernel) < 1:
        raise FileError(f"has a window of {kernel} with strides {stride}")
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


def _kernel(call: Call, outputs: int) -> tuple[Array, Tensor]:
    """The weight, and how it holds its numbers; `outputs` is its axis of output channels."""
    weight, stored = call.stored(1, "weight", outputs)
    if weight.ndim != 4:
        raise FileError(f"has a weight of {shown(weight.shape)}, not four axes")
    return weight, stored


def conv(net: Network, call: Call) -> View:
    """CONV_2D, weights (out, height, width, in)."""
    weight, stored = _kernel(call, 0)
    weight = weight.transpose(0, 3, 1, 2)
    node, own = channels_last(net, call.view()), _weights(call, weight)
    if len(node.shape) == 1:
        if weight.shape[2:] != (1, 1):
            raise FileError("convolves an input averaged over the plane with a kernel larger than 1x1")
        own["weight"] = weight[:, :, 0, 0]
        op = ops.Dense(out=len(weight), bias="bias" in own, number=stored.number, grid=stored.grid)
        return plain(net.add(op, [node], call.label, **own))
    if not weight.shape[1] or node.shape[2] % weight.shape[1]:
        raise FileError(f"convolves {node.shape[2]} channels with a weight for {weight.shape[1]}")
    return _convolved(net, call, node, own, stored, groups=node.shape[2] // weight.shape[1])


def depthwise(net: Network, call: Call) -> View:
    """DEPTHWISE_CONV_2D, weights (1, height, width, channels * multiplier)."""
    weight, stored = _kernel(call, 3)
    weight = weight.transpose(3, 0, 1, 2)
    node = map_last(net, call.view())
    if weight.shape[1] != 1:
        raise FileError(f"has a depthwise weight of {shown(weight.shape)}")
    return _convolved(net, call, node, _weights(call, weight), stored, groups=node.shape[2])


def _convolved(net: Network, call: Call, node: Node, own: dict[str, Array], stored: Tensor, *, groups: int) -> View:
    out, _, *kernel = own["weight"].shape
    size = (kernel[0], kernel[1])
    dilation, reach = dilated(size, (call.option("DilationHFactor", 1), call.option("DilationWFactor", 1)))
    stride, padding = _window(call, node.shape[:2], reach)
    op = ops.Conv(
        out=out, kernel=size, stride=stride, padding=padding, dilation=dilation, groups=groups, bias="bias" in own,
        number=stored.number, grid=stored.grid,
    )  # fmt: skip
    return plain(net.add(op, [node], call.label, **own))


def dense(net: Network, call: Call) -> View:
    """FULLY_CONNECTED, weights (out, in), over the whole input, whatever its axes."""
    view, (weight, stored) = call.view(), call.stored(1, "weight", 0)
    if call.option("WeightsFormat"):
        raise FileError("has shuffled weights, which are not supported")
    own = _weights(call, weight)
    view = replace(view, dims=views.reshaped(view.dims, (1, prod(view.sizes))))
    return net.dense(view, weight, own.get("bias"), call.label, number=stored.number, grid=stored.grid)


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
    axes = {along(axis, len(view.dims)) for axis in call.whole(1, "axes")}
    return net.mean(view, axes, call.label, keep=len(call.output.shape) == len(view.dims))


def pad(net: Network, call: Call) -> View:
    """PAD and PADV2, with zeros around the plane, or channels of zeros: a convolution with the identity and zeros."""
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
    if any(batch):
        raise FileError("pads the batch")
    if any(channels):
        count = node.shape[-1]
        if any((*rows, *columns)) or sum(channels) > count:
            raise FileError("pads the channels")
        weight = np.pad(np.eye(count, dtype=np.float32), (channels, (0, 0)))[..., None, None]
        op = ops.Conv(out=len(weight), kernel=(1, 1), stride=(1, 1), padding=ops.NO_PADDING, groups=1, bias=False)
        return plain(net.add(op, [node], call.label, weight=weight))
    return plain(net.add(ops.Pad(padding=(rows, columns)), [node], call.label))


def normalised(net: Network, call: Call) -> View:
    """LOCAL_RESPONSE_NORMALIZATION, whose alpha applies to the window's sum, not its mean."""
    size = 2 * call.option("Radius") + 1
    alpha, beta, bias = call.setting("Alpha", 1), call.setting("Beta", 0.5), call.setting("Bias", 1)
    op = ops.LocalResponseNorm(size=size, alpha=alpha * size, beta=beta, bias=bias)
    return plain(net.add(op, [map_last(net, call.view())], call.label))
