"""Deltas put together by the tables of docs/updates.md, not by the package: also such as it would never write.

`python tests/delta/deltas.py` writes vectors.json anew.
"""

import hashlib
import json
import random
import struct
import tempfile
import zlib
from pathlib import Path

import numpy as np
import zstandard
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from safetensors.numpy import save

VECTORS = Path(__file__).parent / "vectors.json"
SECRET = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")  # RFC 8032, 7.1, test 1
PUBLIC = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
COPY, BYTES, WORDS, FRESH = range(4)


def block(content, dictionary=b""):
    """The size of a frame, and the frame."""
    raw = zstandard.ZstdCompressionDict(dictionary, dict_type=zstandard.DICT_TYPE_RAWCONTENT) if dictionary else None
    frame = zstandard.ZstdCompressor(dict_data=raw).compress(content) if content else b""
    return struct.pack("<I", len(frame)) + frame


def signed(header, secret):
    """224 bytes, whose last 32 become the public key, and their signature."""
    key = Ed25519PrivateKey.from_private_bytes(secret)
    message = header[:192] + key.public_key().public_bytes_raw()
    return message + key.sign(message)


def delta(old, new, steps, payload, *, versions=(1, 2), line="flowers", secret=None, **fields):
    """A delta of these steps and this payload; `fields` replace what the header says about them."""
    said = {
        "old_size": len(old), "new_size": len(new), "old_hash": hashlib.sha256(old).digest(),
        "new_hash": hashlib.sha256(new).digest(), "payload_hash": hashlib.sha256(payload).digest(),
        "payload_size": len(payload), "steps": len(steps), **fields,
    }  # fmt: skip
    header = struct.pack("<8sII", b"SCNNDLT1", *versions) + struct.pack(
        "<II32s32s32sII64s", *(said[name] for name in (
            "old_size", "new_size", "old_hash", "new_hash", "payload_hash", "payload_size", "steps")), line.encode()
    )  # fmt: skip
    return (signed(header + bytes(32), secret) if secret else header + bytes(96)) + payload


def payload(old, steps, *, table=b"", changes=b"", folded=(), fresh=()):
    """The blocks: `folded` are the differences of words in their order, `fresh` the contents of those steps."""
    planes = [bytes(word >> shift & 255 for word in folded) for shift in range(0, 32, 8)]
    ranges = [old[at : at + size] for kind, at, size, _ in steps if kind == FRESH]
    blocks = [block(table), block(b"".join(struct.pack("<4I", *step) for step in steps)), block(changes)]
    return b"".join([*blocks, *map(block, planes)] + [block(*each) for each in zip(fresh, ranges, strict=True)])


def floats(*values):
    """Float32, little-endian."""
    return struct.pack(f"<{len(values)}f", *values)


# The words 0.5, -2.0, 0.75, 3.0 have the exponents 126, 128, 126, 128: the order of their changes is 0, 2, 1, 3.
# Changes of their bits, written out: 0.5 + 1, 0.75 - 1, -2.0 + 2, 3.0 - 256, folded 2, 1, 4, 511.
OLD = b"a header of the old file" + floats(0.5, -2.0, 0.75, 3.0) + b"the end" + bytes([0, 127, 128, 255])
BITS = struct.pack("<4I", 0x3F000001, 0xC0000002, 0x3F3FFFFF, 0x403FFF00)
NEW = b"a header of the new file" + BITS + bytes([1, 126, 128, 0]) + b"the end" + b"fresh"
STEPS = [(FRESH, 0, 24, 24), (WORDS, 24, 16, 16), (BYTES, 47, 4, 4), (COPY, 40, 7, 7), (FRESH, 0, 0, 5)]
PAYLOAD = payload(
    OLD, STEPS, changes=bytes([1, 255, 0, 1]), folded=(2, 1, 4, 511), fresh=(b"a header of the new file", b"fresh")
)


def deflated(*parts, strategy=zlib.Z_HUFFMAN_ONLY):
    """A raw deflate stream with a block for each part."""
    packer, content = zlib.compressobj(9, zlib.DEFLATED, -15, 9, strategy), b""
    for part in parts:
        content += packer.compress(part) + packer.flush(zlib.Z_BLOCK)
    return content + packer.flush()


def packed_file(seed, changed=0):
    """A .safetensors file with a tensor of streams: bytes in a dynamic code, stored, and in the fixed code."""
    rng = random.Random(0)
    skewed = [rng.choice((7, 7, 7, 7, 8, 8, 9, 10)) for _ in range(4000)]
    for _ in range(changed):
        skewed[rng.randrange(4000)] += 1
    stored = random.Random(1).randbytes(80)
    streams = deflated(bytes(skewed), stored) + deflated(bytes(range(60)), strategy=zlib.Z_FIXED)
    return save({"packed": np.frombuffer(streams, np.uint8)}, {"seed": str(seed)})


def packed_delta(old, new):
    """A signed delta from 3 to 4 of "flowers", by the package: the heads of its blocks are not for doing by hand."""
    from smallcnn.delta.making import make_delta

    with tempfile.TemporaryDirectory() as folder:
        places = [Path(folder) / name for name in ("old", "new", "delta")]
        for place, content in zip(places, (old, new), strict=False):
            place.write_bytes(content)
        make_delta(*places, line="flowers", old_version=3)
        content = places[2].read_bytes()
    return signed(content[:224], SECRET) + content[288:]


def vectors():
    """What a reader is tested with: each delta with the reason to refuse it, or None."""

    def from_3_to_4(steps=STEPS, content=PAYLOAD, old=OLD, new=NEW, **how):
        return delta(old, new, steps, content, **{"versions": (3, 4), "secret": SECRET, **how})

    right = from_3_to_4()
    beyond = [*STEPS[:3], (COPY, 45, 7, 7), STEPS[4]]
    blocks = {
        "changes": bytes([1, 255, 0, 1]),
        "folded": (2, 1, 4, 511),
        "fresh": (b"a header of the new file", b"fresh"),
    }
    packed = packed_file(1), packed_file(22, changed=40)
    each = [
        (None, right),
        ("signed with another key", from_3_to_4(secret=bytes(range(32)))),
        ("not signed", from_3_to_4(secret=None)),
        ("tampered with: its version", right[:12] + b"\5" + right[13:]),
        ("tampered with: its payload", right[:-1] + bytes([right[-1] ^ 1])),
        ("cut short", right[:-1]),
        ("leads back", from_3_to_4(versions=(4, 3))),
        ("another line", from_3_to_4(line="birds")),
        ("another old file", from_3_to_4(old=OLD + b"x")),
        ("another new file", from_3_to_4(new=NEW + b"x")),
        ("reads beyond the old file", from_3_to_4(beyond, payload(OLD, beyond, **blocks))),
        ("bytes that no step uses", from_3_to_4(content=PAYLOAD + bytes(4))),
    ]
    cases = [{"refuse": reason, "old": OLD, "new": NEW, "delta": content} for reason, content in each]
    cases.append({"refuse": None, "old": packed[0], "new": packed[1], "delta": packed_delta(*packed)})
    return {
        "public_key": PUBLIC.hex(),
        "line": "flowers",
        "deltas": [
            {key: value.hex() if isinstance(value, bytes) else value for key, value in case.items()} for case in cases
        ],
    }


if __name__ == "__main__":
    VECTORS.write_text(json.dumps(vectors(), indent=2) + "\n", encoding="utf-8")
