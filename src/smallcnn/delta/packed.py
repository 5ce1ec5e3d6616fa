"""Packed ranges of a file, laid open: in the open file their contents, deflated in the file itself, lie in their place.

The table of a delta says where they are in both files:

    4, 4, 4     number of packed ranges of the old and the new file, size of the open new file
    4, 4, 4     for each of the old file: offset, size, size of the contents
    4, 4, 4     for each of the new file: offset in the open file, size of the contents, number of blocks
    4, 4        for each block: literals, bits of its head
                the heads, each from a new byte on
"""

import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from smallcnn.delta.huffman import Block, contents, deflated
from smallcnn.delta.tensors import byte_tensors
from smallcnn.errors import DeltaError

_THREE, _TWO = struct.Struct("<III"), struct.Struct("<II")
_LEAST = 64
MOST_GROWTH = 8
"""A literal takes at least a bit."""
MOST_BLOCKS = 1 << 14
"""Deflate blocks of a file, each of which takes a reader a millisecond."""


@dataclass(frozen=True, slots=True)
class Packed:
    """A packed range: where it starts in the file and in the open file, its size in both, and its blocks."""

    start: int
    size: int
    open_start: int
    open_size: int
    blocks: tuple[Block, ...] = ()


@dataclass(frozen=True, slots=True)
class Table:
    """The packed ranges of both files, in order; the size of the open new file. Of the old one no blocks are needed."""

    old: Sequence[Packed]
    new: Sequence[Packed]
    open_size: int


def opened(content: bytes) -> tuple[bytes, list[Packed]]:
    """The open file, and its packed ranges: tensors of bytes that are whole deflate streams of literals alone."""
    parts, found, at, size = [], list[Packed](), 0, 0
    for start, end in byte_tensors(content):
        if end - start < _LEAST:
            continue
        try:
            inside, blocks = contents(content[start:end])
            if _inflated(content[start:end], len(inside)) != inside:
                continue
        except DeltaError:
            continue
        parts += [content[at:start], inside]
        size += start - at
        found.append(Packed(start, end - start, size, len(inside), tuple(blocks)))
        at, size = end, size + len(inside)
    return b"".join([*parts, content[at:]]), found


def reopened(content: bytes, ranges: Iterable[Packed]) -> bytes:
    """The open file by its table. Raises DeltaError if the ranges are not packed as it says."""
    parts, at = [], 0
    for each in ranges:
        parts += [content[at : each.start], _inflated(content[each.start : each.start + each.size], each.open_size)]
        at = each.start + each.size
    return b"".join([*parts, content[at:]])


def closed(content: bytes | bytearray, ranges: Iterable[Packed]) -> bytes:
    """The file of an open one. Raises DeltaError if the blocks do not fit the contents."""
    view, parts, at = memoryview(content), list[bytes | memoryview](), 0
    for each in ranges:
        end = each.open_start + each.open_size
        parts += [view[at : each.open_start], deflated(view[each.open_start : end], each.blocks)]
        at = end
    return b"".join([*parts, view[at:]])


def table_to_bytes(table: Table) -> bytes:
    """See above; nothing if no file has packed ranges."""
    if not table.old and not table.new:
        return b""
    blocks = [block for each in table.new for block in each.blocks]
    return b"".join([
        _THREE.pack(len(table.old), len(table.new), table.open_size),
        *(_THREE.pack(each.start, each.size, each.open_size) for each in table.old),
        *(_THREE.pack(each.open_start, each.open_size, len(each.blocks)) for each in table.new),
        *(_TWO.pack(block.literals, block.bits) for block in blocks),
        *(block.head for block in blocks),
    ])  # fmt: skip


def table_from_bytes(content: bytes, old_size: int, new_size: int) -> Table:
    """The inverse of `table_to_bytes`. Raises DeltaError if ranges leave their file, overlap or grow too much."""
    if not content:
        return Table((), (), new_size)
    try:
        return _table(content, old_size, new_size)
    except struct.error as error:
        raise DeltaError("damaged: its table of packed ranges ends too early") from error


def _table(content: bytes, old_size: int, new_size: int) -> Table:
    old_count, new_count, open_size = _THREE.unpack_from(content)
    at, end, moved = _THREE.size, 0, 0
    old, new, counts = list[Packed](), list[Packed](), list[int]()
    for _ in range(old_count):
        start, size, inside = _THREE.unpack_from(content, at)
        _check(end <= start and start + size <= old_size and inside <= MOST_GROWTH * size)
        old.append(Packed(start, size, start + moved, inside))
        at, end, moved = at + _THREE.size, start + size, moved + inside - size
    _check(open_size <= MOST_GROWTH * new_size)
    ranges, end = list[tuple[int, int]](), 0
    for _ in range(new_count):
        start, size, count = _THREE.unpack_from(content, at)
        _check(end <= start and start + size <= open_size)
        ranges.append((start, size))
        counts.append(count)
        at, end = at + _THREE.size, start + size
    heads = at + _TWO.size * sum(counts)
    _check(sum(counts) <= MOST_BLOCKS and heads <= len(content))
    for (start, size), count in zip(ranges, counts, strict=True):
        blocks = []
        for _ in range(count):
            literals, bits = _TWO.unpack_from(content, at)
            length = (bits + 7) // 8
            _check(heads + length <= len(content) and bits)
            blocks.append(Block(literals, bits, content[heads : heads + length]))
            at, heads = at + _TWO.size, heads + length
        _check(sum(block.literals for block in blocks) == size)
        new.append(Packed(0, 0, start, size, tuple(blocks)))
    _check(heads == len(content))
    return Table(old, new, open_size)


def _check(right: bool) -> None:
    if not right:
        raise DeltaError("damaged: its table of packed ranges does not fit the files")


def _inflated(packed: bytes, size: int) -> bytes:
    """The contents of whole streams, `size` bytes together: nothing larger is unpacked."""
    found = bytearray()
    while packed:
        stream = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            found += stream.decompress(packed, size - len(found) + 1)
        except zlib.error as error:
            raise DeltaError(f"damaged: a packed range of the old file cannot be read ({error})") from error
        if not stream.eof:
            break
        packed = stream.unused_data
    if packed or len(found) != size:
        raise DeltaError("damaged: a packed range of the old file has other contents than its table says")
    return bytes(found)
