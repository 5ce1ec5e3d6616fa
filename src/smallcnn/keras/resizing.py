"""Keras layers that bring a map to another size."""

from typing import Literal

from smallcnn.errors import FileError
from smallcnn.foreign.channels_last import map_last, plain
from smallcnn.foreign.network import Network
from smallcnn.foreign.views import View
from smallcnn.ir import ops
from smallcnn.ir.checks import shown
from smallcnn.keras.call import Call, check_channels_last


def upsampling(net: Network, call: Call) -> View:
    """UpSampling2D: each pixel repeated, or bilinear."""
    check_channels_last(call)
    view, (down, right) = call.view(), call.two("size", default=2)
    height, width = map_last(net, view).shape[:2]
    return _resized(net, call, height * down, width * right)


def resizing(net: Network, call: Call) -> View:
    """Resizing, to a size that the image usually has already."""
    check_channels_last(call)
    view, size = call.moved(), (call.whole("height"), call.whole("width"))
    if view.sizes[1:3] == size:
        return view
    if done := [name for name in ("crop_to_aspect_ratio", "pad_to_aspect_ratio", "antialias") if call.option(name)]:
        raise FileError(f"resizes with {done[0]}, which the graph cannot do")
    return _resized(net, call, *size, default="bilinear")


def _resized(net: Network, call: Call, height: int, width: int, default: str = "nearest") -> View:
    """As `tf.image.resize`: by the centres of pixels; halfway between two, the nearest is the second."""
    node, said = map_last(net, call.view()), call.option("interpolation", default=default)
    if said not in ("nearest", "bilinear"):
        raise FileError(f"has the interpolation {shown(said)}; nearest and bilinear are supported")
    mode: Literal["nearest", "bilinear"] = "nearest" if said == "nearest" else "bilinear"
    rounding: ops.Rounding = "round_prefer_ceil" if mode == "nearest" else "floor"
    op = ops.Resize(height=height, width=width, mode=mode, rounding=rounding)
    return plain(net.add(op, [node], call.label))
