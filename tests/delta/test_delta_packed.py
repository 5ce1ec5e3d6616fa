"""Deflate streams inside a file: what they contain is zlib's answer, and the same bits come back."""

import random
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("zstandard")

import deltas
from safetensors.numpy import save

from smallcnn.delta.huffman import contents, deflated
from smallcnn.delta.making import make_delta
from smallcnn.delta.packed import closed, opened, reopened
from smallcnn.delta.updating import update
from smallcnn.errors import DeltaError

SKEWED = st.lists(st.sampled_from(b"\0\0\0\0\0\1\1\2\xff"), max_size=400).map(bytes)
STRATEGIES = st.sampled_from([zlib.Z_HUFFMAN_ONLY, zlib.Z_FIXED])


@settings(max_examples=25)
@given(st.lists(st.tuples(st.lists(st.one_of(SKEWED, st.binary(max_size=300)), min_size=1, max_size=4), STRATEGIES)))
def test_contents_and_back(streams):
    """Several streams, one after the other, of blocks that are stored, in a fixed code or in codes of their own."""
    packed = b"".join(deltas.deflated(*parts, strategy=strategy) for parts, strategy in streams)
    try:
        inside, blocks = contents(packed)
    except DeltaError:
        assert any(strategy == zlib.Z_FIXED for _, strategy in streams), "only these find repetitions"
        return
    assert inside == b"".join(part for parts, _ in streams for part in parts)
    assert deflated(inside, blocks) == packed


@given(st.binary(min_size=64, max_size=200), st.booleans())
def test_any_bytes_stay_what_they_are(content, stored):
    """Random bytes, or those of a stored block without an end: either left alone, or opened and closed again."""
    content = struct.pack("<BHH", 0, len(content), len(content) ^ 0xFFFF) + content if stored else content
    file = save({"packed": np.frombuffer(content, np.uint8)})
    inside, ranges = opened(file)
    assert reopened(file, ranges) == inside
    assert closed(inside, ranges) == file


def test_repetitions_are_refused():
    with pytest.raises(DeltaError, match="repeats what was before"):
        contents(zlib.compress(b"some words, some words, some words")[2:-4])


def test_a_packed_file_costs_what_changed_in_it(tmp_path):
    """A hundredth of 20,000 indices in a skewed code changed: about 2 bytes each, in other bits."""
    rng = random.Random(0)
    before = bytes(rng.choices(range(8), (60, 20, 10, 4, 2, 2, 1, 1), k=20_000))
    after = bytes(byte ^ (rng.random() < 0.01) for byte in before)
    for name, content in {"old": before, "new": after}.items():
        streams = np.frombuffer(deltas.deflated(content), np.uint8)
        (tmp_path / name).write_bytes(save({"packed": streams}, {"name": name}))
    made = make_delta(tmp_path / "old", tmp_path / "new", tmp_path / "d")
    update(tmp_path / "old", tmp_path / "d", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == (tmp_path / "new").read_bytes()
    assert made.delta_bytes - 288 < 200 * 2 + 200 < made.header.new_size / 7
