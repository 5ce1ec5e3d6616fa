"""How much memory decoding may take: of one image, and of all that are decoded at the same time by threads."""

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from PIL import Image

from smallcnn.errors import ImageError

_MOST = 720_000_000
"""Bytes for all images that are being decoded: one of 90 million pixels of RGB, or of 60 million with transparency."""

_MOST_PACKED = 128 << 20  # bytes for all their files that come out of an archive

_LARGE = 32_000_000  # pixels from which on an image is made smaller as soon as it is decoded
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
    return _packed.of(size)


@contextmanager
def room_for(image: Image.Image, file_bytes: int) -> Iterator[None]:
    """While an image is loaded and converted. Raises ImageError now if it is too large for that."""
    width, height = image.size
    pixels, bands = width * height, len(image.getbands())
    if pixels > _LARGE and pixels * bands // (8 if image.mode == "1" else 1) > _FLAT * file_bytes:
        raise ImageError(f"{width} x {height} pixels in {file_bytes:,} bytes: refused as a decompression bomb")
    each = (
        5 if image.mode in ("1", "L") else 8 if image.mode in ("RGB", "CMYK") else 12
    )  # as stored, converted, between
    if (needed := each * pixels) > _MOST:
        raise ImageError(
            f"{width} x {height} pixels would take {needed / 1e6:,.0f} MB of memory to decode, more than the "
            f"{_MOST / 1e6:,.0f} MB allowed; store it smaller"
        )
    with _pixels.of(needed):
        yield


def shrinkage(size: tuple[int, int], shorter: float) -> int:
    """The factor by which a large image may be made smaller and still have `shorter` pixels on its shorter side."""
    if size[0] * size[1] <= _LARGE:
        return 1
    return next((factor for factor in (8, 4, 2) if min(size) >= factor * shorter), 1)
