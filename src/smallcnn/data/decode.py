"""Decoding one picture, whatever it is, to 8-bit grey or RGB.

EXIF orientation is applied. Palettes are expanded, CMYK and YCbCr converted, 16-bit grey loses its low byte,
transparent pixels are laid over white. Only the first frame of an animation is read.
"""

import io
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from smallcnn.errors import ImageError

Picture = str | Path | bytes | Image.Image | np.ndarray
"""A file's path, a file's bytes, a Pillow image, or a uint8 array (H, W), (H, W, 1) or (H, W, 3)."""

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pnm"})

# Pillow refuses pictures of more than 179 million pixels; half of that is a big camera, not worth its warning.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def decode(picture: Picture, channels: int, shrink: float = 1.0) -> Image.Image:
    """A loaded picture in mode L (1 channel) or RGB (3 channels), upright.

    `shrink` lets a JPEG be decoded at a half, quarter or eighth of its size, as long as neither side falls below
    1 / shrink of the original: much faster for photographs that will be made small anyway.

    Raises ImageError with the name of the file and what is wrong with it.
    """
    if isinstance(picture, np.ndarray):
        return _convert(_from_array(picture), channels)
    if isinstance(picture, Image.Image):
        return _convert(picture, channels)
    name, file = (picture, picture) if isinstance(picture, str | Path) else ("picture", io.BytesIO(picture))
    try:
        with Image.open(file) as image:
            if shrink > 1:
                image.draft(None, (int(image.width / shrink), int(image.height / shrink)))
            image.load()
            return _convert(ImageOps.exif_transpose(image), channels)
    except FileNotFoundError:
        raise ImageError(f"{name}: no such file") from None
    except UnidentifiedImageError:
        raise ImageError(f"{name}: not a picture that Pillow can read") from None
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name}: too many pixels, refused as a decompression bomb ({error})") from None
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from None
    except Exception as error:  # decoders raise anything on damaged data: OSError, SyntaxError, struct.error, ...
        raise ImageError(f"{name}: damaged or unreadable picture ({error})") from error


def size_of(picture: Picture) -> tuple[int, int]:
    """(width, height) as stored, before EXIF orientation; reads no more than the header of a file."""
    if isinstance(picture, np.ndarray):
        return picture.shape[1], picture.shape[0]
    if isinstance(picture, Image.Image):
        return picture.size
    try:
        with Image.open(picture if isinstance(picture, str | Path) else io.BytesIO(picture)) as image:
            return image.size
    except Exception:
        return (1, 1)  # whatever is wrong with it, `decode` says it properly


def _from_array(array: np.ndarray) -> Image.Image:
    if array.dtype != np.uint8:
        raise ImageError(f"pictures as arrays are uint8, not {array.dtype}")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] != 3) or not array.size:
        raise ImageError(f"pictures as arrays are (H, W), (H, W, 1) or (H, W, 3), not {array.shape}")
    return Image.fromarray(np.ascontiguousarray(array))


def _convert(image: Image.Image, channels: int) -> Image.Image:
    if channels not in (1, 3):
        raise ImageError(f"a picture has 1 or 3 channels, the network wants {channels}")
    if image.mode.startswith("I"):  # 16-bit grey, in one of Pillow's names for it
        wide = np.clip(np.asarray(image, np.int64), 0, 0xFFFF)
        image = Image.fromarray((wide >> 8).astype(np.uint8))
    if image.mode == "F":
        raise ImageError("floating-point pixels have no known range; store 8 or 16 bits")
    if image.has_transparency_data:
        over = image.convert("RGBA")
        image = Image.new("RGBA", over.size, "white")
        image.alpha_composite(over)
    return image.convert("L" if channels == 1 else "RGB")
