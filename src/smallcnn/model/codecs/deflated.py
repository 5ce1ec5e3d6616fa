"""Bytes without redundancy, by the standard library's deflate with Huffman codes only.

Indices of clusters have no repetitions worth finding, and their frequencies are what can be saved. On the weights of
SqueezeNet 1.1, in 3 to 8 bits and up to a half of them zero, these codes are within 2.5 % of the entropy; zstd's are
within 1.6 %, rANS comes to the entropy. That is less than a format of our own or a package to install is worth.
"""

import zlib
from collections.abc import Sequence

import numpy as np

from smallcnn.errors import FileError

Array = np.ndarray

_WINDOW = -15  # raw deflate: no header, no checksum
_OWN_CODE = 64  # bytes that are worth a Huffman code of their own


def deflate(parts: Sequence[Array]) -> bytes:
    """One stream of vectors of uint8; the codes change with each part that is not too short."""
    packer = zlib.compressobj(9, zlib.DEFLATED, _WINDOW, 9, zlib.Z_HUFFMAN_ONLY)
    written: list[bytes] = []
    for part in parts:
        if written and part.size >= _OWN_CODE:
            written.append(packer.flush(zlib.Z_BLOCK))
        written.append(packer.compress(part.tobytes()))
    return b"".join([*written, packer.flush()])


def deflate_text(text: bytes) -> bytes:
    """One stream of text, whose repetitions are found too."""
    packer = zlib.compressobj(9, zlib.DEFLATED, _WINDOW, 9)
    return packer.compress(text) + packer.flush()


def inflate(content: bytes, most: int) -> bytes:
    """The bytes of a stream, of which no more than `most` are made. Raises FileError if it is damaged or longer."""
    unpacker = zlib.decompressobj(_WINDOW)
    try:
        found = unpacker.decompress(content, most + 1)
    except zlib.error as error:
        raise FileError(f"its packed bytes are damaged ({error})") from error
    if len(found) > most or not unpacker.eof or unpacker.unused_data:
        raise FileError(f"its packed bytes are damaged: not one stream of {most:,} bytes")
    return found


def inflate_parts(content: bytes, sizes: Sequence[int]) -> list[Array]:
    """The inverse of `deflate`: vectors of uint8 of exactly these sizes. Raises FileError if the stream has others."""
    found = np.frombuffer(inflate(content, sum(sizes)), np.uint8)
    if len(found) != sum(sizes):
        raise FileError(f"its packed bytes are damaged: {len(found):,} where there should be {sum(sizes):,}")
    return np.split(found, np.cumsum(sizes)[:-1])
