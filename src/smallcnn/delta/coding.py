"""The payload of a delta: a table of packed ranges, steps, differences and fresh bytes, as zstd frames.

Words are float32 or int32. Their difference is taken between bit patterns, modulo 2^32, and folded so that small ones
of either sign are small numbers: 0, -1, 1, -2, ... become 0, 1, 2, 3. All words of a delta are ordered by the exponent
of the old word (bits 23 to 30), those of one exponent as they lie in the new file: a change of a given size moves the
bits of small floats more than those of large ones. Their bytes are stored as four planes, the lowest first.

On two MobileNetV2 one fine-tuning epoch apart this takes 48.3 % of the weights' bytes; without the order 50.4 %, with
exclusive or in place of the difference 51.3 %.
"""

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from smallcnn.delta.layout import STEP_BYTES, Header, Kind, Step, steps_from_bytes, steps_to_bytes
from smallcnn.delta.packed import closed, reopened, table_from_bytes
from smallcnn.errors import DeltaError

Words = npt.NDArray[np.uint32]
Bytes = npt.NDArray[np.uint8]

_LEVEL = 19  # zstd's highest that needs no more memory to read
_SIZE = struct.Struct("<I")
_ZERO, _ONE = np.uint32(0), np.uint32(1)


def encode(steps: Sequence[Step], old: bytes, new: bytes, table: bytes = b"") -> bytes:
    """The payload with which `decode` makes `new` from `old`, both open if there is a `table` of packed ranges."""
    old_bytes, new_bytes, old_words, new_words, fresh = [], [], [], [], []
    at = 0
    for step in steps:
        before, after = old[step.old : step.old + step.old_length], new[at : at + step.length]
        at += step.length
        match step.kind:
            case Kind.BYTES:
                old_bytes.append(before)
                new_bytes.append(after)
            case Kind.WORDS:
                old_words.append(before)
                new_words.append(after)
            case Kind.FRESH:
                fresh.append(_block(after, before))
    changed = _bytes(b"".join(new_bytes)) - _bytes(b"".join(old_bytes))
    words = _words(b"".join(old_words))
    folded = fold(_words(b"".join(new_words)) - words)[_order(words)]
    blocks = [_block(table), _block(steps_to_bytes(list(steps))), _block(changed.tobytes())]
    blocks += [_block(plane.tobytes()) for plane in planes(folded)]
    return b"".join(blocks + fresh)


def decode(header: Header, payload: memoryview, old: bytes) -> bytes:
    """The new file. Raises DeltaError if the payload is damaged.

    Memory stays below six times that of the larger file, or of the contents of its packed ranges.
    """
    blocks = _Blocks(payload)
    table = table_from_bytes(blocks.read_up_to(header.new_size), len(old), header.new_size)
    new = closed(_applied(blocks, header.steps, table.open_size, reopened(old, table.old)), table.new)
    if len(new) != header.new_size:
        raise DeltaError(f"damaged: it makes {len(new):,} bytes, its header says {header.new_size:,}")
    return new


def _applied(blocks: "_Blocks", count: int, new_size: int, old: bytes) -> bytearray:
    """The new file of all blocks after the table, the steps first; both files open."""
    steps = steps_from_bytes(blocks.read(STEP_BYTES * count), len(old), new_size)
    sizes = {kind: sum(step.length for step in steps if step.kind == kind) for kind in Kind}
    changed = _bytes(blocks.read(sizes[Kind.BYTES]))
    count = sizes[Kind.WORDS] // 4
    folded = np.zeros(count, np.uint32)
    for shift in range(0, 32, 8):
        folded |= _bytes(blocks.read(count)).astype(np.uint32) << shift
    words = np.empty(count, np.uint32)
    at = 0
    for step in steps:
        if step.kind == Kind.WORDS:
            words[at : at + step.length // 4] = _words(old, step.old, step.length // 4)
            at += step.length // 4
    words[_order(words)] += unfold(folded)
    new = bytearray(new_size)
    at = from_bytes = from_words = 0
    for step in steps:
        before = memoryview(old)[step.old : step.old + step.old_length]
        match step.kind:
            case Kind.COPY:
                after: Any = before
            case Kind.BYTES:
                after = (_bytes(before) + changed[from_bytes : from_bytes + step.length]).data
                from_bytes += step.length
            case Kind.WORDS:
                after = words[from_words : from_words + step.length // 4].astype("<u4").view(np.uint8).data
                from_words += step.length // 4
            case Kind.FRESH:
                after = blocks.read(step.length, before)
        new[at : at + step.length] = after
        at += step.length
    blocks.end()
    return new


def fold(difference: Words) -> Words:
    """Differences modulo 2^32 as 0, -1, 1, -2, ... -> 0, 1, 2, 3, ..."""
    return (difference << _ONE) ^ (_ZERO - (difference >> np.uint32(31)))


def unfold(folded: Words) -> Words:
    """The inverse of `fold`."""
    return (folded >> _ONE) ^ (_ZERO - (folded & _ONE))


def planes(words: Words) -> npt.NDArray[np.uint8]:
    """(N,) -> (4, N): the bytes of the words, the lowest first."""
    return np.ascontiguousarray(words.astype("<u4").view(np.uint8).reshape(-1, 4).T)


def _order(old: Words) -> npt.NDArray[np.intp]:
    """The order of words in the planes: by exponent, then as they come."""
    return np.argsort(((old >> 23) & 0xFF).astype(np.uint8), kind="stable")


def _words(content: bytes, offset: int = 0, count: int = -1) -> Words:
    return np.frombuffer(content, "<u4", count, offset).astype(np.uint32)


def _bytes(content: bytes | memoryview) -> Bytes:
    return np.frombuffer(content, np.uint8)


def compressed(content: bytes, prefix: bytes = b"", level: int = _LEVEL) -> bytes:
    """A zstd frame that states its size; `prefix` is its dictionary, as raw content."""
    import zstandard

    return zstandard.ZstdCompressor(level=level, dict_data=_dictionary(prefix)).compress(content)


def _dictionary(prefix: bytes | memoryview) -> Any:
    import zstandard

    if not len(prefix):
        return None
    return zstandard.ZstdCompressionDict(bytes(prefix), dict_type=zstandard.DICT_TYPE_RAWCONTENT)


def _block(content: bytes, prefix: bytes = b"") -> bytes:
    """A frame and its size; only the size, 0, if there is no content."""
    frame = compressed(content, prefix) if content else b""
    return _SIZE.pack(len(frame)) + frame


class _Blocks:
    """The blocks of a payload, read one after the other."""

    def __init__(self, payload: memoryview) -> None:
        self.rest = payload

    def read_up_to(self, most: int) -> bytes:
        """The content of the next block, at most `most` bytes."""
        import zstandard

        try:
            stated = zstandard.get_frame_parameters(self.rest[_SIZE.size :]).content_size if any(self.rest[:4]) else 0
        except zstandard.ZstdError as error:
            raise DeltaError(f"damaged: {error}") from error
        if stated > most:
            raise DeltaError("damaged: its table of packed ranges is larger than the new file")
        return self.read(stated)

    def read(self, size: int, prefix: bytes | memoryview = b"") -> bytes:
        """The content of the next block, which must have `size` bytes: nothing larger is unpacked."""
        import zstandard

        if len(self.rest) < _SIZE.size:
            raise DeltaError("damaged: its payload ends too early")
        (length,) = _SIZE.unpack_from(self.rest)
        frame, self.rest = self.rest[_SIZE.size : _SIZE.size + length], self.rest[_SIZE.size + length :]
        if not size and not length:
            return b""
        try:
            stated = zstandard.get_frame_parameters(frame).content_size
            if len(frame) != length or stated != size:
                raise DeltaError("damaged: a block of another size than its steps need")
            return zstandard.ZstdDecompressor(dict_data=_dictionary(prefix)).decompress(frame, allow_extra_data=False)
        except zstandard.ZstdError as error:
            raise DeltaError(f"damaged: {error}") from error

    def end(self) -> None:
        """Raises DeltaError if there are blocks that no step uses."""
        if len(self.rest):
            raise DeltaError("damaged: its payload has bytes that no step uses")
