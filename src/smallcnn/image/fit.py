"""Preprocessing of an image of any size to the network's input, for training, evaluation, prediction and export alike.

The shorter side is scaled to size / crop with an antialiasing filter, and the centre is cropped. Both happen in one
step: the crop box is resampled directly to the final size.
"""

import json
from dataclasses import asdict, dataclass, replace
from math import isfinite
from typing import Any, Literal

import numpy as np
from PIL import Image

from smallcnn.errors import FileError
from smallcnn.image.decode import Decoded, ImageInput, decode
from smallcnn.ir.checks import MOST_SIDE

Box = tuple[float, float, float, float]
Interpolation = Literal["bilinear", "bicubic", "lanczos"]
Order = Literal["rgb", "bgr"]


@dataclass(frozen=True)
class Preprocessing:
    """Preprocessing of an image to the network's input.

    `size` is (height, width) in pixels and `crop` the fraction of the shorter side that is kept. `mean` and `std` are
    per channel, for pixels scaled to 0..1: input = (pixel / 255 - mean) / std. One mean makes a grey network, three a
    colour one.

    `order` is the order of the network's channels, and so of mean and std. Images are red first everywhere; `normalise`
    reverses them for a network that expects blue first, as Caffe's do.
    """

    size: tuple[int, int]
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)
    crop: float = 0.875
    interpolation: Interpolation = "bilinear"
    order: Order = "rgb"

    def __post_init__(self) -> None:
        sides = len(self.size) == 2 and all(isinstance(side, int) and 1 <= side <= MOST_SIDE for side in self.size)
        _check("size", self.size, sides, f"(height, width) in whole pixels, 1 to {MOST_SIDE}")
        _check(
            "mean", self.mean, len(self.mean) in (1, 3) and all(map(isfinite, self.mean)), "one finite number or three"
        )
        spread = len(self.std) == len(self.mean) and all(isfinite(value) and value > 0 for value in self.std)
        _check("std", self.std, spread, "as many numbers as the mean, above 0")
        _check("crop", self.crop, 0 < self.crop <= 1, "above 0 and at most 1")
        _check("interpolation", self.interpolation, self.interpolation in _FILTERS, ", ".join(_FILTERS))
        _check("order", self.order, self.order in ("rgb", "bgr"), "rgb or bgr")
        _check("order", self.order, self.order == "rgb" or self.channels == 3, "rgb for a grey network")

    @property
    def channels(self) -> int:
        """Number of channels: 1 for grey, 3 for RGB."""
        return len(self.mean)

    def trained_at(self, scale: float) -> "Preprocessing":
        """A copy with both sides of the size multiplied by `scale`, at least one pixel."""
        height, width = (max(1, round(side * scale)) for side in self.size)
        return replace(self, size=(height, width))

    def prepare(self, image: ImageInput) -> np.ndarray:
        """Decodes, crops and resizes an image: uint8 (H, W, C). Raises ImageError if it cannot be decoded."""
        decoded = decode(image, self.channels, self.decoded_side(self.crop))
        return self.resample(decoded, centre_box(decoded.size, self.size, self.crop))

    def decoded_side(self, fraction: float) -> float:
        """Shorter side to decode to if `fraction` of it will be kept: twice the output, so that resizing smooths."""
        return 2 * max(self.size) / fraction

    def resample(self, decoded: Decoded, box: Box) -> np.ndarray:
        """Resamples `box` (left, top, right, bottom, in pixels of the whole image) to `size`: uint8 (H, W, C)."""
        height, width = self.size
        left, top, right, bottom = (edge / decoded.factor for edge in box)
        resized = decoded.image.resize((width, height), _FILTERS[self.interpolation], (left, top, right, bottom))
        return np.asarray(resized).reshape(height, width, self.channels)

    def scale_and_shift(self) -> tuple[np.ndarray, np.ndarray]:
        """(scale, shift), float32 (C,) each: network input = pixel * scale + shift, in the network's channel order."""
        mean, std = np.array(self.mean), np.array(self.std)
        with np.errstate(over="ignore"):  # a std too small for float32 makes an answer that is not finite: an error
            return (1 / (255 * std)).astype(np.float32), (-mean / std).astype(np.float32)

    def normalise(self, batch: np.ndarray) -> np.ndarray:
        """uint8 (N, H, W, C), red first -> float32 (N, H, W, C), the network's input."""
        scale, shift = self.scale_and_shift()
        return (batch[..., ::-1] if self.order == "bgr" else batch) * scale + shift

    def to_json(self) -> str:
        """A JSON object with one entry per field; without `order` it means "rgb", as in older files."""
        fields = asdict(self)
        if self.order == "rgb":
            del fields["order"]
        return json.dumps(fields)

    @classmethod
    def from_json(cls, text: str) -> "Preprocessing":
        """The inverse of `to_json`. Raises FileError for invalid text."""
        try:
            fields: dict[str, Any] = json.loads(text)
            for key in ("size", "mean", "std"):
                fields[key] = tuple(fields[key])
            return cls(**fields)
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
            raise FileError(f"not a description of preprocessing: {error}") from error


def centre_box(image_size: tuple[int, int], size: tuple[int, int], crop: float) -> Box:
    """The centred box of an image (width, height) with the aspect ratio of `size` (height, width)."""
    width, height = image_size
    scale = min(width / size[1], height / size[0]) * crop
    kept_width, kept_height = min(size[1] * scale, width), min(size[0] * scale, height)  # rounding may exceed by 1e-16
    left, top = (width - kept_width) / 2, (height - kept_height) / 2
    return (left, top, left + kept_width, top + kept_height)


def _check(name: str, value: object, good: bool, allowed: str) -> None:
    if not good:
        raise FileError(f"preprocessing: {name} must be {allowed}, not {value}")


_FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
