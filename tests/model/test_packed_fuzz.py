"""Damaged packed model files: each is an error of one line or a network, in bounded memory."""

import functools
import json
import tempfile
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save
from test_store_fuzz import change

from artifacts import artifact
from fuzz import damage, survive
from smallcnn import zoo
from smallcnn.errors import SmallcnnError
from smallcnn.model import store
from smallcnn.transform.share.hashed import SEEDS, Hashing

MODELS = ("mobilenet_v2:width=0.35,small_input=true", "squeezenet_1_1:small_input=true")


@functools.cache
def place() -> tempfile.TemporaryDirectory:
    """Gone with the process."""
    return tempfile.TemporaryDirectory()


def folder() -> Path:
    return Path(place().name)


@functools.cache
def originals() -> tuple[bytes, ...]:
    """Two networks, whose weights in turn are raw, shared, sparse, made of few vectors, and hashed."""
    files = []
    for text in MODELS:
        made, rng = artifact(zoo.parse(text).build(resolution=16, classes=3)), np.random.default_rng(0)
        weights = {}
        for number, (name, value) in enumerate(made.weights.items()):
            weights[name] = value
            match number % 5:
                case 1:
                    weights[name] = np.rint(value * 9).astype(np.float32)
                case 2:
                    weights[name] = value * (np.abs(value) > 0.05)
                case 3 if value.ndim > 1 and value.shape[1] % 4 == 0:
                    word = np.tile(rng.standard_normal(4, np.float32)[:, None, None], (value.shape[1] // 4, 1, 1))
                    weights[name] = np.broadcast_to(word, value.shape)
                case 4 if value.size >= 100:
                    values = rng.standard_normal(value.size // 4, np.float32)
                    weights[name] = Hashing(values=value.size // 4, seed=number % SEEDS).expand(values, value.shape)
        store.save(replace(made, weights=weights), folder() / "original.safetensors", packed=True)
        files.append((folder() / "original.safetensors").read_bytes())
    return tuple(files)


def rearranged(content: bytes, rng: np.random.Generator) -> bytes:
    """A value of the graph, the codecs or another entry is changed, or a few bytes of the weights."""
    (folder() / "whole.safetensors").write_bytes(content)
    tensors = load_file(folder() / "whole.safetensors")
    text = json.loads(zlib.decompress(tensors["text"].tobytes(), -15))
    match rng.integers(4):
        case 0:
            tensors["packed"] = np.frombuffer(damage(tensors["packed"].tobytes(), rng), np.uint8)
        case 1:
            change(text, rng)
        case chosen:
            key = ("smallcnn.packed", "smallcnn.graph")[chosen - 2]
            inside = json.loads(text[key])
            change(inside, rng)
            text[key] = json.dumps(inside)
    packer = zlib.compressobj(1, zlib.DEFLATED, -15)
    written = packer.compress(json.dumps(text).encode()) + packer.flush()
    return save(tensors | {"text": np.frombuffer(written, np.uint8)}, {"smallcnn.format": "3"})


def judge(case: int, stage) -> str:
    """Damages a file as `case` says, and loads it."""
    rng = np.random.default_rng(case)
    content = originals()[rng.integers(len(originals()))]
    path = folder() / "damaged.safetensors"
    path.write_bytes(damage(content, rng) if rng.random() < 0.3 else rearranged(content, rng))
    try:
        store.load(path)
    except SmallcnnError as error:
        return "refused" if len(str(error)) < 1000 and str(error).isprintable() else "refused at length"
    return "read"


def test_damaged_files():
    outcomes = survive("test_packed_fuzz", 0, 100)
    assert outcomes["read"] > 5, outcomes
    assert outcomes["refused"] > 30, outcomes
    assert not outcomes["refused at length"]


@pytest.mark.long
def test_ten_thousand_damaged_files():
    assert not survive("test_packed_fuzz", 1000, 10_000)["refused at length"]
