"""Preprocessing of an image of any size to the network's input, for training, evaluation, prediction and export alike.

    fit         shown of the image                                        scaled
    crop        the largest box of the input's shape inside it            equally in both directions
    stretch     all of it                                                 to the input's height and width
    letterbox   the smallest box of the input's shape around it           equally in both directions

Each box is centred, and `crop` is the share of its sides that is kept: 0.875 by default with "crop", which scales the
shorter side to size / 0.875 and cuts out the centre, and 1 with the others. The box is resampled directly to the final
size, with an antialiasing filter.
"""

import json
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from math import floor, isfinite
from typing import Any, Literal, get_args

import numpy as np

from smallcnn.errors import FileError
from smallcnn.image.decode import Decoded, ImageInput, decode
from smallcnn.image.geometry import Box
from smallcnn.image.resample import FILTERS, Interpolation, Prepared, resample
from smallcnn.ir.checks import MOST_SIDE

Order = Literal["rgb", "bgr"]
Fit = Literal["crop", "stretch", "letterbox"]

_BY_FIT: Any = object()
"""The default crop, which depends on the fit."""


@dataclass(frozen=True)
class Preprocessing:
    """Preprocessing of an image to the network's input.

    `size` is (height, width) in pixels; `fit` and `crop` choose the part of the image that fills it, as the module's
    table says. `mean` and `std` are per channel, for pixels scaled to 0..1: input = (pixel / 255 - mean) / std. One
    mean makes a grey network, three a colour one.

    `order` is the order of the network's channels, and so of mean and std. Images are red first everywhere; `normalise`
    reverses them for a network that expects blue first, as Caffe's do.
    """

    size: tuple[int, int]
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)
    crop: float = _BY_FIT
    interpolation: Interpolation = "bilinear"
    order: Order = "rgb"
    fit: Fit = "crop"

    def __post_init__(self) -> None:
        if self.crop is _BY_FIT:
            object.__setattr__(self, "crop", 0.875 if self.fit == "crop" else 1.0)
        sides = len(self.size) == 2 and all(isinstance(side, int) and 1 <= side <= MOST_SIDE for side in self.size)
        _check("size", self.size, sides, f"(height, width) in whole pixels, 1 to {MOST_SIDE}")
        _check(
            "mean", self.mean, len(self.mean) in (1, 3) and all(map(isfinite, self.mean)), "one finite number or three"
        )
        spread = len(self.std) == len(self.mean) and all(isfinite(value) and value > 0 for value in self.std)
        _check("std", self.std, spread, "as many numbers as the mean, above 0")
        _check("crop", self.crop, 0 < self.crop <= 1, "above 0 and at most 1")
        _check("interpolation", self.interpolation, self.interpolation in FILTERS, ", ".join(FILTERS))
        _check("order", self.order, self.order in ("rgb", "bgr"), "rgb or bgr")
        _check("order", self.order, self.order == "rgb" or self.channels == 3, "rgb for a grey network")
        _check("fit", self.fit, self.fit in get_args(Fit), ", ".join(get_args(Fit)))

    @property
    def channels(self) -> int:
        """Number of channels: 1 for grey, 3 for RGB."""
        return len(self.mean)

    def trained_at(self, scale: float) -> "Preprocessing":
        """A copy with both sides of the size multiplied by `scale`, at least one pixel."""
        height, width = (max(1, round(side * scale)) for side in self.size)
        return replace(self, size=(height, width))

    @cached_property
    def border(self) -> tuple[int, ...]:
        """The fill outside an image, per channel, red first: the mean, which the network reads as 0."""
        mean = self.mean[::-1] if self.order == "bgr" else self.mean
        return tuple(min(max(floor(255 * value + 0.5), 0), 255) for value in mean)

    def prepare(self, image: ImageInput) -> Prepared:
        """Decodes an image and resamples the part to show. Raises ImageError if it cannot be decoded."""
        decoded = decode(image, self.channels, self.decoded_side(self.crop))
        return self.resample(decoded, centre_box(decoded.size, self.size, self.crop, self.fit))

    def decoded_side(self, fraction: float) -> float:
        """Shorter side to decode to if `fraction` of it will be kept: twice the output, so that resizing smooths."""
        return 2 * max(self.size) / fraction

    def resample(self, decoded: Decoded, box: Box) -> Prepared:
        """Resamples `box`, in pixels of the whole image, to `size`; it may be mirrored and reach outside the image."""
        return resample(decoded, box, self.size, self.interpolation, self.border)

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
        """A JSON object with one entry per field; `order` "rgb" and `fit` "crop" are left out, as in older files."""
        usual = {"order": "rgb", "fit": "crop"}
        return json.dumps({key: value for key, value in asdict(self).items() if usual.get(key) != value})

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


def centre_box(image_size: tuple[int, int], size: tuple[int, int], crop: float, fit: Fit = "crop") -> Box:
    """The centred box of an image (width, height) that fills `size` (height, width); see the module's table."""
    width, height = image_size
    if fit == "stretch":
        box_width, box_height = width * crop, height * crop
    else:
        scale = (min if fit == "crop" else max)(width / size[1], height / size[0]) * crop
        box_width, box_height = size[1] * scale, size[0] * scale
    if fit == "crop":
        box_width, box_height = min(box_width, width), min(box_height, height)  # rounding may exceed by 1e-16
    left, top = (width - box_width) / 2, (height - box_height) / 2
    return (left, top, left + box_width, top + box_height)


def _check(name: str, value: object, good: bool, allowed: str) -> None:
    if not good:
        raise FileError(f"preprocessing: {name} must be {allowed}, not {value}")
