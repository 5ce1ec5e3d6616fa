"""Resampling of any box of an image to a network's input, and where each position of the image then lies."""

from dataclasses import dataclass
from math import floor
from typing import Literal

import numpy as np
from PIL import Image

from smallcnn.image.decode import Decoded
from smallcnn.image.geometry import Box, Seen

Interpolation = Literal["bilinear", "bicubic", "lanczos"]

FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
"""Antialiasing filters by name."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """An image as a network's input: uint8 `pixels` (H, W, C), and the part of the image that they show."""

    pixels: np.ndarray
    seen: Seen


def resample(
    decoded: Decoded, box: Box, size: tuple[int, int], interpolation: Interpolation, border: tuple[int, ...]
) -> Prepared:
    """Resamples `box`, in pixels of the whole image, to `size` (height, width), with one `border` value per channel.

    The box overlaps the image. Outside the image the input is filled with `border`, and each edge of the image that it
    shows is moved to the nearest whole pixel of the input; the result's `seen` is the box after that. A box whose left
    is right of its right gives a mirrored input.
    """
    left, top, right, bottom = box
    mirrored = left > right
    if mirrored:
        left, right = right, left
    height, width = size
    (x0, x1), (first, last), (left, right) = _placed(left, right, decoded.size[0], width)
    (y0, y1), (upper, lower), (top, bottom) = _placed(top, bottom, decoded.size[1], height)
    part = (x0 / decoded.factor, y0 / decoded.factor, x1 / decoded.factor, y1 / decoded.factor)
    resized = decoded.image.resize((last - first, lower - upper), FILTERS[interpolation], part)
    pixels = np.asarray(resized).reshape(lower - upper, last - first, len(border))
    if pixels.shape[:2] != size:
        whole = np.full((height, width, len(border)), border, np.uint8)
        whole[upper:lower, first:last] = pixels
        pixels = whole
    if mirrored:
        pixels, left, right = pixels[:, ::-1], right, left
    return Prepared(pixels, Seen(decoded.size[::-1], size, (left, top, right, bottom)))


def _placed(
    start: float, end: float, length: int, pixels: int
) -> tuple[tuple[float, float], tuple[int, int], tuple[float, float]]:
    """For one axis: (start, end) of the image's visible part, its pixels of the input, and the box as shown.

    The image is from 0 to `length`, the box from `start` to `end`, the input from 0 to `pixels`.
    """
    if start >= 0 and end <= length:
        return (start, end), (0, pixels), (start, end)
    visible = max(start, 0.0), min(end, float(length))
    first, last = (floor((edge - start) / (end - start) * pixels + 0.5) for edge in visible)
    first = min(first, pixels - 1)
    last = max(last, first + 1)  # an image thinner than a pixel still fills one
    each = (visible[1] - visible[0]) / (last - first)
    return visible, (first, last), (visible[0] - first * each, visible[1] + (pixels - last) * each)
