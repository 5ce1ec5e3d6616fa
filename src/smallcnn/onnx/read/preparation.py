"""Image preparation for foreign files: the part inside the file, and the input the file expects.

Most files do not state their expected input. It comes from the caller, else from the file's first steps (a division by
255 implies 0..255), else from Windows ML or Core ML metadata, else ImageNet's mean and standard deviation are assumed.
If the file's first steps are ambiguous, that is an error instead of a guess.
"""

from dataclasses import replace
from typing import get_args

import numpy as np
from onnx import TensorProto

from smallcnn.errors import FileError
from smallcnn.foreign.decodings import decoding_at
from smallcnn.foreign.entry import IMAGENET, Entry, Pixels, composed, undoes_imagenet
from smallcnn.foreign.reading import Read
from smallcnn.image.fit import Order, Preprocessing
from smallcnn.image.overrides import Overrides, described, listed
from smallcnn.model.facts import Facts
from smallcnn.model.sightings import end_of
from smallcnn.onnx.read.file import File

# a file's input: mean and standard deviation of pixels in 0..1
_FED: dict[Pixels, tuple[float, float]] = {"0..255": (0.0, 1 / 255), "0..1": (0.0, 1.0), "-1..1": (0.5, 0.5)}

# Windows ML's names in a file's metadata
_RANGES: dict[str, Pixels] = {
    "NominalRange_0_255": "0..255",
    "Normalized_0_1": "0..1",
    "Normalized_1_1": "-1..1",
}
_ORDERS: dict[str, Order] = {"Bgr8": "bgr", "Bgra8": "bgr", "Rgb8": "rgb", "Rgba8": "rgb"}


_ALIKE = 0.012
"""Of pixels of 0..1: what people round the mean by, as Caffe's 104, 117 and 123; red's and blue's differ by 0.08."""


def preparation(file: File, read: Read, overrides: Overrides) -> tuple[Preprocessing, dict[str, str]]:
    """The preparation from images to the graph's input, and its source. FileError if it cannot be determined."""
    height, width, channels = read.graph.input_shape
    pixels = None if overrides.says_numbers else _pixels(file, read)
    fed = _FED[pixels] if pixels else (0.5, 0.5)
    usual = Preprocessing((height, width), (fed[0],) * channels, (fed[1],) * channels)
    if channels == 3:
        said = _ORDERS.get(file.metadata.get("Image.BitmapPixelFormat", ""))
        order = overrides.order or said or _order(read.entry, pixels) or "rgb"
        usual = replace(usual, order=order)
        if pixels is None:
            there, back = IMAGENET, tuple(values[::-1] for values in IMAGENET)
            mean, std = there if order == "rgb" else back
            usual = replace(usual, mean=mean, std=std)
    source = "in the file" if pixels else "assumed"
    if (end := end_of(read.graph)) is not None and (known := decoding_at(end)):
        usual, source = known.preparation(replace(usual, fit="stretch", crop=1.0)), "known"
    fed_to = overrides.over(usual)
    how = {"pictures": "given" if overrides.says_numbers else source, "fed": described(fed_to)}
    if overrides.says_numbers and (asks := _doubt(read, fed_to)):
        how["asks"] = asks
    return composed(fed_to, read.entry), how


def remarks(facts: Facts) -> list[str]:
    """Lines to print about a network read from a foreign ONNX file."""
    said = facts.onnx
    if said is None or "fed" not in said:
        return []
    fed = said["fed"]
    if said.get("pictures") == "assumed":
        return [f"assumed, as the file does not state how its images are prepared: {fed}; "
                "--mean, --std, --scale and --order override that"]  # fmt: skip
    starts = {"in the file": "as the file scales its images itself", "known": "as this detector is known to expect"}
    start = f"{starts.get(said.get('pictures', ''), 'as given')}, it is fed"
    lines = [f"{start} images with {fed}"]
    if "asks" in said:
        lines.append(f"note: what the file does to its images itself asks for pixels of {said['asks']}")
    return lines


def _doubt(read: Read, fed: Preprocessing) -> Pixels | None:
    """The pixel range implied by the file's steps, if the chosen input is far from it."""
    asks = _told(read)
    highest = max((1 - mean) / std for mean, std in zip(fed.mean, fed.std, strict=True))
    return asks if asks and (asks == "0..255") != (highest > 20) else None


def _pixels(file: File, read: Read) -> Pixels | None:
    """The pixel range of the file's input; None without any evidence. FileError if the evidence is ambiguous."""
    if file.image.type == TensorProto.UINT8 or any(step.kind == "ImageScaler" for step in file.steps):
        return "0..255"  # Core ML's scaler is for byte images
    if told := _told(read):
        return told
    if said := _RANGES.get(file.metadata.get("Image.NominalPixelRange", "")):
        return said
    for entry in _steps(read):
        if entry.learned and not entry.told:
            continue
        scale, shift = listed(entry.scale.tolist()), listed(entry.shift.tolist())
        raise FileError(
            f"first computes image * {scale} + {shift}, which does not fix the range of its input: give it, as in "
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


def _told(read: Read) -> Pixels | None:
    """The pixel range implied by the file's steps; None if they are ambiguous."""
    told = {entry.told for entry in _steps(read)} - {None}
    return told.pop() if len(told) == 1 else None


def _steps(read: Read) -> list[Entry]:
    return [entry for entry in read.done if entry.told or not (entry.says_nothing or undoes_imagenet(entry))]
