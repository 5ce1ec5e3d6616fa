"""The operators from real numbers to whole ones on a grid and back, of results and of constants."""

from dataclasses import replace

import numpy as np

from smallcnn.errors import FileError
from smallcnn.foreign import idioms, views
from smallcnn.foreign.network import Network
from smallcnn.foreign.views import Array, View
from smallcnn.ir import ops
from smallcnn.ir.checks import shown
from smallcnn.ir.types import RANGES, Grid
from smallcnn.onnx.read.call import Call, Value
from smallcnn.onnx.read.codes import Coded, along_entries, grid_of, number_of, quantized
from smallcnn.onnx.read.constants import Constants


def quantize(net: Network, call: Call) -> View:
    """QuantizeLinear; a scale per channel is a step of its own before one with the largest of them."""
    view = call.any_view()
    if view.ended:
        return view
    view = call.view()
    (grid, axis), number = _grid(call), number_of(call.get(2))
    if len(grid.scale) > 1:
        grid, scale = _single(grid)
        view = net.ordered(view)
        _check_channels(view, axis, scale)
        view = idioms.scale_and_shift(net, view, 1 / scale, np.array(0.0), f"{call.label}.scale")
    return net.on(view, ops.Quantize(number=number, grid=grid), call.label)


def dequantize(net: Network, call: Call) -> View:
    """DequantizeLinear, of a result of QuantizeLinear, or of an image of bytes."""
    view, (grid, axis) = call.any_view(), _grid(call)
    if view.pixels:
        if len(grid.scale) > 1:
            raise FileError(f"dequantizes its image with {len(grid.scale)} scales; one is supported")
        scale = np.array(grid.scale[0])
        return idioms.scale_and_shift(net, replace(view, pixels=False), scale, -scale * grid.zero[0], call.label)
    if view.ended:
        return view
    given, scale = _single(grid)
    if view.node.tensor.grid != given:
        raise FileError("dequantizes with another scale or zero point than its input was quantized with")
    implied = "/" in call.label[1:]  # in a file of ours: the input of an operator that takes the bytes themselves
    made = net.on(view, ops.Dequantize(), call.label.replace("/", "_") if implied else call.label)
    if implied:
        net.implied.add(made.node.name)
    if len(scale) == 1:
        return made
    made = net.ordered(made)
    _check_channels(made, axis, scale)
    return idioms.scale_and_shift(net, made, scale, np.array(0.0), f"{call.label}.scale")


def _single(grid: Grid) -> tuple[Grid, Array]:
    """The grid with the largest of its scales alone, and the others as shares of it."""
    scale = np.array(grid.scale)
    if len(set(grid.zero)) > 1:
        raise FileError("quantizes a result with several zero points; one is supported")
    return Grid((float(scale.max()),), grid.zero[:1]), scale / scale.max()


def _check_channels(view: View, axis: int, scale: Array) -> None:
    channels = (views.Atom(views.CHANNELS, len(scale)),)
    if view.node.shape[-1] != len(scale) or view.dims[views.along(axis, len(view.dims))] != channels:
        raise FileError(f"has {len(scale)} scales for axis {axis} of {shown(view.sizes)}; they must be its channels'")


def _grid(call: Constants) -> tuple[Grid, int]:
    """The operator's grid, and the axis of several entries."""
    call.attributes.whole("saturate", 1)
    if call.attributes.whole("block_size", 0) or call.attributes.whole("output_dtype", 0):
        raise FileError("quantizes in blocks, or to a type it names; neither is supported")
    return grid_of(call[1], call.get(2), call.opset), call.attributes.whole("axis", 1)


def of_constants(call: Constants, first: Value | None) -> Array | Coded | None:
    """The result of an operator that makes codes, or that only moves them; None if it is another."""
    match call.kind:
        case "QuantizeLinear":
            call.budget.spend(call[0].size)
            return quantized(call[0], number_of(call.get(2)), *_grid(call))
        case "DequantizeLinear":
            if str(call[0].dtype) not in RANGES:
                raise FileError(f"dequantizes {call[0].dtype}; {', '.join(RANGES)} are supported")
            grid, axis = _grid(call)
            return Coded(call[0], grid, along_entries(call[0], grid, axis))
        case "Transpose" if isinstance(first, Coded):
            return first.transposed(call.attributes.ints("perm"))
        case "Identity" if isinstance(first, Coded):
            return first
    return None
