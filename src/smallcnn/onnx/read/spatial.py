"""Operators on the plane: convolution, pools, means, padding, normalisation over neighbouring channels."""

from dataclasses import replace
from math import inf

from smallcnn.errors import FileError
from smallcnn.foreign import views
from smallcnn.foreign.dilation import dilated
from smallcnn.foreign.idioms import FLOAT32
from smallcnn.foreign.network import Network
from smallcnn.foreign.views import View
from smallcnn.ir import ops
from smallcnn.ir.builder import same_padding
from smallcnn.ir.checks import shown
from smallcnn.ir.graph import Node
from smallcnn.ir.types import RANGES, Tensor
from smallcnn.onnx.read.call import Call


def conv(net: Network, call: Call) -> View:
    """Conv over a plane; over a single pixel, a dense layer."""
    (weight, stored), bias = call.stored(1, outputs=0), call.bias(2)
    if weight.ndim != 4:
        raise FileError(f"convolves over {max(weight.ndim - 2, 0)} axes, not two")
    groups, kernel = call.attributes.whole("group", 1), (weight.shape[2], weight.shape[3])
    if call.attributes.ints("kernel_shape", list(kernel)) != list(kernel):
        raise FileError(f"has a kernel_shape that differs from its weight's, {kernel}")
    node = net.channels_first(call.view())
    plane = (*node.shape, 1, 1)[:2] if len(node.shape) == 3 else (1, 1)
    dilation, reach = _dilated(call, kernel)
    stride, padding, beyond = _window(call, (plane[0], plane[1]), reach)
    assert beyond == ops.NO_PADDING
    own = {"weight": weight, **({} if bias is None else {"bias": bias})}
    if len(node.shape) == 3:
        op = ops.Conv(
            out=weight.shape[0], kernel=kernel, stride=stride, padding=padding, dilation=dilation, groups=groups,
            bias=bias is not None, number=stored.number, grid=stored.grid,
        )  # fmt: skip
        return _first(net.add(op, [node], call.label, **own))
    if kernel != (1, 1) or padding != ops.NO_PADDING or groups != 1:
        raise FileError("convolves an input averaged over the plane with a kernel larger than 1x1 or with groups")
    dense = ops.Dense(out=weight.shape[0], bias=bias is not None, number=stored.number, grid=stored.grid)
    return _first(net.add(dense, [node], call.label, **own | {"weight": weight[:, :, 0, 0]}))


def _first(node: Node) -> View:
    """A node's result as (batch, channels, height, width)."""
    return View(node, views.channels_first(node.shape))


def _dilated(call: Call, kernel: ops.Pair) -> tuple[ops.Pair, ops.Pair]:
    """A window's dilation, and the height and width of the area that it reads."""
    return dilated(kernel, call.attributes.ints("dilations", [1, 1]) or [])


def _window(call: Call, plane: ops.Pair, kernel: ops.Pair) -> tuple[ops.Pair, ops.Padding, ops.Padding]:
    """Stride, padding, and the reach of windows of this size beyond the padding if sizes are rounded up."""
    stride = call.attributes.ints("strides", [1, 1]) or []
    pads = call.attributes.ints("pads", [0, 0, 0, 0]) or []
    auto, up = call.attributes.text("auto_pad", "NOTSET"), bool(call.attributes.whole("ceil_mode", 0))
    if (len(stride), len(pads)) != (2, 4) or min(stride) < 1:
        raise FileError("has strides or pads for other than two axes")
    padding: ops.Padding
    match auto:
        case "NOTSET":
            padding = ((pads[0], pads[2]), (pads[1], pads[3]))
        case "VALID":
            padding = ops.NO_PADDING
        case "SAME_UPPER" | "SAME_LOWER":
            (top, bottom), (left, right) = (same_padding(*side) for side in zip(plane, kernel, stride, strict=True))
            lower = auto == "SAME_LOWER"
            padding = ((bottom, top), (right, left)) if lower else ((top, bottom), (left, right))
        case _:
            raise FileError(f"has an auto_pad {shown(auto)}")
    if auto != "NOTSET" and any(pads):
        raise FileError(f"has both pads and auto_pad {auto}")
    beyond = ops.NO_PADDING
    if up and auto == "NOTSET":
        rows, columns = (_beyond(*side) for side in zip(plane, kernel, stride, padding, strict=True))
        beyond = ((0, rows), (0, columns))
    return (stride[0], stride[1]), padding, beyond


def _beyond(size: int, kernel: int, stride: int, pads: ops.Pair) -> int:
    """The pixels the last window lacks if the number of windows is rounded up; each starts in or before the image."""
    steps = -(-(size + sum(pads) - kernel) // stride)
    if steps * stride >= size + pads[0]:
        steps -= 1
    return max(steps * stride + kernel - size - sum(pads), 0)


def pool(net: Network, call: Call) -> View:
    """MaxPool and AveragePool."""
    view, margins = call.maximised() if call.kind == "MaxPool" else (call.view(), ops.NO_PADDING)
    node = net.map_first(view)
    kernel = call.attributes.ints("kernel_shape") or []
    if len(kernel) != 2 or min(kernel) < 1:
        raise FileError(f"has a kernel_shape {shown(kernel)}, not (height, width)")
    window = (kernel[0], kernel[1])
    if (dilation := _dilated(call, window)[0]) != (1, 1):
        raise FileError(f"has dilations {dilation}; a pool's can only be 1")
    plane = (node.shape[0] + sum(margins[0]), node.shape[1] + sum(margins[1]))
    stride, padding, beyond = _window(call, plane, window)
    if call.kind == "MaxPool":
        call.attributes.whole("storage_order", 0)
        padding = _plus(_plus(padding, beyond), margins)
        op = ops.Pool(function="max", kernel=window, stride=stride, padding=padding)
        return _first(net.add(op, [node], call.label))
    count = bool(call.attributes.whole("count_include_pad", 0)) and padding != ops.NO_PADDING
    if count and beyond != ops.NO_PADDING:  # pixels beyond the padding do not count
        node, padding, count = net.add(ops.Pad(padding=padding), [node], f"{call.label}.pad"), ops.NO_PADDING, False
    op = ops.Pool(function="average", kernel=window, stride=stride, padding=_plus(padding, beyond), count_padding=count)
    return _first(net.add(op, [node], call.label))


def _plus(a: ops.Padding, b: ops.Padding) -> ops.Padding:
    return ((a[0][0] + b[0][0], a[0][1] + b[0][1]), (a[1][0] + b[1][0], a[1][1] + b[1][1]))


def global_average_pool(net: Network, call: Call) -> View:
    """GlobalAveragePool."""
    node = net.channels_first(call.view())
    return _first(net.add(ops.GlobalPool(), [node], call.label) if len(node.shape) == 3 else node)


def reduce_mean(net: Network, call: Call) -> View:
    """ReduceMean, over the plane or one of its axes."""
    view, axes = call.view(), call.axes(1)
    keep = bool(call.attributes.whole("keepdims", 1))
    if call.attributes.whole("noop_with_empty_axes", 0) and not axes:
        return view
    return net.mean(view, axes or range(len(view.dims)), call.label, keep=keep)


def pad(net: Network, call: Call) -> View:
    """Pad, with zeros around the plane, or with minus infinity before a maximum."""
    view = net.ordered(call.view())
    mode = call.attributes.text("mode", "constant")
    pads = call.constant(1)
    if pads is None:
        pads = call.attributes.ints("pads", call.attributes.ints("paddings")) or []  # the latter in operator set 1
    value = _fill(call, view.node.tensor)
    axes = call.axes(3)
    axes = list(range(len(view.dims))) if axes is None else axes
    if len(pads) != 2 * len(axes) or len(set(axes)) != len(axes):
        raise FileError(f"has pads {shown(pads)} for {len(axes)} axes")
    margins = {axis: (pads[i], pads[i + len(axes)]) for i, axis in enumerate(axes) if pads[i] or pads[i + len(axes)]}
    if not margins:
        return view
    if mode != "constant" or (value != 0 and value > -FLOAT32):
        raise FileError(f"pads by {mode} {value:g}; only zeros are supported")
    if len(view.node.shape) != 3:
        raise FileError(f"pads {shown(view.sizes)}, which has no plane")
    sides = {views.HEIGHT: (0, 0), views.WIDTH: (0, 0)}
    usual = view.dims == views.channels_first(view.node.shape)  # distinguishes the axes of a plane of one pixel
    for axis, margin in margins.items():
        side = axis - 5 if usual else next((atom.axis for atom in view.dims[axis]), None)
        if side not in sides or view.sizes[axis] != view.node.shape[side]:
            raise FileError(f"pads axis {axis} of {shown(view.sizes)}, which is not height or width")
        sides[side] = margin
    padding = (sides[views.HEIGHT], sides[views.WIDTH])
    if value != 0:
        net.map_first(view)
        return replace(view, margins=padding)
    made = net.add(ops.Pad(padding=padding), [view.node], call.label)
    dims = list(view.dims)
    for axis in margins:
        side = axis - 5 if usual else view.dims[axis][0].axis
        dims[axis] = (views.Atom(side, made.shape[side]),) if made.shape[side] > 1 else ()
    return View(made, tuple(dims))


def _fill(call: Call, tensor: Tensor) -> float:
    """The real number that Pad fills in; minus infinity for the least of whole numbers, unless that is 0."""
    if tensor.grid is None:
        return call.attributes.real("value", call.number(2, "value", 0.0))
    (code,) = call.constant(2) or (0,)
    (zero,), (scale,) = tensor.grid.zero, tensor.grid.scale
    return -inf if code == RANGES[tensor.number][0] != zero else scale * (code - zero)


def lrn(net: Network, call: Call) -> View:
    """LRN."""
    node = net.map_first(call.view())
    op = ops.LocalResponseNorm(
        size=call.attributes.whole("size"),
        alpha=call.attributes.real("alpha", 1e-4),
        beta=call.attributes.real("beta", 0.75),
        bias=call.attributes.real("bias", 1.0),
    )
    return _first(net.add(op, [node], call.label))
