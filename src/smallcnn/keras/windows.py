"""Keras layers with a window over the plane: convolutions, pools, margins; and dense layers."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from smallcnn.errors import FileError
from smallcnn.foreign.channels_last import channels_last, map_last, plain
from smallcnn.foreign.dilation import dilated
from smallcnn.foreign.network import Network
from smallcnn.foreign.views import Array, View
from smallcnn.ir import ops
from smallcnn.ir.builder import same_padding
from smallcnn.ir.checks import shown
from smallcnn.ir.graph import Node
from smallcnn.keras.activations import activated
from smallcnn.keras.call import Call, Reader, check_channels_last
from smallcnn.keras.tensors import tensor_names


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
    check_channels_last(call)
    kernel = (own["weight"].shape[2], own["weight"].shape[3])
    stride = call.two("strides", "subsample", default=1)
    dilation, reach = dilated(kernel, call.two("dilation_rate", default=1))
    padding = _padding(call, node.shape[:2], reach, stride)
    op = ops.Conv(
        out=len(own["weight"]), kernel=kernel, stride=stride, padding=padding, dilation=dilation, groups=groups,
        bias="bias" in own,
    )  # fmt: skip
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
        check_channels_last(call)
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
    check_channels_last(call)
    node = channels_last(net, call.view())
    return _kept(call, plain(net.add(ops.GlobalPool(), [node], call.label) if len(node.shape) == 3 else node))


def global_max_pool(net: Network, call: Call) -> View:
    """GlobalMaxPooling2D, a maximum over a window as large as the plane."""
    check_channels_last(call)
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
    check_channels_last(call)
    return plain(net.add(ops.Pad(padding=_margins(call, "padding")), [map_last(net, call.view())], call.label))


def cropping(net: Network, call: Call) -> View:
    """Cropping2D."""
    check_channels_last(call)
    (top, bottom), (left, right) = _margins(call, "cropping")
    op = ops.Pad(padding=((-top, -bottom), (-left, -right)))
    return plain(net.add(op, [map_last(net, call.view())], call.label))
