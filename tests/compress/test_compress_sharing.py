"""`smallcnn compress`: steps that save bytes of the file, and training that keeps what they did."""

import json
from dataclasses import replace

import numpy as np
import pytest

from artifacts import artifact, colour_photos
from interrupted import killed_at
from smallcnn.compress.integers import Int8, as_int8
from smallcnn.compress.pipeline import compress
from smallcnn.compress.sharing import Hash, LowRank, Share, Zeros
from smallcnn.ir.builder import Builder
from smallcnn.model.store import load, save
from smallcnn.train.recipe import Recipe
from smallcnn.train.run import resume, train
from smallcnn.transform.share.hashed import Hashing, hashing_of
from smallcnn.transform.share.sharing import Sharing


@pytest.fixture
def photos(tmp_path):
    return colour_photos(tmp_path / "photos", per_class=20)


def network():
    g = Builder(input=(8, 8, 3))
    x = g.conv_bn(g.input, 16, kernel=3, stride=2, name="stem")
    x = g.conv_bn(x, 64, kernel=1, name="block")
    return g.graph(g.dense(g.global_pool(x, name="pool"), 3, name="classifier"), features=x, name="small")


def test_steps_in_a_row(photos, tmp_path):
    out = tmp_path / "out.safetensors"
    steps = [
        LowRank(share=0.8, epochs=1),
        Zeros(zeros=0.6, rounds=2, epochs=2),
        Share(sharing=Sharing(bits=4, zeros=0.6), epochs=1),
        Int8(),
    ]
    found = compress(artifact(network()), photos, out, steps, max_drop=100, threads=1, folder=tmp_path / "steps")
    assert [row.name for row in found.rows] == [
        "original", "low rank", "fine-tuned, 1 epoch", "52% zeros", "fine-tuned, 1 epoch", "60% zeros",
        "fine-tuned, 1 epoch", "shared in 4 bits", "fine-tuned, 1 epoch", "int8",
    ]  # fmt: skip
    (tuned,) = (tmp_path / "steps").glob("8-*.safetensors")
    variances = [value for name, value in load(tuned).weights.items() if name.endswith("running_var")]
    assert variances  # those of the filters' scales, which training does not normalise by
    assert all((value == 1 - 2**-10).all() for value in variances)
    made = load(out)
    assert made.graph["block.conv"].shape[-1] < 16
    for name, weight in made.weights.items():
        if name.endswith("weight"):
            assert weight.dtype == np.int8
            assert len(np.unique(weight)) <= (16 if weight[0].size > 32 else 256), name
            assert (weight == 0).mean() >= 0.6 - 1 / weight.size, name
    assert made.facts["compressed"]["sparse"] == {"zeros": 0.6, "rounds": 2, "epochs": 2}
    assert found.rows[-2].bytes < 0.7 * found.rows[1].bytes
    assert [row.integer for row in found.rows] == 9 * [False] + [True]


def test_hashed_layers_stay_hashed_in_training(photos, tmp_path):
    out = tmp_path / "out.safetensors"
    before = artifact(network())
    found = compress(before, photos, out, [Hash(share=0.125, epochs=2)], max_drop=100, threads=1, seed=3)
    assert [row.name for row in found.rows] == [
        "original", "hashed, 0.125 of the values", "fine-tuned, 2 epochs", "rounded to 11 bits",
    ]  # fmt: skip
    hashings = [hashing_of(load(out).weights[f"{name}.weight"]) for name in ("stem.conv", "block.conv", "classifier")]
    assert [hashing and hashing[0].values for hashing in hashings] == [None, None, 3 * 64 // 8]


def test_training_hashed_layers_from_scratch(photos, tmp_path, monkeypatch):
    """Killed and resumed, a run ends with the same weights; a packed file has them bit by bit."""
    graph, recipe = network(), Recipe(epochs=2, hashed=0.25, batch_size=8, seed=1, ema=0.9)
    whole = train(graph, photos, tmp_path / "whole", recipe=recipe, threads=1)
    killed_at(4, monkeypatch, lambda: train(graph, photos, tmp_path / "cut", recipe=recipe, threads=1))
    first, second = (load(run.last) for run in (whole, resume(tmp_path / "cut")))
    assert all(np.array_equal(first.weights[name], second.weights[name]) for name in first.weights)
    for made in (first, load(whole.folder / "last_ema.safetensors")):
        assert hashing_of(made.weights["classifier.weight"])[0] == Hashing(values=3 * 64 // 4, seed=1 + 3)
    save(first, tmp_path / "packed.safetensors", packed=True)
    packed = load(tmp_path / "packed.safetensors").weights
    assert all(packed[name].tobytes() == weight.tobytes() for name, weight in first.weights.items())


def test_the_command(photos, tmp_path, smallcnn):
    save(artifact(network()), tmp_path / "model.safetensors")
    options = ("--fine-tune", "0", "--max-drop", "100", "--threads", "1", "--json")
    command = ("compress", tmp_path / "model.safetensors", "--data", photos, "--out", tmp_path / "out.safetensors")
    code, done, err = smallcnn(*command, "--product", "8,4", *options)
    assert code == 0, err
    assert [row["name"] for row in json.loads(done)["steps"]] == ["original", "8 codewords of 4"]
    code, done, err = smallcnn(*command, "--share", "1.5kB", *options)
    assert code == 0, err
    assert json.loads(done)["steps"][1]["name"] == "shared in 1,500 bytes"
    size = (tmp_path / "out.safetensors").stat().st_size
    assert json.loads(done)["bytes_after"] == pytest.approx(size, abs=150)  # the file adds what was asked for


def test_int8_keeps_shared_weights():
    """Equal weights become equal bytes, even if batch norm multiplies each filter by another factor."""
    g = Builder(input=(8, 8, 3))
    x = g.conv_bn(g.conv_bn(g.input, 64, kernel=3, stride=2, name="stem"), 64, kernel=1, name="block")
    graph = g.graph(g.dense(g.global_pool(x, name="pool"), 3, name="classifier"), features=x, name="small")
    model, rng = artifact(graph), np.random.default_rng(0)
    images = rng.integers(0, 256, (4, 8, 8, 3), np.uint8)
    whole = as_int8(model, images, 1)
    assert len(np.unique(whole.weights["block.conv.weight"])) > 200
    book = rng.standard_normal(16).astype(np.float32)
    shared = {
        name: book[rng.integers(0, 16, model.weights[name].shape)]
        for name in ("block.conv.weight", "classifier.weight")
    }
    factors = {"block.bn.weight": np.geomspace(0.01, 10, 64, dtype=np.float32)}
    made = as_int8(replace(model, weights={**model.weights, **shared, **factors}), images, 1)
    for name in shared:
        stored = made.weights[name]
        assert [len(np.unique(stored[shared[name] == value])) for value in book] == [1] * 16, name
        assert len(np.unique(stored)) <= 16
