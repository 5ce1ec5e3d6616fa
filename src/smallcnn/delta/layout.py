"""The bytes of a delta file: a header of 288 bytes and a payload. docs/updates.md has the same table for apps.

All numbers are unsigned and little-endian.

    offset  bytes
    0       8       "SCNNDLT1"
    8       4, 4    version that the delta starts from, version that it leads to
    16      4, 4    size of the old file, size of the new file
    24      32, 32  SHA-256 of the old file, SHA-256 of the new file
    88      32      SHA-256 of the payload
    120     4, 4    size of the payload, number of steps
    128     64      name of the model line: UTF-8, filled with zeros
    192     32      public key of the signer (Ed25519); zeros if unsigned
    224     64      signature of bytes 0 to 223; zeros if unsigned
    288             payload

The payload is a sequence of blocks, each the size of a zstd frame (4 bytes) and the frame; size 0 stands for no bytes.
Blocks: the table of packed ranges (see `packed`), steps, differences of bytes, the four planes of the differences of
words, then one for each fresh step.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum

from smallcnn.errors import DeltaError

_HEADER = struct.Struct("<8sIIII32s32s32sII64s32s64s")
_STEP = struct.Struct("<IIII")
_MAGIC = b"SCNNDLT"
_VERSION = b"1"
_SIGNED = 224
_LINE = 9  # of the fields after the magic
_NO_KEY, _NO_SIGNATURE = bytes(32), bytes(64)

MOST_STEPS = 1 << 16
MOST_VERSION = (1 << 32) - 1
_LINE_BYTES = 64
_ROOM = 16 << 20


class Kind(IntEnum):
    """What a step does to write its bytes of the new file. Both files are open, see `packed`."""

    COPY = 0
    """The bytes of the old file."""
    BYTES = 1
    """The bytes of the old file plus differences, each modulo 256."""
    WORDS = 2
    """The words of 4 bytes of the old file plus differences, each modulo 2^32."""
    FRESH = 3
    """A frame of its own, whose dictionary is the range of the old file, which may be empty."""


@dataclass(frozen=True, slots=True)
class Step:
    """The next `length` bytes of the new file, made with the `old_length` bytes at `old` of the old file."""

    kind: Kind
    old: int
    old_length: int
    length: int


@dataclass(frozen=True, slots=True)
class Header:
    """What a delta says about itself. Hashes are SHA-256; `signer` and `signature` are zeros if it is unsigned."""

    old_version: int
    new_version: int
    old_size: int
    new_size: int
    old_hash: bytes
    new_hash: bytes
    payload_hash: bytes
    payload_size: int
    steps: int
    line: str
    signer: bytes = _NO_KEY
    signature: bytes = _NO_SIGNATURE

    @property
    def signed(self) -> bool:
        """Whether it carries a signature, right or wrong."""
        return self.signer != _NO_KEY or self.signature != _NO_SIGNATURE

    def message(self) -> bytes:
        """The bytes that are signed: all of the header before the signature."""
        return self.to_bytes()[:_SIGNED]

    def to_bytes(self) -> bytes:
        """The 288 bytes of the header."""
        return _HEADER.pack(
            _MAGIC + _VERSION, self.old_version, self.new_version, self.old_size, self.new_size, self.old_hash,
            self.new_hash, self.payload_hash, self.payload_size, self.steps, self.line.encode(), self.signer,
            self.signature,
        )  # fmt: skip


HEADER_BYTES = _HEADER.size


def check_line(line: str) -> None:
    """Raises DeltaError unless a header can hold the name of a model line."""
    if not line or not line.isprintable() or len(line.encode(errors="replace")) > _LINE_BYTES:
        raise DeltaError(f"a model line has a name of 1 to {_LINE_BYTES} bytes that can be printed, not {line[:80]!r}")


def check_sizes(old: int, new: int) -> None:
    """Raises DeltaError if a new file is so much larger than the old one that no reader makes room for it."""
    if new > 4 * old + _ROOM or max(old, new) > MOST_VERSION:
        raise DeltaError(
            f"the new file has {new:,} bytes, the old one {old:,}; a delta may lead to four times as many and "
            f"{_ROOM >> 20} MiB, and to less than 4 GiB"
        )


def read_header(content: bytes, size: int) -> Header:
    """The header at the start of a delta of `size` bytes. Raises DeltaError if it is damaged, or no delta."""
    if len(content) < HEADER_BYTES or not content.startswith(_MAGIC):
        raise DeltaError("not a delta, or cut short")
    magic, *fields = _HEADER.unpack_from(content)
    if magic != _MAGIC + _VERSION:
        raise DeltaError(f"a delta of format {magic[len(_MAGIC) :].decode('latin-1')!a}, not 1")
    try:
        fields[_LINE] = fields[_LINE].rstrip(b"\0").decode()
        check_line(fields[_LINE])
    except (UnicodeDecodeError, DeltaError) as error:
        raise DeltaError("damaged: the name of its model line cannot be read") from error
    header = Header(*fields)
    if size != HEADER_BYTES + header.payload_size:
        raise DeltaError(f"cut short or damaged: {size:,} bytes, not {HEADER_BYTES + header.payload_size:,}")
    if not 0 < header.steps <= MOST_STEPS:
        raise DeltaError(f"damaged: {header.steps:,} steps, where 1 to {MOST_STEPS:,} are allowed")
    check_sizes(header.old_size, header.new_size)
    return header


def steps_to_bytes(steps: list[Step]) -> bytes:
    """16 bytes for each step: kind, old, old length, length."""
    return b"".join(_STEP.pack(step.kind, step.old, step.old_length, step.length) for step in steps)


def steps_from_bytes(content: bytes, old_size: int, new_size: int) -> list[Step]:
    """The inverse of `steps_to_bytes`. Raises DeltaError if the steps leave either file, or do not fill the new one."""
    steps, filled, dictionaries = [], 0, 0
    for number, old, old_length, length in _STEP.iter_unpack(content):
        if number not in set(Kind):
            raise DeltaError(f"damaged: no kind of step has the number {number}")
        step = Step(Kind(number), old, old_length, length)
        if old + old_length > old_size or not length:
            raise DeltaError("damaged: a step reads beyond the old file, or writes nothing")
        if (step.kind != Kind.FRESH and old_length != length) or (step.kind == Kind.WORDS and length % 4):
            raise DeltaError("damaged: a step whose lengths do not fit")
        steps.append(step)
        filled += length
        dictionaries += old_length if step.kind == Kind.FRESH else 0
    if dictionaries > 2 * old_size:  # loading them takes time
        raise DeltaError("damaged: its dictionaries have more than twice the bytes of the old file")
    if filled != new_size:
        raise DeltaError(f"damaged: its steps write {filled:,} bytes, its header says {new_size:,}")
    return steps


STEP_BYTES = _STEP.size
