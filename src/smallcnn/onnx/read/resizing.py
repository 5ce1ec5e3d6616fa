"""Resize, and Upsample of older operator sets."""

from collections.abc import Sequence
from typing import get_args

import numpy as np

from smallcnn.errors import FileError
from smallcnn.foreign import views
from smallcnn.foreign.network import Network
from smallcnn.foreign.views import View
from smallcnn.ir import ops
from smallcnn.ir.checks import MOST, shown
from smallcnn.onnx.read.call import Call

_MODES = {"nearest": "nearest", "linear": "bilinear", "bilinear": "bilinear"}
_FIRST_WITH_COORDINATES = 11
_EXACT = 1e-6
"""How much a scale may differ from the ratio of the sizes: a few roundings of float32."""


def resize(net: Network, call: Call) -> View:
    """Resize of the plane, to the nearest pixels or bilinear."""
    node = net.map_first(call.view())
    sides, scales = _sides(call, node.shape)
    how = _how(call, scales)
    for before, after, scale in zip(node.shape, sides, scales, strict=False):
        if how["coordinates"] != "align_corners" and abs(scale * before - after) > _EXACT * after:
            raise FileError(f"scales {before} pixels by {scale:g}, which is not a whole number of pixels")
    if sides == node.shape[:2]:
        return View(node, views.channels_first(node.shape))
    made = net.add(ops.Resize(height=sides[0], width=sides[1], **how), [node], call.label)  # type: ignore[arg-type]
    return View(made, views.channels_first(made.shape))


def _sides(call: Call, shape: ops.Shape) -> tuple[ops.Pair, tuple[float, float]]:
    """The new height and width, and the scales that lead to them."""
    modern = call.opset >= _FIRST_WITH_COORDINATES
    if modern and (sizes := call.constant(3)):
        _, channels, height, width = _of_axes(call, sizes, (1, shape[2], *shape[:2]))
        if channels != shape[2]:
            raise FileError(f"resizes the channels, to {shown(sizes)}")
        return (int(height), int(width)), (height / shape[0], width / shape[1])
    scales = None if modern else call.attributes.array("scales")
    scales = call.get(2 if modern else 1) if scales is None else scales
    if scales is None or scales.dtype.kind != "f" or not scales.size:
        raise FileError("has neither constant sizes nor constant scales")
    batch, channels, down, right = _of_axes(call, scales.reshape(-1).tolist(), (1, 1, 1, 1))
    if (batch, channels) != (1, 1):
        raise FileError(f"resizes axes other than the plane, by {shown(scales.tolist())}")
    height, width = (float(np.float32(size) * np.float32(by)) for size, by in zip(shape, (down, right), strict=False))
    if not (1 <= height <= MOST and 1 <= width <= MOST):
        raise FileError(f"scales {shape[0]}x{shape[1]} pixels by {down:g} and {right:g}")
    return (int(height), int(width)), (down, right)


def _of_axes(call: Call, given: Sequence[float], usual: Sequence[float]) -> list[float]:
    """A number for each of four axes: those given, and the usual ones for axes that a newer file does not name."""
    axes = call.axes(len(call.values))
    axes = list(range(len(usual))) if axes is None else axes
    if len(axes) != len(given):
        raise FileError(f"has {len(given)} sizes or scales for {len(axes)} axes")
    found = [*usual]
    for axis, value in zip(axes, given, strict=True):
        found[axis] = value
    return found


def _how(call: Call, scales: tuple[float, float]) -> dict[str, str]:
    """Mode, coordinates and rounding by our names; FileError for those that the graph does not have."""
    attributes = call.attributes
    said = attributes.text("mode", "nearest")
    if said not in _MODES:
        raise FileError(f"has the mode {shown(said)}; nearest and linear are supported")
    mode = _MODES[said]
    if call.opset < _FIRST_WITH_COORDINATES:
        if mode == "nearest" and min(scales) < 1 < max(scales):
            raise FileError("enlarges one side and reduces the other, whose rounding its operator set leaves open")
        return {"mode": mode, "coordinates": "asymmetric", "rounding": "ceil" if min(scales) < 1 else "floor"}
    attributes.drop("cubic_coeff_a", "extrapolation_value")
    if attributes.whole("antialias", 0) and mode != "nearest" and min(scales) < 1:
        raise FileError("reduces with antialias, which is not supported")
    if attributes.whole("exclude_outside", 0) and mode != "nearest":
        raise FileError("excludes pixels outside the image, which is not supported")
    if (policy := attributes.text("keep_aspect_ratio_policy", "stretch")) != "stretch":
        raise FileError(f"has the keep_aspect_ratio_policy {shown(policy)}; only stretch is supported")
    coordinates = attributes.text("coordinate_transformation_mode", "half_pixel")
    rounding = attributes.text("nearest_mode", "round_prefer_floor")
    if (coordinates, mode, rounding) == ("tf_half_pixel_for_nn", "nearest", "floor"):
        coordinates, rounding = "half_pixel", "round_prefer_ceil"  # floor(x + 1/2) of the same position x
    if coordinates == "half_pixel_symmetric":
        coordinates = "half_pixel"  # which differ only if sizes are rounded
    if coordinates not in get_args(ops.Coordinates) or rounding not in get_args(ops.Rounding):
        raise FileError(f"reads pixels at {shown(coordinates)} coordinates, {shown(rounding)}, which is not supported")
    return {"mode": mode, "coordinates": coordinates, "rounding": rounding if mode == "nearest" else "floor"}
