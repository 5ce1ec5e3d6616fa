"""Keras layers that only move numbers."""

from dataclasses import replace
from math import prod

from smallcnn.errors import FileError
from smallcnn.foreign import views
from smallcnn.foreign.network import Network
from smallcnn.foreign.views import View
from smallcnn.ir.checks import shown
from smallcnn.keras.call import Call, check_channels_last


def flatten(net: Network, call: Call) -> View:  # noqa: ARG001
    """Flatten."""
    check_channels_last(call)
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


def cropped(net: Network, call: Call) -> View:  # noqa: ARG001
    """RandomCrop to the size the image already has."""
    view, size = call.moved(), (call.whole("height"), call.whole("width"))
    if view.sizes[1:3] != size:
        raise FileError(f"crops {shown(view.sizes[1:3])} to {size}, which the graph cannot do")
    return view
