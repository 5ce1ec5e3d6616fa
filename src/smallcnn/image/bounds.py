"""Limits on decoding memory: for one image, and for all images that threads decode at the same time."""

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from PIL import Image

from smallcnn.errors import ImageError
from smallcnn.system.memory import give_back

_MOST = 600_000_000
"""Bytes for all images being decoded: one of 75 million pixels in RGB, or of 50 million with transparency."""

_MOST_PACKED = 128 << 20  # bytes for all their files read from archives

_FREE = 1 << 20  # bytes up to which an image is not counted: a thread decodes one at a time, and small ones are quick
_LARGE = 8_000_000  # pixels above which an image is reduced as soon as it is decoded
_SUSPECT = 32_000_000  # pixels above which the pixel data is compared with the file size
_FLAT = 500  # largest ratio of pixel data to file size; photographs have 3 to 30, two-colour plans up to 100


class _Room:
    """Admits threads while there is room for them; one that needs more than the whole room runs alone."""

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
    """A context that reserves room for a file of `size` bytes. Enter it before `room_for`, never after."""
    return _packed.of(size) if size > _FREE else nullcontext()


@contextmanager
def room_for(image: Image.Image, size: tuple[int, int], file_bytes: int) -> Iterator[None]:
    """A context that reserves room to load and convert an image. Raises ImageError if the image is too large.

    `size` (width, height) is that in the file; the image may be set up to load smaller.
    """
    width, height = size
    pixels, bands = width * height, len(image.getbands())
    if pixels > _SUSPECT and pixels * bands // (8 if image.mode == "1" else 1) > _FLAT * file_bytes:
        raise ImageError(f"{width} x {height} pixels in {file_bytes:,} bytes: refused as a decompression bomb")
    # bytes per pixel: as stored, as converted, and intermediate for transparency
    each = 5 if image.mode in ("1", "L") else 8 if image.mode in ("RGB", "CMYK") else 12
    needed = each * image.width * image.height
    if "progressive" in image.info:  # a progressive JPEG keeps all 16-bit coefficients at full size
        needed += 2 * bands * pixels
    if needed > _MOST:
        raise ImageError(
            f"{width} x {height} pixels would take {needed / 1e6:,.0f} MB of memory to decode, more than the "
            f"{_MOST / 1e6:,.0f} MB allowed; store it smaller"
        )
    with _pixels.of(needed) if needed > _FREE else nullcontext():
        if pixels > _LARGE:
            give_back()
        yield


def shrinkage(size: tuple[int, int], shorter: float) -> int:
    """The factor by which to reduce a large image so that its shorter side keeps at least `shorter` pixels."""
    if size[0] * size[1] <= _LARGE:
        return 1
    return next((factor for factor in (8, 4, 2) if min(size) >= factor * shorter), 1)
