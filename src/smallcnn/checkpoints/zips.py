"""Opens untrusted zip archives without letting them cost more than their size allows."""

import struct
import zipfile
from pathlib import Path

from smallcnn.errors import FileError

_LONGEST_LIST = 8 * 2**20  # bytes of the member list: about 100,000 members, where a network has a few hundred
_MOST_COMPRESSED = 100  # times its file's size: weights compress to half, zeros to a thousandth
_ALWAYS_ALLOWED = 64 * 2**20  # bytes
_END, _END64 = b"PK\x05\x06", b"PK\x06\x06"
_TAIL = 22 + 65535 + 20 + 56  # the two end records, the longest comment, the pointer between them


def open_zip(path: Path) -> zipfile.ZipFile:
    """The archive, open for reading. Raises FileError if it is damaged or would unpack to far more than its size."""
    size = path.stat().st_size
    if _list_bytes(path, size) > _LONGEST_LIST:
        raise FileError("damaged: its list of members is longer than any network's")
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError, struct.error, OverflowError) as error:
        raise FileError("damaged: a zip archive that is cut off or overwritten") from error
    if sum(member.file_size for member in archive.infolist()) > max(_MOST_COMPRESSED * size, _ALWAYS_ALLOWED):
        archive.close()
        raise FileError("damaged: it claims to hold far more than its size allows")
    return archive


def read_member(archive: zipfile.ZipFile, name: str) -> bytes:
    """The bytes of one member. Raises FileError if it is missing or damaged."""
    try:
        return archive.read(name)
    except Exception as error:  # whatever zipfile and the decompressors raise, MemoryError among it
        raise FileError(f"damaged: {name!r} inside it cannot be read") from error


def _list_bytes(path: Path, size: int) -> int:
    """The claimed length of the member list, from both end records, as zipfile trusts either."""
    with path.open("rb") as file:
        file.seek(max(0, size - _TAIL))
        tail = file.read(_TAIL)
    claimed = [0]
    for mark, place, form in ((_END, 12, "<I"), (_END64, 40, "<Q")):
        at = tail.rfind(mark)
        if at >= 0 and len(tail) >= at + place + struct.calcsize(form):
            claimed += struct.unpack_from(form, tail, at + place)
    return max(length for length in claimed if length != 2**32 - 1)  # that value means: see the other record
