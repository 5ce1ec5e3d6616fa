"""The seal of a compiled file: what is checked before its code is loaded, its integrity and the machine it is for.

the library | JSON: format, target | uint32 length of the JSON | uint32 checksum of all before | b"smallcnn"
"""

import io
import json
import os
import platform
import struct
import sys
import zlib
from typing import BinaryIO

import numpy as np

from smallcnn.errors import FileError

FORMAT = 2
_MAGIC = b"smallcnn"
_SEAL = struct.Struct("<II8s")
_CHUNK, _BLOCK = 1 << 20, 1 << 16


def seal(library: bytes, target: str) -> bytes:
    """`library` with the trailer that is checked before loading."""
    facts = json.dumps({"format": FORMAT, "target": target}).encode()
    content = library + facts + struct.pack("<I", len(facts))
    return content + struct.pack("<I", _checksum(io.BytesIO(content), len(content))) + _MAGIC


def check(file: BinaryIO) -> str:
    """Raises FileError unless the file is whole and for this system; returns its target."""
    size = os.fstat(file.fileno()).st_size
    file.seek(max(size - _SEAL.size, 0))
    end = file.read(_SEAL.size)
    if len(end) < _SEAL.size or not end.endswith(_MAGIC):
        raise FileError("not written by `smallcnn compile`, or cut short")
    length, checksum, _ = _SEAL.unpack(end)
    if _checksum(file, size - 12) != checksum:
        raise FileError("damaged: its checksum does not match")
    file.seek(size - _SEAL.size - length)
    try:
        facts = json.loads(file.read(length))
        version, target = facts["format"], str(facts["target"])
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise FileError("damaged: its last lines do not name its format and target") from error
    if version != FORMAT:
        raise FileError(f"written in format {version}, this smallcnn reads {FORMAT}; compile it again")
    here = _PLATFORMS.get((sys.platform, platform.machine()), f"{sys.platform} on {platform.machine()}")
    if not f"{target}-".startswith(f"{here}-"):
        raise FileError(f"compiled for {target}, this machine is {here}")
    return target


_PLATFORMS = {
    ("linux", "x86_64"): "x86-64-linux",
    ("linux", "aarch64"): "arm-64-linux",
    ("android", "aarch64"): "arm-64-android",
    ("win32", "AMD64"): "x86-64-windows",
}


def _checksum(file: BinaryIO, size: int) -> int:
    """CRC-32 of the sums over each 64 KiB and of the rest: detects a changed byte, and is faster than a full CRC-32."""
    file.seek(0)
    checksum, reader = 0, io.BufferedReader(file, _CHUNK)  # type: ignore[type-var]  # whole chunks
    while size > 0 and (piece := reader.read(min(size, _CHUNK))):
        whole = len(piece) - len(piece) % _BLOCK
        sums = np.frombuffer(piece, np.uint64, whole // 8).reshape(-1, _BLOCK // 8).sum(axis=1)
        checksum = zlib.crc32(piece[whole:], zlib.crc32(sums.tobytes(), checksum))
        size -= len(piece)
    reader.detach()
    return checksum
