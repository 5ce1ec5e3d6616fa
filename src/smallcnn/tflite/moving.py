"""TensorFlow Lite operators that only move numbers: join, cut, reshape, transpose."""

from dataclasses import replace
from math import prod

from smallcnn.errors import FileError
from smallcnn.foreign import views
from smallcnn.foreign.network import Network
from smallcnn.foreign.views import View, along
from smallcnn.ir.checks import shown
from smallcnn.tflite.call import Call


def concatenation(net: Network, call: Call) -> View:
    """CONCATENATION, along the channels, or of rows."""
    parts = [call.value(i) for i in range(len(call.operator.inputs))]
    results = [part for part in parts if isinstance(part, View)]
    if len(results) < len(parts):
        raise FileError("joins a result with a constant")
    if len({len(part.dims) for part in results}) > 1:
        raise FileError("joins results of different numbers of axes")
    axis = along(call.option("Axis"), len(results[0].dims))
    if len(results) == 1:
        return results[0]
    plane = any(atom.axis != views.CHANNELS for part in results for atom in part.dims[axis])
    rows = net.join_rows(results, axis, call.label) if plane else None
    return rows or net.join(results, axis, call.label)


def split(net: Network, call: Call) -> list[View]:
    """SPLIT, into equal parts."""
    view, (axis,) = call.view(1), call.whole(0, "an axis")[:1] or [0]
    axis, parts = along(axis, len(view.dims)), len(call.operator.outputs)
    if view.sizes[axis] % parts:
        raise FileError(f"splits axis {axis} of {shown(view.sizes)} into {parts}")
    return net.parts(view, axis, [view.sizes[axis] // parts] * parts, call.label)


def split_v(net: Network, call: Call) -> list[View]:
    """SPLIT_V, into parts of given sizes."""
    view, sizes, (axis,) = call.view(), call.whole(1, "sizes"), call.whole(2, "an axis")[:1] or [0]
    axis = along(axis, len(view.dims))
    if sizes.count(-1) == 1:
        sizes[sizes.index(-1)] = view.sizes[axis] - sum(sizes) - 1
    if len(sizes) != len(call.operator.outputs):
        raise FileError(f"splits axis {axis} of {shown(view.sizes)} into {shown(sizes)}")
    return net.parts(view, axis, sizes, call.label)


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
            start = along(start, view.sizes[axis])  # noqa: PLW2901
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
    axis = along(call.option("Axis"), len(view.dims))
    if call.option("BatchDims") or indices != list(range(indices[0], indices[0] + len(indices))):
        raise FileError("gathers indices that are not consecutive")
    view = net.part(view, axis, indices[0], indices[-1] + 1, call.label)
    return view if call.tensor(1).shape else replace(view, dims=view.dims[:axis] + view.dims[axis + 1 :])


def reshape(net: Network, call: Call) -> View:  # noqa: ARG001
    """RESHAPE, SQUEEZE and EXPAND_DIMS, to the output shape in the file."""
    view, target = call.moved(), call.output.shape
    if prod(target) != prod(view.sizes) and call.operator.kind == "RESHAPE" and call.has(1):
        # a shape that the file computes keeps the last side, as the batch and the number of rows vary in such files
        target = (1, -1, target[-1]) if call.has_value(1) and len(target) == 3 else tuple(call.whole(1, "a shape"))
        if target.count(-1) == 1:
            rest = -prod(target)
            target = tuple(prod(view.sizes) // max(rest, 1) if side == -1 else side for side in target)
    return replace(view, dims=views.reshaped(view.dims, target))


def transpose(net: Network, call: Call) -> View:  # noqa: ARG001
    """TRANSPOSE."""
    return views.transposed(call.moved(), call.whole(1, "an order"))


def same(net: Network, call: Call) -> View:  # noqa: ARG001
    """QUANTIZE, DEQUANTIZE and CAST, which change how numbers are stored."""
    return call.moved()
