"""`smallcnn pull`: the whole way from an address to a model file, on a server of the test's own."""

import hashlib
import json
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

from public_logits import public_definition
from public_weights import public_weight
from smallcnn.checkpoints.catalogue import CATALOGUE, Checkpoint
from smallcnn.image import imagenet
from smallcnn.image.fit import Preprocessing
from smallcnn.model.store import load

PREPARED = Preprocessing((96, 96), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 0.9, "bicubic")


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_args):
        """Tests print nothing."""


@pytest.fixture
def address(tmp_path):
    """A folder that is served, and its address."""
    folder = tmp_path / "served"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def listed(address, tmp_path, monkeypatch):
    """One checkpoint, with torchvision's names, in the catalogue as "here"."""
    folder, url = address
    state = {
        key: public_weight(key, tuple(shape)) for key, shape in public_definition("torchvision-squeezenet1_1")["state"]
    }
    torch.save({key: torch.from_numpy(value) for key, value in state.items()}, folder / "w.pth")
    digest = hashlib.sha256((folder / "w.pth").read_bytes()).hexdigest()
    entry = Checkpoint(
        "here", "squeezenet_1_1", f"{url}/w.pth", "MIT", "a test", PREPARED, top1=12.5, top5=34.5, sha256=digest[:12]
    )
    monkeypatch.setitem(CATALOGUE, "here", entry)
    monkeypatch.setenv("SMALLCNN_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return folder, state


def test_from_an_address_to_a_model_file(smallcnn, listed, tmp_path):
    code, out, err = smallcnn("pull", "here")
    assert (code, out.strip()) == (0, "here.safetensors"), err
    assert "published top-1 12.5 %" in err
    made = load(tmp_path / "here.safetensors")
    assert made.labels == imagenet.labels()
    assert made.preprocessing == PREPARED
    assert made.graph.input_shape == (96, 96, 3)
    assert (made.weights["stem.conv.weight"] == listed[1]["features.0.weight"]).all()
    published = made.facts["published"]
    assert (published["name"], published["top1"], published["licence"]) == ("here", 12.5, "MIT")


def test_the_second_time_nothing_is_fetched(smallcnn, listed, tmp_path):
    assert smallcnn("pull", "here", "--out", tmp_path / "a.safetensors")[0] == 0
    (listed[0] / "w.pth").unlink()
    assert smallcnn("pull", "here", "--out", tmp_path / "b.safetensors")[0] == 0
    assert load(tmp_path / "a.safetensors").facts == load(tmp_path / "b.safetensors").facts


def test_a_changed_file_is_refused_and_leaves_nothing(refused, listed, tmp_path):
    (listed[0] / "w.pth").write_bytes(b"something else")
    assert "SHA-256" in refused("pull", "here")
    assert not (tmp_path / "here.safetensors").exists()


def test_mistakes(refused, listed, tmp_path):
    assert "closest: mobilenet_v2_1.0_224_torchvision" in refused("pull", "mobilenet_v2_")
    assert "ends in .safetensors" in refused("pull", "here", "--out", tmp_path / "a.onnx")
    assert "cannot write" in refused("pull", "here", "--out", tmp_path / "none" / "a.safetensors")


def test_the_list(smallcnn):
    code, out, _ = smallcnn("pull", "--json")
    entries = json.loads(out)
    assert code == 0
    assert len(entries) == len(CATALOGUE)
    v2 = next(entry for entry in entries if entry["name"] == "mobilenet_v2_1.0_224_torchvision")
    assert (v2["model"], v2["resolution"], v2["top1"], v2["licence"]) == (
        "mobilenet_v2", [224, 224], 71.878, "BSD-3-Clause",
    )  # fmt: skip
    assert "mobilenet_v2_1.0_224_torchvision" in smallcnn("pull")[1]
