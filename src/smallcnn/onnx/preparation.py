"""How images are to be prepared for somebody else's file: what the file does itself, and what it has to be fed.

Most files do not say what they want to be fed. It is taken from the person who asks, else from what the file does to
its image (a division by 255 wants 0..255), else from what Windows ML or Core ML wrote, else it is assumed to be
ImageNet's mean and standard deviation. Where the file does something that tells nothing, it is an error to guess.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from onnx import TensorProto

from smallcnn.data.prepared import Prepared, described, listed
from smallcnn.data.preprocessing import Order, Preprocessing
from smallcnn.errors import FileError
from smallcnn.onnx.entry import IMAGENET, Entry, Pixels, undoes_imagenet
from smallcnn.onnx.file import File

if TYPE_CHECKING:
    from smallcnn.onnx.reading import Read

# what a file is fed: mean and standard deviation of pixels of 0..1
_FED: dict[Pixels, tuple[float, float]] = {"0..255": (0.0, 1 / 255), "0..1": (0.0, 1.0), "-1..1": (0.5, 0.5)}

# what Windows ML calls it, in a file's metadata
_RANGES: dict[str, Pixels] = {
    "NominalRange_0_255": "0..255",
    "Normalized_0_1": "0..1",
    "Normalized_1_1": "-1..1",
}
_ORDERS: dict[str, Order] = {"Bgr8": "bgr", "Bgra8": "bgr", "Rgb8": "rgb", "Rgba8": "rgb"}


_ALIKE = 0.012
"""Of pixels of 0..1: what people round the mean by, as Caffe's 104, 117 and 123; red's and blue's differ by 0.08."""


def preparation(file: File, read: "Read", prepared: Prepared) -> tuple[Preprocessing, dict[str, str]]:
    """From images to the graph's input, and where that comes from. FileError if nothing tells."""
    height, width, channels = read.graph.input_shape
    pixels = None if prepared.says_numbers else _pixels(file, read)
    fed = _FED[pixels] if pixels else (0.5, 0.5)
    usual = Preprocessing((height, width), (fed[0],) * channels, (fed[1],) * channels)
    if channels == 3:
        said = _ORDERS.get(file.metadata.get("Image.BitmapPixelFormat", ""))
        order = prepared.order or said or _order(read.entry, pixels) or "rgb"
        usual = replace(usual, order=order)
        if pixels is None:
            there, back = IMAGENET, tuple(values[::-1] for values in IMAGENET)
            mean, std = there if order == "rgb" else back
            usual = replace(usual, mean=mean, std=std)
    fed_to = prepared.over(usual)
    how = {
        "pictures": "given" if prepared.says_numbers else "in the file" if pixels else "assumed",
        "fed": described(fed_to),
    }
    if prepared.says_numbers and (asks := _doubt(read, fed_to)):
        how["asks"] = asks
    return composed(fed_to, read.entry), how


def remarks(facts: Mapping[str, Any]) -> list[str]:
    """What to tell the user of a network that was read from somebody else's ONNX file: lines."""
    said = facts.get("onnx")
    if not isinstance(said, dict) or "fed" not in said:
        return []
    fed = said["fed"]
    if said.get("pictures") == "assumed":
        return [f"assumed, as the file does not say how its images are prepared: {fed}; "
                "--mean, --std, --scale and --order change that"]  # fmt: skip
    start = (
        "as the file scales its images itself, it is fed"
        if said.get("pictures") == "in the file"
        else "as given, it is fed"
    )
    lines = [f"{start} images with {fed}"]
    if "asks" in said:
        lines.append(f"note: what the file does to its images itself asks for pixels of {said['asks']}")
    return lines


def _doubt(read: "Read", fed: Preprocessing) -> Pixels | None:
    """The numbers that the file asks for by what it does, where those that it is to be fed are far from them."""
    asks = _told(read)
    highest = max((1 - mean) / std for mean, std in zip(fed.mean, fed.std, strict=True))
    return asks if asks and (asks == "0..255") != (highest > 20) else None


def composed(fed: Preprocessing, entry: Entry) -> Preprocessing:
    """The preparation of the graph's input, where `fed` is that of what the file is fed."""
    mean, std = (np.array(values)[entry.channels] for values in (fed.mean, fed.std))
    order = fed.order
    if entry.turned:
        order = "bgr" if order == "rgb" else "rgb"
    mean = mean - entry.shift * std / entry.scale
    std = std / entry.scale
    return replace(fed, mean=tuple(map(float, mean)), std=tuple(map(float, std)), order=order)


def _pixels(file: File, read: "Read") -> Pixels | None:
    """Which numbers the file is fed; None if nothing is said or done. FileError if what is done does not tell."""
    if file.picture.type == TensorProto.UINT8 or any(step.kind == "ImageScaler" for step in file.steps):
        return "0..255"  # Core ML's scaler is there for images of bytes
    if told := _told(read):
        return told
    if said := _RANGES.get(file.metadata.get("Image.NominalPixelRange", "")):
        return said
    for entry in _steps(read):
        if entry.learned and not entry.told:
            continue
        scale, shift = listed(entry.scale.tolist()), listed(entry.shift.tolist())
        raise FileError(
            f"computes image * {scale} + {shift} first, which does not tell what images it takes: say it, as in "
            "--mean 0 --std 1 for pixels of 0..1, --scale 1 for 0..255, --mean 0.5 --std 0.5 for -1..1"
        )
    return None


def _order(entry: Entry, pixels: Pixels | None) -> Order | None:
    """The order of the channels it is fed, if it subtracts ImageNet's mean: red's is the largest, blue's the least."""
    if pixels is None:
        return None
    mean = -entry.shift / entry.scale  # in the order of the network's channels
    mean = {"0..255": mean / 255, "0..1": mean, "-1..1": (mean + 1) / 2}[pixels]
    for order in get_args(Order):
        wanted = np.array(IMAGENET[0] if order == "rgb" else IMAGENET[0][::-1])
        if (np.abs(mean - wanted) < _ALIKE).all():
            return order if not entry.turned else "bgr" if order == "rgb" else "rgb"
    return None


def _told(read: "Read") -> Pixels | None:
    """The numbers that the file asks for by what it does to them; None if that does not tell."""
    told = {entry.told for entry in _steps(read)} - {None}
    return told.pop() if len(told) == 1 else None


def _steps(read: "Read") -> list[Entry]:
    return [entry for entry in read.done if entry.told or not (entry.says_nothing or undoes_imagenet(entry))]
