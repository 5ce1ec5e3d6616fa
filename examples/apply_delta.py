"""The reader of an update, for an app: everything that docs/updates.md asks for, with nothing of smallcnn.

    python examples/apply_delta.py OLD DELTA PUBLIC_KEY LINE NEW

PUBLIC_KEY is in hexadecimal, as `smallcnn keygen` prints it. Needs zstandard and cryptography; any language has the
same: zstd, SHA-256 and Ed25519, and for packed files zlib. tests/delta/vectors.json has deltas to test a reader with.
"""

import hashlib
import struct
import sys
import zlib
from pathlib import Path

import zstandard
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

COPY, BYTES, WORDS, FRESH = range(4)


def sha256(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


def require(right: bool, what: str) -> None:
    if not right:
        raise ValueError(what)


def apply(old: bytes, delta: bytes, trusted: bytes, line: str) -> bytes:
    """The new file. Raises an exception unless the delta is right, signed with the trusted key, and for this file."""
    require(len(delta) >= 288, "cut short")
    (magic, old_version, new_version, old_size, new_size, old_hash, new_hash, payload_hash, payload_size, count,
     name, signer, signature) = struct.unpack("<8s4I32s32s32s2I64s32s64s", delta[:288])  # fmt: skip
    require(magic == b"SCNNDLT1", "no delta of format 1")
    require(signer == trusted, "signed with another key, or not at all")
    Ed25519PublicKey.from_public_bytes(trusted).verify(signature, delta[:224])
    require(name.rstrip(b"\0").decode() == line, "for another line")
    require(new_version > old_version, "leads back")
    require((len(old), sha256(old)) == (old_size, old_hash), "for another file")
    require(new_size <= 4 * old_size + (16 << 20), "too large")
    require((len(delta) - 288, sha256(delta[288:])) == (payload_size, payload_hash), "damaged")

    blocks = Blocks(delta[288:])
    table = blocks.next(most=new_size)
    open_old, ranges, open_size = opened(old, table, new_size)
    new = closed(applied(open_old, blocks, count, open_size), table, ranges)
    require(sha256(new) == new_hash, "damaged")
    return new


class Blocks:
    """The blocks of the payload: the size of a zstd frame, and the frame."""

    def __init__(self, payload: bytes) -> None:
        self.rest = payload

    def next(self, size: int = -1, dictionary: bytes = b"", most: int = 0) -> bytes:
        """The content of the next block, of exactly `size` bytes, or of at most `most`."""
        (length,) = struct.unpack_from("<I", self.rest)
        frame, self.rest = self.rest[4 : 4 + length], self.rest[4 + length :]
        stated = zstandard.get_frame_parameters(frame).content_size if length else 0
        require(stated == size or (size < 0 and stated <= most), "a block of a wrong size")
        raw = dictionary and zstandard.ZstdCompressionDict(dictionary, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
        return zstandard.ZstdDecompressor(dict_data=raw or None).decompress(frame) if stated else b""


def applied(old: bytes, blocks: Blocks, count: int, new_size: int) -> bytes:
    """The steps, both files open."""
    require(1 <= count <= 65536, "too many steps")
    steps = list(struct.iter_unpack("<4I", blocks.next(16 * count)))
    require(all(start + size <= len(old) for _, start, size, _ in steps), "reads beyond the old file")
    require(all(kind == FRESH or size == length for kind, _, size, length in steps), "lengths that do not fit")
    require(sum(length for *_, length in steps) == new_size, "steps that do not fill the file")
    require(sum(size for kind, _, size, _ in steps if kind == FRESH) <= 2 * len(old), "too large dictionaries")
    changes = iter(blocks.next(sum(length for kind, *_, length in steps if kind == BYTES)))
    words = [
        word
        for kind, start, size, _ in steps
        if kind == WORDS
        for (word,) in struct.iter_unpack("<I", old[start : start + size])
    ]
    planes = [blocks.next(len(words)) for _ in range(4)]
    order = sorted(range(len(words)), key=lambda i: words[i] >> 23 & 255)  # equal ones as they come
    for i, a, b, c, d in zip(order, *planes, strict=True):
        folded = a | b << 8 | c << 16 | d << 24
        words[i] = (words[i] + (folded >> 1 ^ -(folded & 1))) & 0xFFFFFFFF
    changed, new = iter(words), bytearray()
    for kind, start, size, length in steps:
        before = old[start : start + size]
        if kind == COPY:
            new += before
        elif kind == BYTES:
            new += bytes((byte + next(changes)) & 255 for byte in before)
        elif kind == WORDS:
            new += b"".join(next(changed).to_bytes(4, "little") for _ in range(length // 4))
        else:
            require(kind == FRESH, "an unknown kind of step")
            new += blocks.next(length, before)
    require(not blocks.rest, "bytes that no step uses")
    return bytes(new)


# From here on only what packed model files need.


def opened(old: bytes, table: bytes, new_size: int) -> tuple[bytes, list[tuple[int, ...]], int]:
    """The open old file, the ranges of the new one (offset, size, blocks), and the size of the open new file."""
    if not table:
        return old, [], new_size
    old_count, new_count, open_size = struct.unpack_from("<3I", table)
    entries = list(struct.iter_unpack("<3I", table[12 : 12 + 12 * (old_count + new_count)]))
    require(open_size <= 8 * new_size, "too large")
    require(sum(count for *_, count in entries[old_count:]) <= 1 << 14, "too many blocks")
    parts, at = [], 0
    for start, size, open_length in entries[:old_count]:
        require(at <= start <= start + size <= len(old) and open_length <= 8 * size, "a wrong range")
        parts += [old[at:start], inflated(old[start : start + size], open_length)]
        at = start + size
    return b"".join([*parts, old[at:]]), entries[old_count:], open_size


def inflated(packed: bytes, size: int) -> bytes:
    """The contents of deflate streams without headers, one after the other."""
    found = b""
    while packed:
        stream = zlib.decompressobj(-15)
        found += stream.decompress(packed, size - len(found) + 1)
        require(stream.eof and len(found) <= size, "a wrong range")
        packed = stream.unused_data
    require(len(found) == size, "a wrong range")
    return found


def closed(new: bytes, table: bytes, ranges: list[tuple[int, ...]]) -> bytes:
    """The new file: each range becomes its deflate blocks again."""
    at = len(table) and 12 + 12 * (sum(struct.unpack_from("<2I", table)))
    heads = at + 8 * sum(count for *_, count in ranges)
    parts, end = [], 0
    for start, size, count in ranges:
        require(end <= start <= start + size <= len(new), "a wrong range")
        parts.append(new[end:start])
        bits, end = [], start
        for _ in range(count):
            literals, length = struct.unpack_from("<2I", table, at)
            head = bits_of(table[heads : heads + (length + 7) // 8])[:length]
            bits.append(head)
            code = code_of(head)
            bits += [code[byte] for byte in new[end : end + literals]]
            bits.append(code.get(256, ""))
            if head[0] == "1":  # the last block of a stream
                bits = ["".join(bits)]
                bits.append("0" * (-len(bits[0]) % 8))
            at, heads, end = at + 8, heads + (length + 7) // 8, end + literals
        require(end == start + size, "blocks that do not fit their contents")
        text = "".join(bits)
        parts.append(bytes(int(text[i : i + 8][::-1], 2) for i in range(0, len(text), 8)))
    return b"".join([*parts, new[end:]])


def bits_of(content: bytes) -> str:
    """The bits of bytes, the lowest first."""
    return "".join(f"{byte:08b}"[::-1] for byte in content)


def code_of(head: str) -> dict[int, str]:
    """The code of a deflate block (RFC 1951, 3.2): the bits of each literal and, 256, of the end."""
    if head[1:3] == "00":  # stored
        return {byte: bits_of(bytes([byte])) for byte in range(256)}
    if head[1:3] == "10":  # the fixed code
        return canonical([8] * 144 + [9] * 112 + [7] * 24 + [8] * 8)
    at = 3

    def number(count: int) -> int:
        nonlocal at
        at += count
        return int(head[at - count : at][::-1], 2)

    literals, distances, count = number(5) + 257, number(5) + 1, number(4) + 4
    first = [0] * 19
    for symbol in (16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15)[:count]:
        first[symbol] = number(3)
    code = {bits: symbol for symbol, bits in canonical(first).items()}
    lengths: list[int] = []
    while len(lengths) < literals + distances:
        bits = head[at : at + 1]
        while bits not in code:
            require(at + len(bits) < len(head), "a head without an end")
            bits = head[at : at + len(bits) + 1]
        at += len(bits)
        if code[bits] < 16:
            lengths.append(code[bits])
        elif code[bits] == 16:
            lengths += lengths[-1:] * (number(2) + 3)
        else:
            lengths += [0] * (number(3) + 3 if code[bits] == 17 else number(7) + 11)
    return canonical(lengths[:literals])


def canonical(lengths: list[int]) -> dict[int, str]:
    """The code words of these lengths, in the order of RFC 1951, 3.2.2."""
    code, value = {}, 0
    for length in range(1, 16):
        value <<= 1
        for symbol in (symbol for symbol, each in enumerate(lengths) if each == length):
            code[symbol] = f"{value:0{length}b}"
            value += 1
    return code


def main() -> None:
    if len(sys.argv) != 6:
        sys.exit("usage: apply_delta.py OLD DELTA PUBLIC_KEY LINE NEW")
    old, delta, key, line, out = sys.argv[1:]
    new = apply(Path(old).read_bytes(), Path(delta).read_bytes(), bytes.fromhex(key), line)
    temporary = Path(f"{out}.part")
    temporary.write_bytes(new)
    temporary.replace(out)


if __name__ == "__main__":
    main()
