"""Damaged deltas: each is refused in one line, or gives the new file; never a traceback, a hang or all of the memory.

`python -m fuzz test_delta_fuzz FIRST COUNT` runs cases by hand.
"""

import functools
import hashlib
import json
import struct
import tempfile
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("zstandard")

import deltas
import zstandard

from fuzz import damage, survive
from smallcnn.delta.making import make_delta
from smallcnn.delta.updating import update
from smallcnn.errors import SmallcnnError

ODD = (0, 1, 2, 3, 4, 5, 255, 256, 65_536, 65_537, 1 << 20, 1 << 31, (1 << 32) - 1)


@functools.cache
def place() -> tempfile.TemporaryDirectory:
    """Gone with the process."""
    return tempfile.TemporaryDirectory()


@functools.cache
def original() -> tuple[bytes, bytes, bytes]:
    """An old file, a new one, and the delta that leads from one to the other."""
    from safetensors.numpy import save

    rng, folder = np.random.default_rng(0), Path(place().name)
    weights, whole = rng.normal(0, 1, (20, 30)).astype(np.float32), rng.integers(-99, 99, (30, 20), np.int8)
    old = save({"a": weights, "b": whole, "c": weights}, {"text": "the old file"})
    new = save({"a": weights * np.float32(1.01), "b": whole + np.int8(1), "c": weights, "d": weights[:3] + 1})
    for name, content in {"old": old, "new": new}.items():
        (folder / name).write_bytes(content)
    make_delta(folder / "old", folder / "new", folder / "delta")
    return old, new, (folder / "delta").read_bytes()


def odd(number: int, rng: np.random.Generator) -> int:
    """A number near this one, or another."""
    return int(rng.choice(ODD)) if rng.random() < 0.5 else max(number + int(rng.integers(-5, 6)), 0) % (1 << 32)


def header_changed(content: bytes, rng: np.random.Generator) -> bytes:
    """One of the numbers of the header."""
    at = int(rng.choice([8, 12, 16, 20, 120, 124]))
    (number,) = struct.unpack_from("<I", content, at)
    return content[:at] + struct.pack("<I", odd(number, rng)) + content[at + 4 :]


def payload_changed(content: bytes, rng: np.random.Generator) -> bytes:
    """Frames or their sizes damaged, under a header that fits."""
    payload = damage(content[288:], rng)
    said = hashlib.sha256(payload).digest() + struct.pack("<I", len(payload))
    return content[:88] + said + content[124:288] + payload


def steps_changed(_: bytes, rng: np.random.Generator) -> bytes:
    """Steps with other numbers, more or fewer of them, and other blocks, in a delta that is right in itself."""
    old, new = deltas.OLD, deltas.NEW
    steps = [list(step) for step in deltas.STEPS]
    for _ in range(rng.integers(1, 4)):
        step = steps[rng.integers(len(steps))]
        match rng.integers(4):
            case 0 | 1:
                at = int(rng.integers(4))
                step[at] = odd(step[at], rng)
            case 2:
                steps.insert(int(rng.integers(len(steps) + 1)), list(step))
            case _:
                steps.remove(step)
                steps = steps or [[3, 0, 0, 5]]
    changes, folded = (bytes([1, 255, 0, 1]), (2, 1, 4, 511)) if rng.random() < 0.5 else (rng.bytes(9), (7, 1 << 31))
    fresh = [rng.bytes(int(rng.integers(1, 30))) for kind, *_ in steps if kind == deltas.FRESH]
    payload = deltas.payload(old, steps, changes=changes, folded=folded, fresh=fresh)
    how = {"new_size": sum(step[3] for step in steps) % (1 << 32)} if rng.random() < 0.7 else {}
    return deltas.delta(old, new, steps, payload, **how)


@functools.cache
def packed() -> tuple[bytes, bytes, bytes]:
    """As `original`, with packed ranges: the last of the vectors."""
    case = json.loads(deltas.VECTORS.read_text(encoding="utf-8"))["deltas"][-1]
    old, new, content = (bytes.fromhex(case[name]) for name in ("old", "new", "delta"))
    return old, new, content[:192] + bytes(96) + content[288:]


def table_changed(content: bytes, rng: np.random.Generator) -> bytes:
    """Another table of packed ranges: a number of it, or any of its bytes."""
    (length,) = struct.unpack_from("<I", content, 288)
    table = bytearray(zstandard.ZstdDecompressor().decompress(content[292 : 292 + length])) if length else bytearray(12)
    at = 4 * int(rng.integers(min(len(table) // 4, 16)))
    if rng.random() < 0.5:
        struct.pack_into("<I", table, at, odd(struct.unpack_from("<I", table, at)[0], rng))
    else:
        table = bytearray(damage(bytes(table), rng))
    payload = deltas.block(bytes(table)) + content[292 + length :]
    said = hashlib.sha256(payload).digest() + struct.pack("<I", len(payload))
    return content[:88] + said + content[124:288] + payload


def judge(case: int, _stage) -> str:
    """Damages a delta as `case` says, and applies it."""
    rng, folder = np.random.default_rng(case), Path(place().name)
    by_hand = deltas.OLD, deltas.NEW, deltas.delta(deltas.OLD, deltas.NEW, deltas.STEPS, deltas.PAYLOAD)
    way = (damage, header_changed, payload_changed, steps_changed, table_changed)[rng.integers(5)]
    old, new, content = (original(), by_hand, packed())[2 if way == table_changed else rng.integers(3)]
    if way == steps_changed:
        old, new = deltas.OLD, deltas.NEW
    out = folder / "out"
    (folder / "device").write_bytes(old)
    (folder / "damaged").write_bytes(way(content, rng))
    out.unlink(missing_ok=True)
    try:
        update(folder / "device", folder / "damaged", out)
    except SmallcnnError as error:
        assert not out.exists()
        return "refused" if len(str(error)) < 400 and "\n" not in str(error) else "refused at length"
    assert out.read_bytes() == new
    return "right"


def test_damaged_deltas():
    outcomes = survive("test_delta_fuzz", 0, 300)
    assert outcomes["refused"] > 200, outcomes
    assert outcomes["right"] > 3, outcomes
    assert not outcomes["refused at length"]


@pytest.mark.long
def test_ten_thousand_damaged_deltas():
    assert not survive("test_delta_fuzz", 1000, 10_000)["refused at length"]
