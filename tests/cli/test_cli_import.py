"""`smallcnn import`: from a public file to a model file that predicts, and one line for every mistake."""

import json
import subprocess
import sys

import numpy as np
import pytest
import safetensors.numpy
import torch
from PIL import Image

from public_logits import public_definition
from public_weights import public_weight
from shared_files import shared
from smallcnn.image import imagenet
from smallcnn.model.store import load


def tensors(name, **changed):
    state = {key: public_weight(key, tuple(shape)) for key, shape in public_definition(name)["state"]}
    return state | changed


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A torchvision network, one whose names do not tell the origin, a backbone, and one in two classes."""
    folder = tmp_path_factory.mktemp("files")
    squeezenet = tensors("torchvision-squeezenet1_1")
    safetensors.numpy.save_file(squeezenet, folder / "squeezenet.safetensors")
    torch.save({name: torch.from_numpy(value) for name, value in squeezenet.items()}, folder / "squeezenet.pth")
    np.savez(folder / "ordered.npz", **{f"t{i:02}": value for i, value in enumerate(squeezenet.values())})
    safetensors.numpy.save_file(tensors("timm-mobilenetv3_small_100"), folder / "v3.safetensors")
    shufflenet = tensors("torchvision-shufflenet_v2_x0_5")
    backbone = {name: value for name, value in shufflenet.items() if not name.startswith("fc")}
    safetensors.numpy.save_file(backbone, folder / "backbone.safetensors")
    two = {"fc.weight": public_weight("w", (2, 1024)), "fc.bias": public_weight("b", (2,))}
    safetensors.numpy.save_file(backbone | two, folder / "two.safetensors")
    (folder / "labels.txt").write_text("cat\nhot dog\n")
    pixels = np.random.default_rng(0).integers(0, 256, (80, 100, 3), np.uint8)
    Image.fromarray(pixels).save(folder / "photo.png")
    return folder


def test_import_then_predict(smallcnn, files, tmp_path):
    out = tmp_path / "m.safetensors"
    code, printed, remarks = smallcnn("import", files / "squeezenet.safetensors", "--as", "squeezenet_1_1",
                                      "--out", out)  # fmt: skip
    assert (code, printed) == (0, f"{out}\n")
    (line,) = remarks.splitlines()
    assert line.startswith("squeezenet_1_1 from torchvision: 52 tensors, 1000 classes, input 224x224; 5.0 MB")
    code, printed, _ = smallcnn("predict", out, files / "photo.png", "--json")
    (found,) = json.loads(printed)
    assert code == 0
    assert found["label"] in imagenet.labels()
    assert len(found["top5"]) == 5


def test_without_as_the_network_is_recognised(smallcnn, files, tmp_path):
    out = tmp_path / "m.safetensors"
    code, _, remarks = smallcnn("import", files / "two.safetensors", "--out", out)
    assert code == 0
    assert "recognised as shufflenet_v2:scale=0.5 by its names and shapes; --as overrides that" in remarks
    assert load(out).facts["imported"]["model"] == "shufflenet_v2:scale=0.5"


def test_every_option(smallcnn, files, tmp_path):
    out = tmp_path / "m.safetensors"
    code, _, remarks = smallcnn(
        "import", files / "two.safetensors", "--as", "shufflenet_v2:scale=0.5", "--out", out, "--labels",
        files / "labels.txt", "--resolution", 96, "--crop", "0.9", "--interpolation", "bicubic", "--mean", "0.5",
        "--std", "0.1,0.2,0.3", "--origin", "torchvision",
    )  # fmt: skip
    assert code == 0
    assert "2 classes, input 96x96" in remarks
    made = load(out)
    assert made.labels == ("cat", "hot dog")
    prepared = made.preprocessing
    assert (prepared.size, prepared.crop, prepared.interpolation) == ((96, 96), 0.9, "bicubic")
    assert (prepared.mean, prepared.std) == ((0.5, 0.5, 0.5), (0.1, 0.2, 0.3))


def test_origin_order(smallcnn, files, tmp_path):
    out = tmp_path / "m.safetensors"
    args = ["import", files / "ordered.npz", "--as", "squeezenet_1_1", "--origin", "order", "--out", out]
    assert smallcnn(*args)[0] == 0
    assert load(out).facts["imported"]["origin"] == "order"


def test_a_fresh_head_is_said_to_be_untrained(smallcnn, files, tmp_path):
    out = tmp_path / "m.safetensors"
    code, _, remarks = smallcnn("import", files / "backbone.safetensors", "--as", "shufflenet_v2:scale=0.5",
                                "--fresh-head", "--labels", files / "labels.txt", "--out", out)  # fmt: skip
    assert code == 0
    assert "untrained: classifier; train it with: smallcnn train --from" in remarks
    assert load(out).facts["imported"]["fresh"] == ["classifier"]


def test_tensorflow_lite_and_its_background(smallcnn, tmp_path):
    pytest.importorskip("tflite")
    path, out = shared("weights/mobilenet_v1_0.25_128_quant.tflite"), tmp_path / "m.safetensors"
    for flags, classes in (([], 1000), (["--keep-background"], 1001)):
        code, _, remarks = smallcnn("import", path, "--as", "mobilenet_v1:width=0.25", "--out", out, *flags)
        assert code == 0
        assert f"from tflite: 56 tensors, {classes} classes, input 128x128" in remarks
        assert len(load(out).labels) == classes


def test_two_halves(smallcnn, tmp_path):
    pytest.importorskip("tflite")
    halves = [shared(f"weights/mobilenet_v1_1.0_224_quant_{half}.tflite")
              for half in ("embedding_extractor", "head_layers")]  # fmt: skip
    out = tmp_path / "m.safetensors"
    assert smallcnn("import", *halves, "--as", "mobilenet_v1", "--out", out)[0] == 0
    assert [file["name"] for file in load(out).facts["imported"]["files"]] == [half.name for half in halves]


@pytest.mark.parametrize(("args", "says"), [
    (["squeezenet.safetensors", "--as", "squeezenet_1_1"], "Missing option '--out'"),
    (["--as", "squeezenet_1_1", "--out", "m.safetensors"], "Missing argument 'FILE...'"),
    (["absent.pth", "--as", "squeezenet_1_1", "--out", "m.safetensors"], "absent.pth: no such file"),
    (["squeezenet.safetensors", "--as", "squeezenet_1_1", "--out", "m.onnx"], "m.onnx: a model file's name ends in"),
    (["absent.pth", "--as", "squeezenet_1_1", "--out", "no/where/m.safetensors"], "cannot write"),  # before any work
    (["squeezenet.safetensors", "--as", "squeezenet_1_2", "--out", "m.safetensors"], "closest: squeezenet_1_1"),
    (["squeezenet.safetensors", "--as", "squeezenet_1_0", "--out", "m.safetensors"], "does not fit squeezenet_1_0"),
    (["v3.safetensors", "--as", "mobilenet_v3_small", "--out", "m.safetensors"], "--origin: timm or timm-tf"),
    (["v3.safetensors", "--as", "mobilenet_v3_small", "--origin", "tim", "--out", "m.safetensors"], "closest: timm"),
    (["backbone.safetensors", "--as", "shufflenet_v2:scale=0.5", "--out", "m.safetensors"], "--fresh-head"),
    (["squeezenet.safetensors", "--as", "squeezenet_1_1", "--fresh-head", "--out", "m.safetensors"],
     "drop --fresh-head"),
    (["squeezenet.safetensors", "--as", "squeezenet_1_1", "--labels", "labels.txt", "--out", "m.safetensors"],
     "2 labels for 1000 classes"),
    (["squeezenet.safetensors", "--as", "squeezenet_1_1", "--labels", "photo.png", "--out", "m.safetensors"],
     "photo.png: cannot be read"),
    (["squeezenet.safetensors", "--as", "squeezenet_1_1", "--labels", "none.txt", "--out", "m.safetensors"],
     "none.txt: cannot be read"),
    (["squeezenet.safetensors", "--as", "squeezenet_1_1", "--mean", "red", "--out", "m.safetensors"],
     "numbers separated by commas"),
    (["squeezenet.safetensors", "--as", "squeezenet_1_1", "--mean", "0.1,0.2", "--out", "m.safetensors"],
     "mean must be"),
    (["squeezenet.safetensors", "--as", "squeezenet_1_1", "--mean", "123,116,103", "--std", "0.017",
      "--out", "m.safetensors"], "give a factor as --scale"),
    (["squeezenet.safetensors", "--as", "squeezenet_1_1", "--std", "0", "--out", "m.safetensors"], "std must be"),
    (["squeezenet.safetensors", "--as", "squeezenet_1_1", "--mean", "nan", "--out", "m.safetensors"], "mean must be"),
    (["squeezenet.safetensors", "--as", "squeezenet_1_1", "--crop", "0", "--out", "m.safetensors"], "'--crop'"),
    (["squeezenet.safetensors", "--as", "squeezenet_1_1", "--crop", "1.1", "--out", "m.safetensors"], "'--crop'"),
    (["squeezenet.safetensors", "--as", "squeezenet_1_1", "--resolution", "0", "--out", "m.safetensors"],
     "'--resolution'"),
    (["squeezenet.safetensors", "--as", "squeezenet_1_1", "--resolution", "8", "--out", "m.safetensors"],
     "window does not fit"),
    (["squeezenet.safetensors", "--as", "squeezenet_1_1", "--interpolation", "nearest", "--out", "m.safetensors"],
     "'--interpolation'"),
    (["squeezenet.safetensors", "v3.safetensors", "--as", "squeezenet_1_1", "--out", "m.safetensors"], "give one file"),
    (["squeezenet.safetensors", "--as", "squeezenet_1_1", "--origin", "order", "--out", "m.safetensors"],
     "their order is lost"),
])  # fmt: skip
def test_mistakes_are_one_line_and_leave_nothing(refused, files, tmp_path, monkeypatch, args, says):
    for path in files.iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    before = sorted(path.name for path in tmp_path.iterdir())
    assert says in refused("import", *args)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_failed_import_leaves_the_model_that_was_there(refused, files, tmp_path):
    out = tmp_path / "m.safetensors"
    out.write_bytes(b"what was there")
    refused("import", files / "squeezenet.safetensors", "--as", "squeezenet_1_0", "--out", out)
    assert out.read_bytes() == b"what was there"


def test_without_torch_and_the_formats_packages(files, tmp_path):
    """PyTorch's files, .safetensors and .npz need the base install only; other files name the extra that reads them."""
    code = "import sys; sys.modules.update(dict.fromkeys(['torch', 'h5py', 'tflite'])); "
    starts = {"w.h5": b"\x89HDF\r\n\x1a\n", "w.tflite": b"\x1c\0\0\0TFL3"}
    for name, says in {"w.h5": "smallcnn[import]", "w.tflite": "smallcnn[import]", "squeezenet.pth": None,
                       "squeezenet.safetensors": None, "ordered.npz": None}.items():  # fmt: skip
        path = tmp_path / name if says else files / name
        if says:
            path.write_bytes(starts[name])
        args = ["import", str(path), "--as", "squeezenet_1_1", "--out", str(tmp_path / "m.safetensors")]
        args += ["--origin", "order"] if name.endswith(".npz") else []
        run = f"{code}from smallcnn.cli.main import main; main({args!r})"
        done = subprocess.run([sys.executable, "-c", run], capture_output=True, text=True, check=False, timeout=100)
        if says is None:
            assert done.returncode == 0, done.stderr
        else:
            assert done.returncode == 2
            (line,) = done.stderr.splitlines()
            assert says in line
