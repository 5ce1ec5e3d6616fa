"""The size of an image, from its header: nothing is decoded."""

import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from PIL import ExifTags, Image

from smallcnn.errors import ImageError
from smallcnn.image.opening import open_file, open_image
from smallcnn.image.stored import Stored

_HEAD = 1 << 16  # bytes; cameras put EXIF with a thumbnail, at most 64 kB, before the size
_THREADS = 8

_SIDEWAYS = (5, 6, 7, 8)


@dataclass(frozen=True, slots=True)
class Header:
    """(width, height) as stored, and the EXIF orientation, 1 to 8, that turns the image upright."""

    stored: tuple[int, int]
    orientation: int = 1

    @property
    def upright(self) -> tuple[int, int]:
        """(width, height) of the upright image, which is what `decode` gives."""
        return self.stored[::-1] if self.orientation in _SIDEWAYS else self.stored


def read_header(source: Path | Stored | bytes) -> Header:
    """The header of an image file. Raises ImageError or OSError if it is none."""
    if isinstance(source, Stored):
        if source.size > _HEAD:
            with suppress(ImageError):  # the size lies further back
                return _header(source.head(_HEAD))
        return _header(source.read())
    if isinstance(source, bytes):
        return _header(source)
    with open_file(source) as file:
        return _of(file)


def read_headers(sources: Sequence[Path | Stored | bytes]) -> list[Header | None]:
    """The headers of image files, read in threads; None for each that cannot be read."""
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(_or_none, sources))


def _or_none(source: Path | Stored | bytes) -> Header | None:
    try:
        return read_header(source)
    except (ImageError, OSError):
        return None


def _header(content: bytes) -> Header:
    with io.BytesIO(content) as file:
        return _of(file)


def _of(file: IO[bytes]) -> Header:
    try:
        image = open_image(file)
    except ImageError:
        raise
    except Exception as error:  # decoders raise anything on damaged data
        raise ImageError(f"damaged image ({' '.join(str(error).split()) or type(error).__name__})") from error
    if image.format == "TIFF":  # Pillow turns it itself and reports the size of the result
        return Header(image.size)
    try:
        exif = Image.Image.getexif(image)  # the method of a PNG would decode it, to look for EXIF behind the pixels
        orientation = exif.get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged EXIF raises anything, but does not affect the pixels
        orientation = 1
    return Header(image.size, orientation if orientation in range(1, 9) else 1)
