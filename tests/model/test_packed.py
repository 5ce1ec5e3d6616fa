"""Packed model files: every bit comes back, few bytes are needed, and damaged files are refused."""

import json
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from artifacts import artifact
from networks import every_op, tiny
from smallcnn.errors import FileError
from smallcnn.ir.builder import Builder
from smallcnn.ir.graph import Graph
from smallcnn.ir.types import Grid, Tensor
from smallcnn.model.codecs import kinds
from smallcnn.model.codecs.deflated import deflate, inflate_parts
from smallcnn.model.model import Model
from smallcnn.model.store import load, save
from smallcnn.transform.share.hashed import Hashing

RNG = np.random.default_rng(0)


def packed(value: np.ndarray, number: str = "float32") -> dict[str, int]:
    """The deflated bytes of each codec that can store a tensor, each proved to give back every bit."""
    value = np.ascontiguousarray(value, number)
    tensor, sizes = Tensor(value.shape, number), {}
    for codec, parts in kinds.candidates(value):
        assert [part.size for part in parts] == list(codec.sizes(tensor))
        stream = deflate(parts)
        read = kinds.from_json(json.loads(json.dumps(kinds.to_json(codec))))
        found = read.decode(tensor, inflate_parts(stream, read.sizes(tensor)))
        assert (found.dtype, found.shape, found.tobytes()) == (value.dtype, value.shape, value.tobytes())
        sizes[codec.kind] = len(stream)
    return sizes


def entropy(indices: np.ndarray) -> float:
    """Bytes that a sequence of independent symbols needs at least (Shannon)."""
    shares = np.unique(indices, return_counts=True)[1] / indices.size
    return -indices.size * float((shares * np.log2(shares)).sum()) / 8


def test_shared_values_take_their_entropy():
    indices = RNG.binomial(31, 0.4, (64, 32, 3, 3))
    sizes = packed(RNG.standard_normal(32)[indices])
    assert entropy(indices) < sizes["shared"] < 1.02 * entropy(indices) + 32 * 4 + 100
    assert sizes["raw"] > 3 * sizes["shared"]


@pytest.mark.parametrize("share", [0.7, 0.97, 0.999])
def test_zeros_take_little_more_than_their_positions(share):
    zero = RNG.random((128, 64, 3, 3)) < share
    values = np.where(zero, 0, RNG.standard_normal(zero.shape))
    kept = np.count_nonzero(values)
    sizes = packed(values)
    assert sizes["sparse"] < sizes["raw"]
    assert 4 * 0.88 * kept < sizes["sparse"] < 1.05 * entropy(zero) + 4 * kept + 300


def test_few_vectors_take_their_indices():
    words, indices = RNG.standard_normal((200, 4)), RNG.integers(200, size=(96, 3, 3, 16))
    weight = np.moveaxis(words[indices].reshape(96, 3, 3, 64), -1, 1)
    sizes = packed(weight)
    assert indices.size * 0.95 < sizes["product"] < 200 * 4 * 4 + indices.size * 1.01 + 100
    for words in (16, 40):  # with 16, one codebook would do, whose indices take 7.3 bits in the place of 4
        books, chosen = RNG.standard_normal((10, words, 8)), RNG.integers(words, size=(300, 10))
        most = 10 * words * 8 * 4 * 0.95 + 300 * 10 * (np.log2(words) / 8 + 0.02) + 300
        assert packed(books[np.arange(10), chosen].reshape(300, 80))["product"] < most


def test_hashed_values_take_no_indices():
    values = RNG.standard_normal(4000).astype(np.float32)
    sizes = packed(Hashing(values=4000, seed=255).expand(values, (64, 64, 3, 3)))
    assert sizes.keys() == {"raw", "hashed"}
    assert 4 * 4000 * 0.8 < sizes["hashed"] < 4 * 4000 + 100


@pytest.mark.parametrize("number", ["int8", "uint8", "int32"])
def test_whole_numbers(number):
    low, high = np.iinfo(number).min, np.iinfo(number).max
    assert packed(RNG.integers(low, high, (5, 6), endpoint=True), number).keys() >= {"raw", "shared"}
    bell = np.rint(RNG.standard_normal((64, 64)) * 9 + (128 if number == "uint8" else 0))
    assert min(packed(bell, number).values()) < 1.02 * entropy(bell) + 300


def test_odd_bits_survive():
    odd = np.array([0.0, -0.0, np.nan, -np.nan, np.inf, 1e-45, 3.0] * 100, np.float32)
    odd[7] = np.frombuffer(struct.pack("<I", 0x7FC00001), np.float32)[0]  # another NaN
    assert packed(odd).keys() == {"raw", "shared", "sparse"}
    assert packed(np.zeros((3, 0))).keys() == {"raw"}
    assert packed(np.zeros((3, 4))).keys() == {"raw", "shared"}
    last = np.zeros(1021, np.float32)
    last[[255, 1020]] = 1  # distances of exactly 255 and 255 * 3
    assert "sparse" in packed(last)


@settings(max_examples=60, deadline=None)
@given(
    shape=st.lists(st.integers(1, 20), min_size=1, max_size=4),
    words=st.integers(1, 400),
    zeros=st.floats(0, 1),
    seed=st.integers(0, 2**32 - 1),
)
def test_every_codec_gives_back_every_bit(shape, words, zeros, seed):
    rng = np.random.default_rng(seed)
    value = rng.standard_normal(words)[rng.integers(words, size=shape)]
    assert "raw" in packed(np.where(rng.random(shape) < zeros, 0, value))


# --- files ---


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "packed.safetensors"


def integers() -> Graph:
    """A network of whole numbers, a scale for each output."""
    g = Builder(input=(4, 4, 3))
    x = g.conv(g.input, 3, kernel=1, number="int8", grid=Grid((0.1, 0.2, 2e-38), (0,) * 3), name="conv")
    y = g.dense(g.global_pool(x, name="pool"), 3, number="int8", grid=Grid((0.3,), (0,)), bias=False, name="fc")
    return g.graph(y, features=x, name="integers")


def shared_network() -> Model:
    """A network with 16 different weights in each of its larger layers."""
    g = Builder(input=(8, 8, 3))
    x = g.conv(g.input, 32, kernel=3, name="stem")
    x = g.conv(x, 64, kernel=3, name="body")
    made = artifact(g.graph(g.dense(g.global_pool(x, name="pool"), 10, name="head"), features=x, name="shared"))
    coarse = {name: np.rint(value * 20).astype(np.float32) / 32 for name, value in made.weights.items()}
    return replace(made, weights=coarse)


@pytest.mark.parametrize("graph", [tiny(), every_op(), integers()], ids=lambda graph: graph.name)
def test_round_trip_is_bitwise(graph, path):
    before = artifact(graph, note="Zürich\n")
    save(before, path, packed=True)
    after = load(path)
    assert (after.graph, after.task, after.preprocessing, after.facts) == (
        before.graph, before.task, before.preprocessing, before.facts,
    )  # fmt: skip
    assert [(name, value.dtype, value.tobytes()) for name, value in after.weights.items()] == [
        (name, value.dtype, value.tobytes()) for name, value in before.weights.items()
    ]
    first = path.read_bytes()
    save(after, path, packed=True)
    assert path.read_bytes() == first


def test_a_packed_file_is_small(path, tmp_path):
    made = shared_network()
    save(made, tmp_path / "plain.safetensors")
    save(made, path, packed=True)
    count = sum(value.size for value in made.weights.values())
    assert (tmp_path / "plain.safetensors").stat().st_size > 4 * count
    assert path.stat().st_size < 0.6 * count + 2000
    assert load_file(path).keys() == {"packed", "text"}


def test_weights_without_content_are_not_packed(path):
    """A reader refuses them, as it cannot tell them from a file made to exhaust memory."""
    g = Builder(input=(64, 64, 3))
    made = artifact(g.graph(g.dense(g.flatten(g.input), 100), features=g.input, name="zeros"))
    weights = {name: np.zeros_like(value) for name, value in made.weights.items()}
    next(iter(weights.values()))[0, ::1000] = RNG.standard_normal(13)
    save(replace(made, weights=weights), path, packed=True)
    assert path.stat().st_size > 4 * 64 * 64 * 3 * 100
    assert sum(map(np.count_nonzero, load(path).weights.values())) == 13


def changed(path: Path, **entries: object) -> str:
    """The message that refuses the packed network's file with other entries in its text, or other tensors."""
    save(shared_network(), path, packed=True)
    tensors = load_file(path)
    text = json.loads(zlib.decompress(tensors["text"].tobytes(), -15))
    text |= {f"smallcnn.{key}": entry for key, entry in entries.items() if isinstance(entry, str)}
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    content = packer.compress(json.dumps(text).encode()) + packer.flush()
    tensors |= {"text": np.frombuffer(content, np.uint8)}
    tensors |= {name: entry for name, entry in entries.items() if isinstance(entry, np.ndarray)}
    save_file(tensors, path, {"smallcnn.format": "3"})
    with pytest.raises(FileError) as caught:
        load(path)
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(f"{path}: ")


def codecs(path: Path, place: int, **sizes: object) -> str:
    """The file's codecs with other parameters for one weight."""
    save(shared_network(), path, packed=True)
    text = json.loads(zlib.decompress(load_file(path)["text"].tobytes(), -15))
    records = json.loads(text["smallcnn.packed"])
    assert records[2] == {"codec": "shared", "words": records[2]["words"], "bytes": records[2]["bytes"]}
    records[place] = {key: size for key, size in (records[place] | sizes).items() if size is not None}
    return json.dumps(records)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"codec": "lzw"}, "no codec 'lzw'; there are raw, shared, sparse, product, hashed"),
        ({"codec": "raw"}, "codec raw of {'words': "),
        ({"words": None}, "codec shared of {}"),
        ({"words": -1}, "codec shared of {'words': -1}"),
        ({"words": 0}, "body.weight: a codebook of 0 entries; from 1 to 256 are allowed"),
        ({"words": 257}, "body.weight: a codebook of 257 entries; from 1 to 256 are allowed"),
        ({"words": 255}, "body.weight: its packed bytes are damaged: "),
        ({"words": 1}, "body.weight: its packed bytes are damaged: not one stream of "),
        ({"bytes": 7}, "packed bytes, not the "),
        ({"bytes": "7"}, "is no packed tensor"),
        (
            {"codec": "product", "length": 5, "words": 2, "books": 1},
            "body.weight: 1 codebooks of vectors of 5 for 32 inputs",
        ),
        (
            {"codec": "product", "length": 4, "words": 2, "books": 2},
            "body.weight: 2 codebooks of vectors of 4 for 32 inputs",
        ),
        (
            {"codec": "hashed", "words": None, "values": 18_433, "seed": 1},
            "body.weight: 18,432 float32 weights hashed in 18,433 values with seed 1; ",
        ),
        ({"codec": "hashed", "words": None, "values": 9, "seed": 256}, "hashed in 9 values with seed 256; "),
        ({"codec": "hashed", "words": None, "values": 0, "seed": 1}, "hashed in 0 values with seed 1; "),
        ({"codec": "hashed", "words": None, "values": 9, "seed": 1}, "body.weight: its packed bytes are damaged: "),
        (
            {"codec": "sparse", "words": 2, "kept": 9, "steps": 8},
            "body.weight: 9 numbers in 8 steps for 18,432 weights",
        ),
        (
            {"codec": "sparse", "words": 2, "kept": 9, "steps": 2**30},
            "body.weight: 9 numbers in 1,073,741,824 steps for 18,432 weights",
        ),
    ],
    ids=str,
)
def test_codecs_that_do_not_fit(path, sizes, message):
    assert message in changed(path, packed=codecs(path, 2, **sizes))


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"packed": "{}"}, "its codecs are {}, not a list"),
        ({"packed": "["}, "its codecs are not JSON: "),
        ({"packed": "[]"}, "0 packed tensors for a network that stores 6"),
        ({"packed": np.zeros(3, np.uint8)}, "3 packed bytes, not the "),
        ({"packed": np.zeros((3, 1), np.uint8)}, "'packed' is stored as U8 (3, 1), not as a vector of U8"),
        ({"packed": np.zeros(3, np.float32)}, "'packed' is stored as F32 (3,), not as a vector of U8"),
        ({"stem.weight": np.zeros(3, np.float32)}, "a packed file has no tensor 'stem.weight'"),
        ({"text": np.zeros(3, np.uint8)}, "its packed bytes are damaged"),
        ({"format": "4"}, "written in format '4'"),
    ],
    ids=str,
)
def test_entries_that_do_not_fit(path, entries, message):
    assert changed(path, **entries).startswith(message)


def test_a_network_larger_than_its_bytes_is_refused_before_anything_is_unpacked(path):
    save(shared_network(), path, packed=True)
    text = json.loads(zlib.decompress(load_file(path)["text"].tobytes(), -15))
    graph = text["smallcnn.graph"].replace('"out":64', '"out":65536')
    assert " bytes of weights cannot be right" in changed(path, graph=graph)


def test_cost_prints_the_bytes_of_each_part(path, smallcnn):
    save(shared_network(), path, packed=True)
    code, out, _ = smallcnn("cost", path, "--json")
    parts = json.loads(out)["packed_bytes"]
    assert code == 0
    assert parts.keys() == {"text", "shared", "raw"}
    assert 0 <= path.stat().st_size - sum(parts.values()) < 300  # the header
    assert f"{parts['shared']:,}  bytes" in smallcnn("cost", path)[1]
