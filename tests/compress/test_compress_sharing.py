"""`smallcnn compress`: steps that save bytes of the file, and training that keeps what they did."""

import json

import numpy as np
import pytest

from artifacts import artifact, colour_photos
from smallcnn.compress.pipeline import compress
from smallcnn.compress.sharing import LowRank, Share, Zeros
from smallcnn.ir.builder import Builder
from smallcnn.model.store import load, save
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
    ]
    found = compress(artifact(network()), photos, out, steps, max_drop=100, threads=1)
    assert [row.name for row in found.rows] == [
        "original", "low rank", "fine-tuned, 1 epochs", "52% zeros", "fine-tuned, 1 epochs", "60% zeros",
        "fine-tuned, 1 epochs", "shared in 4 bits", "fine-tuned, 1 epochs",
    ]  # fmt: skip
    made = load(out)
    assert made.graph["block.conv"].shape[-1] < 16
    for name, weight in made.weights.items():
        if name.endswith("weight"):
            assert len(np.unique(weight)) <= (16 if weight[0].size > 32 else 256), name
            assert (weight == 0).mean() >= 0.6 - 1 / weight.size, name
    assert made.facts["compressed"]["sparse"] == {"zeros": 0.6, "rounds": 2, "epochs": 2}
    assert found.rows[-1].bytes < 0.7 * found.rows[1].bytes


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
