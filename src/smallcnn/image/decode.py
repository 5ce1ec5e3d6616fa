"""Decodes any image to 8-bit grey or sRGB.

EXIF orientation is applied. Palettes are expanded, CMYK and YCbCr converted, samples of more than eight bits scaled to
the file's range (`depth`), ICC profiles applied (`colour`), transparent pixels composited over white. Only the first
frame of an animation is read.
"""

import io
import os
import warnings
from dataclasses import dataclass
from math import inf
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageFile

from smallcnn.errors import ImageError, ImageNote
from smallcnn.image.bounds import room_for, room_for_file, shrinkage
from smallcnn.image.colour import ProfileError, to_srgb
from smallcnn.image.depth import Note, Reopen, eight_bits, stated
from smallcnn.image.opening import SUFFIXES, open_file, open_image
from smallcnn.image.stored import Stored

__all__ = ["SUFFIXES", "Decoded", "ImageInput", "decode"]

ImageInput = str | Path | bytes | Stored | Image.Image | np.ndarray
"""A path, a file's bytes, a file inside another, a Pillow image, or a uint8 array (H, W), (H, W, 1) or (H, W, 3)."""

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = {_TURNS[orientation] for orientation in (5, 6, 7, 8)}

# Pillow refuses images of more than 179 million pixels; its warning at half of that would hit large cameras.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
# Pillow's other warnings, such as damaged EXIF, do not concern the pixels, or are followed by an error.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


@dataclass(frozen=True)
class Decoded:
    """An upright image of `size` (width, height); `image`, in mode L or RGB, is `factor` times smaller.

    The sides of `image` are rounded up: 437 pixels at half size give 219, of which 218.5 show the image.
    """

    image: Image.Image
    size: tuple[int, int]
    factor: int


def decode(source: ImageInput, channels: int, shorter: float = inf) -> Decoded:
    """Loads an image in mode L (1 channel) or RGB (3 channels).

    A JPEG file is decoded at half, quarter or eighth size if its shorter side keeps at least `shorter` pixels. That is
    much faster for photographs that will be scaled down anyway.

    Raises ImageError with the file's name and the problem; guesses are reported as ImageNote warnings.
    """
    with room_for_file(source.size if isinstance(source, Stored) else 0):
        return _decode(source, channels, shorter)


def _decode(source: ImageInput, channels: int, shorter: float) -> Decoded:
    mode = {1: "L", 3: "RGB"}[channels]
    name: str | Path = source if isinstance(source, str | Path) else "image"  # for messages
    if isinstance(source, Stored):
        name, source = source.name, source.read()

    def note(text: str) -> None:
        warnings.warn(ImageNote(text, str(name)), stacklevel=2)

    try:
        if isinstance(source, np.ndarray):
            return _finish(_from_array(source), mode, note)
        if isinstance(source, Image.Image):
            return _finish(source, mode, note)
        with open_file(Path(source)) if isinstance(source, str | Path) else io.BytesIO(source) as file:
            file_bytes = file.seek(0, os.SEEK_END)
            image = open_image(file)
            size, factor = image.size, _draft(image, shorter)
            with room_for(image, size, file_bytes):
                return _shrunk(_finish(image, mode, note, size, factor, reopen=lambda: open_image(file)), shorter)
    except FileNotFoundError:
        raise ImageError(f"{name}: no such file") from None
    except MemoryError:
        raise ImageError(f"{name}: not enough memory to decode it") from None
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name}: too many pixels, refused as a decompression bomb ({error})") from None
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from None
    except Exception as error:  # decoders raise anything on damaged data: OSError, SyntaxError, struct.error, ...
        system = getattr(error, "strerror", None)  # no permission, a folder, a name too long
        why = " ".join(str(error).split()) or type(error).__name__
        raise ImageError(f"{name}: {system or f'damaged image ({why})'}") from error


def _shrunk(decoded: Decoded, shorter: float) -> Decoded:
    """Reduces an image so large that a few like it would fill the memory."""
    factor = shrinkage(decoded.image.size, shorter)
    if factor == 1:
        return decoded
    return Decoded(decoded.image.reduce(factor), decoded.size, decoded.factor * factor)


def _from_array(array: np.ndarray) -> Image.Image:
    if array.dtype != np.uint8:
        raise ImageError(f"an array must be uint8, not {array.dtype}")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] != 3) or not array.size:
        raise ImageError(f"an array must be (H, W), (H, W, 1) or (H, W, 3), not {array.shape}")
    return Image.fromarray(np.ascontiguousarray(array))


def _draft(image: Image.Image, shorter: float) -> int:
    """Sets a JPEG up to be decoded at a smaller size; returns the factor."""
    if image.format not in ("JPEG", "MPO"):  # an MPO is a JPEG followed by others
        return 1
    width, height = image.size
    for factor in (8, 4, 2):
        divides = width % factor == height % factor == 0  # after a turn, the incomplete last pixels would come first
        if min(width, height) >= factor * shorter and (divides or _turn(image) is None):
            return factor if image.draft(None, (width // factor, height // factor)) else 1
    return 1


def _finish(
    image: Image.Image,
    mode: str,
    note: Note,
    size: tuple[int, int] = (0, 0),
    factor: int = 1,
    reopen: Reopen | None = None,
) -> Decoded:
    """Loads, turns and converts an image; `size` is that of the stored image if the loaded one is smaller."""
    depth = stated(image)
    image.load()  # before reading its orientation: a TIFF turns itself
    if not (image.width and image.height):
        raise ImageError("an image without pixels")
    turn, profile = _turn(image), image.info.get("icc_profile")
    if depth:
        image = eight_bits(image, depth, reopen, note)
    if turn is not None:
        image = image.transpose(turn)
        size = (size[1], size[0]) if turn in _SIDEWAYS else size
    return Decoded(_convert(image, mode, profile, note), image.size if factor == 1 else size, factor)


def _turn(image: Image.Image) -> Image.Transpose | None:
    try:
        return _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged EXIF raises anything, but does not affect the pixels
        return None


def _convert(image: Image.Image, mode: str, profile: bytes | None, note: Note) -> Image.Image:
    if image.mode == "LAB":  # Pillow cannot convert LAB to grey
        image, profile = image.convert("RGB"), None
    if image.has_transparency_data:
        over = image.convert("RGBA")
        if profile:
            grey = image.mode in ("LA", "La")
            alpha, over = over.getchannel("A"), _in_srgb(over.convert("L" if grey else "RGB"), profile, note)
            over = over.convert("RGBA")
            over.putalpha(alpha)
        image, profile = Image.new("RGBA", over.size, "white"), None
        image.alpha_composite(over)
    if profile:
        image = _in_srgb(image, profile, note)
    if image.mode == mode and not isinstance(image, ImageFile.ImageFile):
        return image
    return image.convert(mode)  # also detaches the image from its file


def _in_srgb(image: Image.Image, profile: bytes, note: Note) -> Image.Image:
    plain = {"1": "L", "P": "RGB", "YCbCr": "RGB"}.get(image.mode, image.mode)
    try:
        return to_srgb(image if image.mode == plain else image.convert(plain), profile)
    except ProfileError as error:
        note(f"an image has an ICC profile that cannot be used: {error}; its colours are read as sRGB")
        return image
