"""The entry of a file's network: scale and shift per channel, blue first instead of red.

Exporters write it as constants, as batch norm, or as slices that are joined again. It is moved out of the network into
the preparation, and reveals which pixel range the file expects: 0..255, 0..1 or -1..1.
"""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from smallcnn.foreign.network import Network
from smallcnn.foreign.views import Array
from smallcnn.image.fit import Preprocessing
from smallcnn.ir import ops
from smallcnn.ir.graph import Node

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and standard deviation of ImageNet's training images, for pixels in 0..1."""

Pixels = Literal["0..255", "0..1", "-1..1"]


@dataclass(frozen=True)
class Entry:
    """The graph's input from the file's input: channel c is `scale` * (input channel `channels[c]`) + `shift`."""

    channels: Array
    scale: Array
    shift: Array
    learned: bool = False
    """Whether it includes a batch norm or convolution, whose numbers may be anything."""
    told: Pixels | None = None
    """The pixel range the file expects, from the first steps that reveal it."""

    def after(self, scale: Array, shift: Array, *, learned: bool = False) -> "Entry":
        """Appends a step of scale and shift."""
        it = Entry(self.channels, self.scale * scale, self.shift * scale + shift, self.learned or learned)
        return replace(it, told=self.told or pixels_of(it))

    def taking(self, index: Array) -> "Entry":
        """Selects some of its channels, in this order."""
        return replace(self, channels=self.channels[index], scale=self.scale[index], shift=self.shift[index])

    def of(self, images: Array) -> Array:
        """The graph's input for these inputs of the file, both channels last."""
        return images[..., self.channels] * self.scale + self.shift

    @property
    def turned(self) -> bool:
        """Whether blue and red are swapped."""
        return bool(len(self.channels) == 3 and (self.channels == [2, 1, 0]).all())

    @property
    def says_nothing(self) -> bool:
        """Whether nothing is scaled or shifted."""
        return bool((np.abs(self.scale - 1) < 1e-6).all() and (np.abs(self.shift) < 1e-6).all())

    @property
    def movable(self) -> bool:
        """Whether an image preparation can do it: every channel once, in order or reversed."""
        straight = (self.channels == np.arange(len(self.channels))).all()
        return bool((straight or self.turned) and (self.scale > 0).all())


def nothing(channels: int) -> Entry:
    """The entry of a file that leaves its image unchanged."""
    return Entry(np.arange(channels), np.ones(channels), np.zeros(channels))


Reach = Literal["constants", "channels", "pools"]
"""How far to look: past constants; also past batch norm, slices and joins; or even past clips, margins and pools."""


def frontier(network: Network, wanted: Collection[str], ends: Collection[str], reach: Reach) -> dict[str, Entry]:
    """The last nodes among `wanted` where each number is still a scaled and shifted channel of the image.

    Only nodes that another operator reads, or that are `ends` of the network.
    """
    known: dict[str, Entry] = {}
    for name in wanted:
        entry = _entry(network, network.nodes[name], known, reach)
        if entry is not None:
            known[name] = entry
    read = Counter(source for name in wanted if name not in known for source in network.nodes[name].inputs)
    read.update(ends)
    return {name: entry for name, entry in known.items() if read[name]}


def _entry(network: Network, node: Node, known: Mapping[str, Entry], reach: Reach) -> Entry | None:
    before = [known.get(source) for source in node.inputs]
    if any(entry is None for entry in before):
        return None
    sources = [entry for entry in before if entry is not None]
    match node.op:
        case ops.Input(shape=shape):
            return nothing(shape[2])
        case ops.BatchNorm() if node.name in network.affine:
            step = network.affine[node.name]
            return sources[0].after(step.scale, step.shift)
        case _ if reach == "constants":
            return None
        case ops.BatchNorm(epsilon=epsilon):
            own = {key: value.astype(np.float64) for key, value in network.weights[node.name].items()}
            scale = own["weight"] / np.sqrt(own["running_var"] + epsilon)
            return sources[0].after(scale, own["bias"] - own["running_mean"] * scale, learned=True)
        case ops.Slice(start=start, stop=stop):
            (it,) = sources
            return it.taking(np.arange(start, stop))
        case ops.Concat():
            joined = Entry(
                np.concatenate([it.channels for it in sources]),
                np.concatenate([it.scale for it in sources]),
                np.concatenate([it.shift for it in sources]),
                any(it.learned for it in sources),
                next((it.told for it in sources if it.told), None),
            )
            return replace(joined, told=joined.told or pixels_of(joined))
        case ops.Conv(kernel=(1, 1), stride=(1, 1), padding=ops.NO_PADDING):
            return _after_convolution(sources[0], node.op, network.weights[node.name])
        case ops.Pad() | ops.Pool() | ops.Activation(function="relu") if reach == "pools":
            return sources[0]
        case ops.Clip(low=low, high=high) if reach == "pools":
            return replace(sources[0], told=sources[0].told or _RANGES.get((low, high)))
    return None


_RANGES: dict[tuple[float, float], Pixels] = {(0, 255): "0..255", (0, 1): "0..1", (-1, 1): "-1..1"}


def _after_convolution(entry: Entry, op: ops.Conv, own: Mapping[str, Array]) -> Entry | None:
    """The entry after a 1x1 convolution that scales single channels, as some files scale their images."""
    if op.out != len(entry.channels):
        return None
    inside = own["weight"].shape[1]  # channels of a group
    weight = own["weight"].reshape(op.out, inside).astype(np.float64)
    if ((weight != 0).sum(axis=1) != 1).any():
        return None
    place = np.argmax(weight != 0, axis=1)
    group = np.arange(op.out) // (op.out // op.groups)
    scale, shift = weight[np.arange(op.out), place], own.get("bias", np.zeros(op.out)).astype(np.float64)
    return entry.taking(group * inside + place).after(scale, shift, learned=True)


def composed(fed: Preprocessing, entry: Entry) -> Preprocessing:
    """The preparation of the graph's input, where `fed` prepares the file's input."""
    mean, std = (np.array(values)[entry.channels] for values in (fed.mean, fed.std))
    order = fed.order
    if entry.turned:
        order = "bgr" if order == "rgb" else "rgb"
    mean = mean - entry.shift * std / entry.scale
    std = std / entry.scale
    return replace(fed, mean=tuple(map(float, mean)), std=tuple(map(float, std)), order=order)


def pixels_of(entry: Entry) -> Pixels | None:
    """The pixel range a file expects, judged by its steps; None if they do not reveal it."""
    scale, mean = np.abs(entry.scale), -entry.shift / np.where(entry.scale == 0, np.nan, entry.scale)
    if not np.isfinite(mean).all():
        return None
    if _inside(scale, 1 / 1000, 1 / 20) and _inside(mean, -20, 300):
        return "0..255"
    if _inside(mean, 20, 256) and _inside(scale, 1 / 1000, 20):
        return "0..255"
    if _inside(mean, -1.02, -0.98):
        return "-1..1"
    if len(mean) == 3:
        usual_mean, usual_std = np.array(IMAGENET)[:, entry.channels]
        if _near(mean, 2 * usual_mean - 1) and _near(1 / scale, 2 * usual_std):
            return "-1..1"
    if _inside(mean, 0.02, 0.98) and _inside(scale, 0.9, 60):
        clear = _inside(mean, 0.25, 0.75) and _inside(scale, 2, 10)
        return "0..1" if clear or not entry.learned else None  # a batch norm of normalised images is near 0 and 1
    if _inside(mean, -0.01, 0.98) and _inside(scale, 100, 300):
        return "0..1"
    return None


def undoes_imagenet(entry: Entry) -> bool:
    """Whether it turns images of ImageNet's mean and standard deviation into -1..1, 0..1 or 0..255.

    torchvision's `transform_input` does.
    """
    if len(entry.channels) != 3:
        return False
    mean, std = np.array(IMAGENET)[:, entry.channels]
    scale, shift = entry.scale / std, entry.shift - entry.scale * mean / std
    return any(_near(scale / factor, 1) and _near(shift / factor, to) for factor, to in ((2, -0.5), (1, 0), (255, 0)))


def _inside(values: Array, least: float, most: float) -> bool:
    return bool(((values >= least) & (values <= most)).all())


def _near(values: Array, wanted: Array | float) -> bool:
    return bool((np.abs(values - wanted) <= 0.01).all())
