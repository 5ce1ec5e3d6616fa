"""Opens image files: regular files of an allowed format, told by content. Errors give the real reason."""

import stat
from functools import cache
from pathlib import Path
from typing import IO, BinaryIO

from PIL import Image, ImageFile, TiffImagePlugin, UnidentifiedImageError, features

from smallcnn.errors import ImageError, MissingExtra
from smallcnn.image.depth import mend_planes

SUFFIXES = frozenset({
    ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".bmp", ".gif", ".tif", ".tiff",
    ".ppm", ".pgm", ".pbm", ".pnm", ".avif", ".heic", ".heif", ".hif",
})  # fmt: skip
"""Suffixes of image files, in lower case. The format is always determined from the content, never from the name."""

# No other formats: Pillow would run Ghostscript on an EPS file called x.jpg.
_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "PPM", "WEBP", "TIFF")
_ALLOWED = f"{', '.join(_FORMATS)}, AVIF or HEIC"

_HEAD = 128  # bytes, enough for all brands of an AVIF or HEIC file
_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"mif2", b"msf1"}

# Grey formats that Pillow's TIFF table lacks: 16-bit big-endian with white as the lowest value, and 12-bit in any byte
# order. Only this table can add them; the values are read as they are stored.
for _photometric in (0, 1):
    for _order, _wide in ((b"II", "I;16"), (b"MM", "I;16B")):
        TiffImagePlugin.OPEN_INFO.setdefault((_order, _photometric, (1,), 1, (16,), ()), (_wide, _wide))
        TiffImagePlugin.OPEN_INFO.setdefault((_order, _photometric, (1,), 1, (12,), ()), ("I;16", "I;12"))


def open_file(path: Path) -> BinaryIO:
    """Opens a regular file and nothing else: reading a pipe or a device may never end."""
    kind = path.stat().st_mode
    if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):  # the system has its own message for a folder
        raise ImageError("a pipe, a socket or a device, not a regular file")
    return path.open("rb")


def open_image(file: IO[bytes]) -> ImageFile.ImageFile:
    """The image in a file, not loaded. Raises ImageError, or whatever a decoder raises on damaged data."""
    file.seek(0)
    head = file.read(_HEAD)
    if not head:
        raise ImageError("an empty file")
    file.seek(0)
    boxed = _box_format(head) if head[4:8] == b"ftyp" else None
    try:
        image = Image.open(file, formats=[boxed] if boxed else _FORMATS)
    except UnidentifiedImageError:
        raise ImageError(f"a damaged {boxed} image" if boxed else _why_not(file, head)) from None
    if image.format == "TIFF":
        mend_planes(image)
    return image


def _box_format(head: bytes) -> str | None:
    """AVIF, HEIF or neither, by the brands (ISO/IEC 14496-12) at the start of a file; both need an extra."""
    brands = head[8 : int.from_bytes(head[:4], "big")]
    if b"avif" in brands or b"avis" in brands:
        if not ("avif" in features.modules and features.check("avif")):
            raise ImageError("an AVIF image, which the installed Pillow cannot read; Pillow 11.3 or newer can")
        return "AVIF"
    if not _HEIF_BRANDS & {brands[at : at + 4] for at in range(0, len(brands), 4)}:
        return None  # a video
    if not _can_read_heif():
        raise ImageError(str(MissingExtra("a HEIC image", "heif")))
    return "HEIF"


@cache
def _can_read_heif() -> bool:
    """Registers the format with Pillow, if the extra is installed."""
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


def _why_not(file: IO[bytes], head: bytes) -> str:
    """The reason why Pillow cannot open the file."""
    for name in _FORMATS:
        make, accept = Image.OPEN[name]
        if accept and accept(head[:16]):
            file.seek(0)
            try:
                make(file, "")
            except Exception as error:
                if name == "TIFF" and (samples := _samples(file)):
                    return f"a TIFF of {samples}, which Pillow does not read; store 8 or 16 bits, grey or RGB"
                return f"a damaged {name} image ({' '.join(str(error).split()) or type(error).__name__})"
    return f"not a {_ALLOWED} image"


def _samples(file: IO[bytes]) -> str | None:
    """A TIFF's sample format in words; None if the file does not state it."""
    file.seek(0)
    head = file.read(8)
    try:
        tags = TiffImagePlugin.ImageFileDirectory_v2(head + file.read(8) if head[2] == 43 or head[3] == 43 else head)
        file.seek(tags.next or 0)
        tags.load(file)
        bits, kinds = tags[258], tags.get(339, (1,))
        kind = {1: "unsigned", 2: "signed", 3: "floating-point"}.get(kinds[0], "complex or undefined")
        count, each = tags.get(277, len(bits)), " and ".join(map(str, sorted(set(bits))))
        return f"{count} {kind} sample{'s' * (count != 1)} of {each} bits (photometric {tags.get(262)})"
    except Exception:  # damaged tags raise anything
        return None
