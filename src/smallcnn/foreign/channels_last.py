"""TensorFlow's layout, (batch, height, width, channels), while a network is built; for the readers of its files.

`Network` and `views` follow any arrangement of axes; this module has TensorFlow's, and the network's image input.
"""

from collections.abc import Sequence

import numpy as np

from smallcnn.errors import FileError
from smallcnn.foreign import views
from smallcnn.foreign.entry import Entry, Pixels, pixels_of
from smallcnn.foreign.network import Network
from smallcnn.foreign.views import Array, View
from smallcnn.image.fit import Preprocessing
from smallcnn.ir.checks import shown
from smallcnn.ir.graph import Graph, Node

ORDER = (views.HEIGHT, views.WIDTH, views.CHANNELS)


def plain(node: Node) -> View:
    """A node's result as (batch, height, width, channels); a vector has a plane of one pixel."""
    return View(node, views.plain(node.shape, ORDER))


def channels_last(net: Network, view: View) -> Node:
    """The node of a tensor (N, H, W, C): a map, or a vector where the plane is one pixel."""
    if len(view.dims) != 4:
        raise FileError(f"needs (batch, height, width, channels), not {shown(view.sizes)}")
    view = net.ordered(view)
    if view.dims != views.plain(view.node.shape, ORDER):
        raise FileError(f"reads {shown(view.sizes)} with its axes out of order; a transpose must come first")
    return view.node


def map_last(net: Network, view: View) -> Node:
    """The node of a tensor (N, H, W, C) if it has a plane."""
    node = channels_last(net, view)
    if len(node.shape) != 3:
        raise FileError(f"needs a plane, but its input {shown(view.sizes)} was already averaged over it")
    return node


def told(done: Sequence[Entry]) -> Pixels | None:
    """The pixel range that a file expects, judged by its first steps; None if it does nothing to its images.

    Raises FileError if these steps do not determine the range.
    """
    steps = [entry for entry in done if not entry.says_nothing]
    asked = {pixels_of(entry) for entry in steps} - {None}
    if len(asked) == 1:
        return asked.pop()
    for entry in steps:
        if not entry.learned:
            scale, shift = (",".join(f"{value:.4g}" for value in values) for values in (entry.scale, entry.shift))
            raise FileError(
                f"first computes image * {scale} + {shift}, which does not fix the range of its input: give it, as in "
                "--mean 0 --std 1 for pixels of 0..1, --scale 1 for 0..255, --mean 0.5 --std 0.5 for -1..1"
            )
    return None


def fed(graph: Graph, scale: Array | float, shift: Array | float) -> Preprocessing:
    """The preparation that turns bytes into byte * scale + shift, one each or one per channel."""
    height, width, channels = graph.input_shape
    scale, shift = (np.broadcast_to(np.asarray(value, np.float64), channels) for value in (scale, shift))
    std = 1 / (255 * scale)
    return Preprocessing((height, width), _tuple(-shift * std), _tuple(std))


FED: dict[Pixels, tuple[float, float]] = {"0..255": (1.0, 0.0), "0..1": (1 / 255, 0.0), "-1..1": (1 / 127.5, -1.0)}
"""Scale and shift from bytes to each expected pixel range."""


def _tuple(values: Array) -> tuple[float, ...]:
    return tuple(float(value) + 0.0 for value in values)
