"""Samples of more than eight bits: finds the file's black and white levels and converts the image to eight bits.

If a 16-bit file states no range and all its values are below 4096, they are read as 12 bits. Cameras, scanners and
microscopes write such files, and read as 16 bits they are black.
"""

import io
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite, log2
from numbers import Rational
from typing import Any

import numpy as np
from PIL import Image, ImageFile

from smallcnn.errors import ImageError

Note = Callable[[str], None]
"""Receives a sentence on what was guessed or ignored."""

Reopen = Callable[[], ImageFile.ImageFile]

_FULL, _TWELVE, _DARK = 0xFFFF, 0xFFF, 0x3FFF
_BITS, _PHOTOMETRIC, _PLANES, _FORMAT = 258, 262, 284, 339  # TIFF tags
_LEAST, _MOST = (340, 280), (341, 281)  # SMinSampleValue, MinSampleValue; SMaxSampleValue, MaxSampleValue
_UNSIGNED, _SIGNED = 1, 2
_LARGEST = 1 << 25  # pixels of a colour image that is read twice; that takes about 20 bytes per pixel
_ROWS = 64  # at a time, so that intermediate values take little memory
_STATE_IT = "store 8 or 16 bits, or state the range (TIFF: SMinSampleValue and SMaxSampleValue)"


@dataclass(frozen=True)
class Depth:
    """The sample range of a file: the values of black and white; `white` is None if it is unknown.

    `certain`: the file states the range; a 16-bit file that may hold fewer bits does not. `inverted`: white is the
    lowest value. `samples` names a sample type with values below zero or beyond 16 bits.
    """

    black: float = 0
    white: float | None = _FULL
    certain: bool = False
    inverted: bool = False
    samples: str = ""


def stated(image: Image.Image) -> Depth | None:
    """The sample range of an image that is opened but not loaded; None for plain 8-bit samples."""
    if image.format == "TIFF":
        return _stated_by_tiff(image)
    if image.mode == "F":
        return Depth(white=None, samples="floating-point")
    if not image.mode.startswith("I") and not (image.format == "PNG" and ";16" in _raw_modes(image)):
        return None
    if image.format == "PPM":  # loading scales by the file's own maximum
        return Depth(certain=True)
    bits = _significant_bits(image)
    return Depth(white=2**bits - 1, certain=True) if bits else Depth(samples="32-bit")


def _stated_by_tiff(image: Image.Image) -> Depth | None:
    bits, kind = int(_number(image, _BITS) or 1), int(_number(image, _FORMAT) or _UNSIGNED)
    if (bits <= 8 and kind != _SIGNED) or image.mode not in ("L", "I", "I;16", "I;16B", "F", "RGB", "RGBA"):
        return None
    low, high = _number(image, *_LEAST), _number(image, *_MOST)
    inverted = _number(image, _PHOTOMETRIC) == 0
    samples = {_UNSIGNED: f"{bits}-bit", _SIGNED: f"signed {bits}-bit"}.get(kind, "floating-point")
    if high is not None and high > (low or 0) and (low is not None or kind == _UNSIGNED):
        return Depth(low or 0, high, True, inverted, samples)
    if kind not in (_UNSIGNED, _SIGNED):
        return Depth(0, None, False, inverted, samples)
    if bits > 16:
        return Depth(0, _FULL, False, inverted, samples)
    if kind == _SIGNED:
        return Depth(0, 2 ** (bits - 1) - 1, False, inverted, samples)
    return Depth(0, 2**bits - 1, bits < 16, inverted, samples)


def _number(image: Image.Image, *tags: int) -> float | None:
    """The first of these tags that the file has as a number."""
    for tag in tags:
        value = image.tag_v2.get(tag)  # type: ignore[attr-defined]
        first = value[0] if isinstance(value, tuple) and value else value
        if isinstance(first, int | float | Rational) and isfinite(first):
            return float(first)
    return None


def _significant_bits(image: Image.Image) -> int | None:
    """Significant bits from a PNG's sBIT chunk, which Pillow skips."""
    file = getattr(image, "fp", None)
    if image.format != "PNG" or file is None or file.closed:
        return None
    here = file.tell()
    try:
        file.seek(8)
        while len(head := file.read(8)) == 8 and head[4:] not in (b"IDAT", b"IEND"):
            size = int.from_bytes(head[:4], "big")
            if head[4:] == b"sBIT":
                bits = file.read(size)[:1]
                return bits[0] if bits and 8 <= bits[0] <= 16 else None
            file.seek(size + 4, io.SEEK_CUR)
    finally:
        file.seek(here)
    return None


def eight_bits(image: Image.Image, depth: Depth, reopen: Reopen | None, note: Note) -> Image.Image:
    """Converts a loaded image to eight bits, in mode L, RGB or RGBA. `reopen` opens it again, not loaded."""
    if image.mode in ("RGB", "RGBA"):
        return _colours(image, depth, reopen, note)
    values = np.asarray(image)
    if image.mode == "L":  # Pillow reads signed bytes as unsigned
        values = values.view(np.int8)
    return _with_alpha(Image.fromarray(_scaled(values, depth, note)), values[..., None], image.info)


def _colours(image: Image.Image, depth: Depth, reopen: Reopen | None, note: Note) -> Image.Image:
    """Converts a colour image. Pillow keeps only high bytes; if they do not suffice, the low ones are read as well."""
    clear = image.info.get("transparency")
    all_bits = depth.certain and depth.white == _FULL
    most = max(high for _, high in image.getextrema()[:3])  # type: ignore[misc]
    if clear is None and (all_bits or (most > _DARK >> 8 and not depth.certain)):
        return image
    low = _low_bytes(reopen()) if reopen and image.width * image.height <= _LARGEST else None
    if low is None:
        if not all_bits and most <= _DARK >> 8:
            note("a 16-bit colour image uses less than a quarter of its range; its dark shades are lost")
        return image
    wide = np.empty(low.shape, np.uint16)
    wide[...] = np.asarray(image)
    wide <<= 8
    wide |= low
    colours = Image.fromarray(_scaled(wide[..., :3], depth, note))
    if image.mode == "RGBA":
        alpha = wide[..., 3]
        twelve = alpha.max(initial=0) <= _TWELVE and not all_bits
        colours.putalpha(Image.fromarray((alpha >> (4 if twelve else 8)).astype(np.uint8)))
        return colours
    return _with_alpha(colours, wide, image.info)


def _low_bytes(image: ImageFile.ImageFile) -> np.ndarray | None:
    """uint8 (H, W, bands): the low byte of each sample of an image not loaded yet; None if Pillow cannot read it."""
    greys = "LA;16B" in _raw_modes(image)
    planes = image.tile[0][0] == "libtiff" and getattr(image, "tag_v2", {}).get(_PLANES) == 2
    other = {"L": "B", "B": "L", "N": "B" if sys.byteorder == "little" else "L"}

    def swapped(raw: str) -> str | None:
        if planes:  # libtiff unpacks these itself
            return None
        if greys:
            return "RGBA"  # four bytes: grey, its low byte, alpha, its low byte
        return raw[:-1] + other[raw[-1]] if re.fullmatch("[RGBA]+;16[LBN]", raw) else None

    if not _unpack_by(image, swapped):
        return None
    image.load()
    low = np.asarray(image)
    return low[..., [1, 1, 1, 3]] if greys else low


def mend_planes(image: ImageFile.ImageFile) -> None:
    """Fixes the unpacking of uncompressed 16-bit planes, which Pillow would read as 8-bit."""
    tags = getattr(image, "tag_v2", {})
    if tags.get(_PLANES) != 2 or tags.get(_BITS, (1,))[0] != 16 or image.tile[0][0] != "raw":
        return
    order = "L" if image.tag_v2.prefix == b"II" else "B"  # type: ignore[attr-defined]
    if not _unpack_by(image, lambda raw: f"{raw};16{order}" if raw in ("R", "G", "B", "A") else None):
        raise ImageError(f"16-bit {image.mode} in separate planes, which Pillow reads wrongly; store 8 bits")


def _unpack_by(image: ImageFile.ImageFile, change: Callable[[str], str | None]) -> bool:
    """Changes the raw mode of an image not loaded yet; does nothing and returns False if `change` gives None."""
    tiles: list[Any] = []
    for tile in image.tile:
        args = tile[3] if isinstance(tile[3], tuple) else (tile[3],)
        raw = change(args[0])
        if raw is None:
            return False
        changed = (raw, *args[1:]) if isinstance(tile[3], tuple) else raw
        # older Pillow versions have plain tuples, newer ones a named tuple
        tiles.append(tile._replace(args=changed) if hasattr(tile, "_replace") else (*tile[:3], changed))
    image.tile = tiles
    return True


def _raw_modes(image: Image.Image) -> str:
    """Pillow's raw modes for unpacking the samples; empty once the image is loaded."""
    return " ".join(str(tile[3]) for tile in getattr(image, "tile", ()))


def _with_alpha(image: Image.Image, values: np.ndarray, info: dict[str | tuple[int, int], Any]) -> Image.Image:
    """Makes pixels transparent where the samples (H, W, bands) have the file's transparent value."""
    clear = info.get("transparency")
    if isinstance(clear, int | tuple):
        image.putalpha(Image.fromarray(np.where((values == clear).all(-1), 0, 255).astype(np.uint8)))
    return image


def _scaled(values: np.ndarray, depth: Depth, note: Note) -> np.ndarray:
    """uint8: 0 at black, 255 at white."""
    least, most = float(values.min()), float(values.max())
    if not isfinite(least) or not isfinite(most):
        raise ImageError("floating-point pixels that are not all finite numbers")
    black, white = _range(depth, values.dtype.kind == "f", least, most, note)
    grey = np.empty(values.shape, np.uint8)
    for start in range(0, len(values), _ROWS):
        level = (values[start : start + _ROWS].astype(np.float32) - black) * (255 / (white - black)) + 0.5
        grey[start : start + _ROWS] = np.clip(level, 0, 255)
    return 255 - grey if depth.inverted else grey


def _range(depth: Depth, floating: bool, least: float, most: float, note: Note) -> tuple[float, float]:
    """The values of black and white as the file states them, unless the pixels contradict it."""
    black, white = depth.black, depth.white
    if white is None or (not depth.certain and not black <= least <= most <= white):
        raise ImageError(f"{depth.samples} pixels have no known range; {_STATE_IT}")
    if depth.certain:
        contradicted = not black <= least <= most <= white and not floating and black >= 0 <= least and most <= _FULL
        return (0, _FULL) if contradicted else (black, white)
    if white > _TWELVE and 0 < most <= _DARK:
        limit, white = (_TWELVE, _TWELVE) if most <= _TWELVE else (_DARK, white)
        note(
            f"a 16-bit image has no value above {limit} and does not state its bit depth: read as "
            f"{round(log2(white + 1))} bits (PNG states them in sBIT, TIFF in BitsPerSample or MaxSampleValue)"
        )
    return black, white
