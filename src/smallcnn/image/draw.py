"""Boxes with captions on an image, in colours that stand out from any background."""

import colorsys
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from smallcnn.system.escape import escaped

Colour = tuple[int, int, int]

RIGHT, WRONG, TRUE = (22, 163, 74), (220, 38, 38), (37, 99, 235)
"""Colours of boxes that are right, wrong, and drawn by a person."""

_SMALLEST_TEXT = 11  # pixels
_GOLDEN = 0.6180339887  # turns of the colour wheel: any few in a row are far apart


def colour(number: int) -> Colour:
    """The colour of a class, by its number."""
    red, green, blue = colorsys.hsv_to_rgb(number * _GOLDEN % 1, 0.85, 0.9)
    return (round(255 * red), round(255 * green), round(255 * blue))


def draw(
    image: Image.Image, boxes: np.ndarray, captions: Sequence[str], colours: Sequence[Colour], *, line: int = 0
) -> Image.Image:
    """A copy of the image, RGB, with boxes (n, 4): left, top, right, bottom in its pixels. The first is on top.

    Lines are `line` pixels wide; by default, lines and text grow with the image. An empty caption is not drawn.
    """
    drawn = image.convert("RGB")
    if drawn is image:
        drawn = image.copy()
    shorter = min(drawn.size)
    line = line or max(2, round(shorter / 200))
    font = ImageFont.load_default(max(_SMALLEST_TEXT, round(shorter / 28)))
    pen = ImageDraw.Draw(drawn)
    for box, caption, ink in reversed(list(zip(boxes.tolist(), captions, colours, strict=True))):
        left, top, right, bottom = _inside(box, drawn.size)
        pen.rectangle((left - 1, top - 1, right + 1, bottom + 1), outline="white", width=line + 2)
        pen.rectangle((left, top, right, bottom), outline=ink, width=line)
        if caption:
            _write(pen, (left, top), escaped(caption), font, ink)
    return drawn


def _inside(box: Sequence[float], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The first and last column and row of the pixels in a box, at least one of each, in an image (width, height)."""
    left, top = (min(max(round(side), 0), most - 1) for side, most in zip(box[:2], size, strict=True))
    right, bottom = (min(max(round(side) - 1, 0), most - 1) for side, most in zip(box[2:], size, strict=True))
    return left, top, max(left, right), max(top, bottom)


def _write(
    pen: ImageDraw.ImageDraw,
    corner: tuple[int, int],
    caption: str,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    ink: Colour,
) -> None:
    """The caption on a ground of the colour, above the corner if there is room, and inside the image."""
    width, height = (round(side) + 4 for side in pen.textbbox((0, 0), caption, font, anchor="lt")[2:])
    most_right, most_down = (side - 1 for side in pen.im.size)
    left = max(min(corner[0], most_right - width), 0)
    top = corner[1] - height if corner[1] >= height else min(corner[1], max(most_down - height, 0))
    pen.rectangle((left, top, left + width, top + height), fill=ink)
    pen.text((left + 2, top + 2), caption, _readable_on(ink), font, anchor="lt")


def _readable_on(ink: Colour) -> str:
    """Black or white, by the brightness of the ground (ITU-R BT.601)."""
    red, green, blue = ink
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else "white"
