"""The base install in an environment of its own: a minute, so only with `-m long`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from artifacts import artifact, colour_photos
from smallcnn import onnx
from smallcnn.model.store import save

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    venv = tmp_path_factory.mktemp("venv")
    subprocess.run([sys.executable, "-m", "venv", venv], check=True, timeout=300)
    install = [venv / "bin" / "python", "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt", ROOT]
    subprocess.run(install, check=True, timeout=1800)

    def run(*args):
        done = subprocess.run(
            [venv / "bin" / "smallcnn", *args], capture_output=True, text=True, check=False, timeout=300
        )
        return done.returncode, done.stdout, done.stderr

    return run


@pytest.mark.long
def test_without_torch(command, tmp_path):
    save(artifact(), tmp_path / "m.safetensors")
    onnx.export(artifact(), tmp_path / "m.onnx")
    photos = colour_photos(tmp_path / "photos")
    photo = next(photos.glob("*/*.png"))
    assert json.loads(command("cost", "mobilenet_v1", "--json")[1])["mult_adds"] == 568740352
    model, exported = tmp_path / "m.safetensors", tmp_path / "m.onnx"
    for args in (
        ["list"],
        ["predict", exported, photo],
        ["predict", model, photo],
        ["evaluate", exported, "--data", photos],
        ["bench", exported, "--seconds", "0.1"],
        ["export", model, "--out", tmp_path / "n.onnx"],
        ["analyze", exported, "--data", photos],
        ["recipes"],
        ["study", "distillation"],
    ):
        code, out, err = command(*args)
        assert (code, bool(out)) == (0, True), err
    for args in (
        ["train", "mobilenet_v1", "--data", photos, "--out", tmp_path / "run"],
        ["shard", photos, "--out", tmp_path / "shards"],
        ["study", "distillation", "--data", photos, "--out", tmp_path / "study"],
    ):
        code, _, err = command(*args)
        assert (code, err.count("\n")) == (2, 1), err
        assert "pip install 'smallcnn[train]'" in err
