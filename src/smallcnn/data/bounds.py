"""How much memory decoding may take: of one image, and of all that are decoded at the same time by threads."""

import ctypes
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache

from PIL import Image

from smallcnn.errors import ImageError

_MOST = 600_000_000
"""Bytes for all images that are being decoded: one of 75 million pixels of RGB, or of 50 million with transparency."""

_MOST_PACKED = 128 << 20  # bytes for all their files that come out of an archive

_FREE = 1 << 20  # bytes that are not counted: a thread decodes one image at a time, and small ones are quick
_LARGE = 8_000_000  # pixels from which on an image is made smaller as soon as it is decoded
_SUSPECT = 32_000_000  # pixels from which on they are compared with the size of the file
_FLAT = 500  # times its file's size; a photograph has 3 to 30, a plan drawn in two colours up to 100


class _Room:
    """Lets threads in while there is room for what they need; one that needs more than there is goes alone."""

    def __init__(self, size: int) -> None:
        self._size, self._used, self._changed = size, 0, threading.Condition()

    @contextmanager
    def of(self, needed: int) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._used or self._used + needed <= self._size)
            self._used += needed
        try:
            yield
        finally:
            with self._changed:
                self._used -= needed
                self._changed.notify_all()


_packed, _pixels = _Room(_MOST_PACKED), _Room(_MOST)


def room_for_file(size: int) -> AbstractContextManager[None]:
    """While a file of `size` bytes is in memory. To be asked for before room for its pixels, never after."""
    return _packed.of(size) if size > _FREE else nullcontext()


@contextmanager
def room_for(image: Image.Image, size: tuple[int, int], file_bytes: int) -> Iterator[None]:
    """While an image is loaded and converted. Raises ImageError now if it is too large for that.

    `size` (width, height) is that in the file; the image may have been told to load smaller.
    """
    width, height = size
    pixels, bands = width * height, len(image.getbands())
    if pixels > _SUSPECT and pixels * bands // (8 if image.mode == "1" else 1) > _FLAT * file_bytes:
        raise ImageError(f"{width} x {height} pixels in {file_bytes:,} bytes: refused as a decompression bomb")
    # bytes of a pixel as stored, converted, and in between for transparency
    each = 5 if image.mode in ("1", "L") else 8 if image.mode in ("RGB", "CMYK") else 12
    needed = each * image.width * image.height
    if "progressive" in image.info:  # a JPEG of which all coefficients are kept, at its full size, 16 bits each
        needed += 2 * bands * pixels
    if needed > _MOST:
        raise ImageError(
            f"{width} x {height} pixels would take {needed / 1e6:,.0f} MB of memory to decode, more than the "
            f"{_MOST / 1e6:,.0f} MB allowed; store it smaller"
        )
    with _pixels.of(needed) if needed > _FREE else nullcontext():
        if pixels > _LARGE:
            _give_back()
        yield


def _give_back() -> None:
    """Returns freed memory to the system: glibc keeps it for each thread, with eight of them 0.9 GB in place of 0.5."""
    trim = getattr(_c_library(), "malloc_trim", None)
    if trim:
        trim(0)


@cache
def _c_library() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if sys.platform == "linux" else None


def shrinkage(size: tuple[int, int], shorter: float) -> int:
    """The factor by which a large image may be made smaller and still have `shorter` pixels on its shorter side."""
    if size[0] * size[1] <= _LARGE:
        return 1
    return next((factor for factor in (8, 4, 2) if min(size) >= factor * shorter), 1)
