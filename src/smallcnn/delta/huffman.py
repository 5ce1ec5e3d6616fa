"""Deflate blocks of literals alone (RFC 1951), bit by bit: their contents, and the same bits from contents and heads.

Packed model files hold such blocks. Deflating the contents again need not give the same bits with another zlib, so a
delta keeps each block's head: its first bits up to the first literal, which hold the code.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from smallcnn.errors import DeltaError

Bytes = npt.NDArray[np.uint8]
Numbers = npt.NDArray[np.int64]

_STORED, _FIXED, _DYNAMIC = range(3)
_END = 256
_LONGEST = 15
_CHUNK = 1 << 16
_ORDER = (16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15)
_FIXED_LENGTHS = [8] * 144 + [9] * 112 + [7] * 24 + [8] * 8


@dataclass(frozen=True, slots=True)
class Block:
    """A block of `literals` bytes. `head` has its bits before them, the lowest bit of a byte first, `bits` of them.

    The head of a stored block ends with its length. The zeros that fill the last byte after a final block belong to
    none.
    """

    literals: int
    bits: int
    head: bytes


class _Bits:
    """Bits of deflate, the lowest of each byte first."""

    def __init__(self, content: bytes) -> None:
        self.content, self.at = content, 0

    def peek(self) -> int:
        """At least 17 bits from here on; zeros beyond the end."""
        byte = self.at >> 3
        return int.from_bytes(self.content[byte : byte + 3], "little") >> (self.at & 7)

    def take(self, count: int) -> int:
        """The next bits, at most 16. Raises DeltaError beyond the end."""
        value = self.peek() & ((1 << count) - 1)
        self.at += count
        if self.at > 8 * len(self.content):
            raise DeltaError("a deflate block ends too early")
        return value


def contents(packed: bytes) -> tuple[bytes, list[Block]]:
    """What whole streams of literals contain, one stream after the other, and their blocks.

    Raises DeltaError if `packed` is anything else, or does not come back from them.
    """
    bits, found, written = _Bits(packed), list[Block](), bytearray()
    while bits.at < 8 * len(packed):
        start, before = bits.at, len(written)
        final, kind = bits.take(1), bits.take(2)
        if kind == _STORED:
            bits.at += -bits.at % 8
            size = bits.take(16)
            if bits.take(16) != size ^ 0xFFFF:
                raise DeltaError("a stored deflate block of no certain length")
            head, first = bits.at, bits.at // 8
            written += packed[first : first + size]
            bits.at += 8 * size
        else:
            lengths = _lengths(bits) if kind == _DYNAMIC else _FIXED_LENGTHS
            head = bits.at
            _literals(bits, _table(lengths), written)
        found.append(Block(len(written) - before, head - start, _cut(packed, start, head)))
        if final:
            bits.at += -bits.at % 8
    if deflated(written, found) != packed:
        raise DeltaError("not deflate streams of literals alone")
    return bytes(written), found


def deflated(content: bytes | bytearray | memoryview, blocks: Sequence[Block]) -> bytes:
    """The bits of `blocks` with these contents. Raises DeltaError if a block's code does not have one of the bytes."""
    literals, at, writer = np.frombuffer(content, np.uint8), 0, _Writer()
    for block in blocks:
        head = _Bits(block.head)
        final, kind = head.take(1), head.take(2)
        writer.add(_unpacked(block.head, block.bits))
        if kind == _STORED:
            codes, lengths = np.arange(256), np.full(256, 8)
        else:
            codes, lengths = _codes(_lengths(head) if kind == _DYNAMIC else _FIXED_LENGTHS)
        for bits in _coded(literals[at : at + block.literals], codes, lengths):
            writer.add(bits)
        if kind != _STORED:
            for bits in _coded(np.array([_END]), codes, lengths):
                writer.add(bits)
        if final:
            writer.fill()
        at += block.literals
    if at != len(literals):
        raise DeltaError(f"blocks of {at:,} literals for {len(literals):,} bytes")
    return bytes(writer.done)


def _lengths(bits: _Bits) -> list[int]:
    """The lengths of the codes of a dynamic block, after the three bits of its kind."""
    literals, distances, count = bits.take(5) + 257, bits.take(5) + 1, bits.take(4) + 4
    first = [0] * 19
    for symbol in _ORDER[:count]:
        first[symbol] = bits.take(3)
    table, lengths = _table(first), list[int]()
    while len(lengths) < literals + distances:
        symbol = _symbol(bits, table)
        if symbol < 16:
            lengths.append(symbol)
        elif symbol == 16:
            lengths += lengths[-1:] * (3 + bits.take(2))
        else:
            lengths += [0] * (3 + bits.take(3) if symbol == 17 else 11 + bits.take(7))
    return lengths[:literals]


def _codes(lengths: Sequence[int]) -> tuple[Numbers, Numbers]:
    """The canonical code of each symbol, its first bit lowest, and its length, 0 if it has none."""
    codes, code = np.zeros(len(lengths), np.int64), 0
    for length in range(1, _LONGEST + 1):
        code <<= 1
        for symbol in (symbol for symbol, each in enumerate(lengths) if each == length):
            codes[symbol] = int(f"{code:0{length}b}"[-length:][::-1], 2)
            code += 1
    return codes, np.array(lengths, np.int64)


def _table(lengths: Sequence[int]) -> list[int]:
    """For each 15 bits the symbol that they start with, times 16, plus the length of its code; 0 if there is none."""
    codes, _ = _codes(lengths)
    table = np.zeros(1 << _LONGEST, np.int64)
    for symbol, length in enumerate(lengths):
        if length:
            table[codes[symbol] :: 1 << length] = symbol << 4 | length
    return table.tolist()


def _symbol(bits: _Bits, table: Sequence[int]) -> int:
    """The next symbol."""
    found = table[bits.peek() & ((1 << _LONGEST) - 1)]
    if not found:
        raise DeltaError("a deflate block with bits that are no code")
    bits.take(found & 15)
    return found >> 4


def _literals(bits: _Bits, table: Sequence[int], written: bytearray) -> None:
    """Reads literals up to the end of a block."""
    while (symbol := _symbol(bits, table)) < _END:
        written.append(symbol)
    if symbol > _END:
        raise DeltaError("a deflate block that repeats what was before")


def _coded(symbols: npt.NDArray[np.integer], codes: Numbers, lengths: Numbers) -> Iterator[Bytes]:
    """The bits of symbols, one to a byte."""
    for start in range(0, len(symbols), _CHUNK):
        some = symbols[start : start + _CHUNK]
        if some.max() >= len(lengths) or not (sizes := lengths[some]).all():
            raise DeltaError("a byte that the code of its block does not have")
        ends, values = np.cumsum(sizes), codes[some]
        bits = np.zeros(int(ends[-1]), np.uint8)
        for place in range(int(sizes.max())):
            longer = sizes > place
            bits[(ends - sizes)[longer] + place] = values[longer] >> place & 1
        yield bits


class _Writer:
    """Collects bits to bytes."""

    def __init__(self) -> None:
        self.done, self.rest = bytearray(), np.empty(0, np.uint8)

    def add(self, bits: Bytes) -> None:
        """Appends bits, one to a byte."""
        bits = np.concatenate([self.rest, bits])
        whole = len(bits) - len(bits) % 8
        self.done += np.packbits(bits[:whole], bitorder="little").tobytes()
        self.rest = bits[whole:]

    def fill(self) -> None:
        """Fills the last byte with zeros."""
        self.add(np.zeros(-len(self.rest) % 8, np.uint8))


def _unpacked(content: bytes, count: int) -> Bytes:
    return np.unpackbits(np.frombuffer(content, np.uint8), count=count, bitorder="little")


def _cut(content: bytes, start: int, end: int) -> bytes:
    """The bits from `start` to `end` as bytes."""
    value = int.from_bytes(content[start >> 3 : (end + 7) >> 3], "little") >> (start & 7)
    return (value & ((1 << (end - start)) - 1)).to_bytes((end - start + 7) // 8, "little")
