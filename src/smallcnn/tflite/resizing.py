"""TensorFlow Lite operators that bring a map to another size."""

from typing import Literal

from smallcnn.errors import FileError
from smallcnn.foreign.channels_last import map_last, plain
from smallcnn.foreign.network import Network
from smallcnn.foreign.views import View
from smallcnn.ir import ops
from smallcnn.ir.checks import shown
from smallcnn.tflite.call import Call


def nearest(net: Network, call: Call) -> View:
    """RESIZE_NEAREST_NEIGHBOR, which rounds down from a pixel's corner, or to the nearest from its centre."""
    corner = _coordinates(call) == "asymmetric"
    return _resized(net, call, "nearest", "floor" if corner else "round_prefer_ceil")


def bilinear(net: Network, call: Call) -> View:
    """RESIZE_BILINEAR."""
    return _resized(net, call, "bilinear", "floor")


def _resized(net: Network, call: Call, mode: Literal["nearest", "bilinear"], rounding: ops.Rounding) -> View:
    node, size = map_last(net, call.view()), call.whole(1, "a size")
    if len(size) != 2:
        raise FileError(f"has the size {shown(size)}, not (height, width)")
    op = ops.Resize(height=size[0], width=size[1], mode=mode, coordinates=_coordinates(call), rounding=rounding)
    return plain(net.add(op, [node], call.label))


def _coordinates(call: Call) -> ops.Coordinates:
    corners, centres = call.option("AlignCorners"), call.option("HalfPixelCenters")
    if corners and centres:
        raise FileError("aligns both the corners and the centres of pixels")
    return "align_corners" if corners else "half_pixel" if centres else "asymmetric"
