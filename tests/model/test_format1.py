"""Files of format 1, written by the release that wrote them: they open, answer as they did, and can be built on."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import smallcnn as package
from artifacts import colour_photos
from smallcnn import onnx, runtime
from smallcnn.errors import FileError
from smallcnn.model import metadata, store
from smallcnn.model.kinds import read
from smallcnn.model.probe import TOLERANCE, probe_image
from smallcnn.onnx.read import outline

FOLDER = Path(__file__).parent / "format1"
ANSWERS = json.loads((FOLDER / "answers.json").read_text())
MODELS = ["softmax.safetensors", "sigmoid.safetensors", "blue_first.safetensors"]
IMAGES = np.concatenate([probe_image((8, 8, 3)), probe_image((8, 8, 3))[:, ::-1, :, ::-1]])


def agrees(got: np.ndarray, name: str) -> None:
    wanted = np.array(ANSWERS[name]["logits"])
    if "probabilities" in name and ANSWERS[name]["ending"] == "softmax":  # gives log-probabilities
        wanted -= np.log(np.exp(wanted).sum(1, keepdims=True))
    np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())  # float32 sums


@pytest.mark.parametrize("name", ANSWERS)
def test_it_answers_as_it_did(name):
    net, said = runtime.open(FOLDER / name, threads=1), ANSWERS[name]
    assert (list(net.labels), net.ending, net.facts, net.mult_adds) == (
        said["labels"], said["ending"], said["facts"], said["mult_adds"],
    )  # fmt: skip
    agrees(net.logits(IMAGES), name)
    assert net.verify() < TOLERANCE
    for image, wanted in zip(IMAGES, said["probabilities"], strict=True):
        seen = net.classify_prepared(image)
        assert [label for label, _ in seen.ranked] == list(wanted)
        # an exported sigmoid or softmax in float32, and the logarithm of its result
        np.testing.assert_allclose([value for _, value in seen.ranked], list(wanted.values()), rtol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_torch_answers_the_same(name):
    pytest.importorskip("torch")
    agrees(runtime.open(FOLDER / name, engine="torch", threads=1).logits(IMAGES), name)


@pytest.mark.parametrize("name", MODELS)
def test_it_is_exported_saved_and_compiled(tmp_path, name):
    package.export(FOLDER / name, tmp_path / "m.onnx")
    store.save(store.load(FOLDER / name), tmp_path / "m.safetensors")
    made = ["m.onnx", "m.safetensors"]
    try:
        package.compile(FOLDER / name, tmp_path / "m.so")
        made.append("m.so")
    except package.SmallcnnError as error:
        assert "'compile' extra" in str(error)  # noqa: PT017
    for file in made:
        net = runtime.open(tmp_path / file, threads=1)
        agrees(net.logits(IMAGES), name)
        assert (list(net.labels), net.ending) == (ANSWERS[name]["labels"], ANSWERS[name]["ending"])
    assert outline.metadata(tmp_path / "m.onnx")["smallcnn.format"] == metadata.FORMAT == "2"


@pytest.mark.parametrize("name", [name for name in ANSWERS if name.endswith(".onnx")])
def test_an_onnx_file_is_read_back(tmp_path, name):
    model = read(FOLDER / name)
    assert (list(model.labels), model.task.ending) == (ANSWERS[name]["labels"], ANSWERS[name]["ending"])
    onnx.export(model, tmp_path / "again.onnx")
    agrees(runtime.open(tmp_path / "again.onnx").logits(IMAGES), name.replace("probabilities", "logits"))


@pytest.mark.parametrize("name", [*MODELS, "softmax.probabilities.onnx"])
def test_it_is_evaluated(smallcnn, tmp_path, name):
    photos = colour_photos(tmp_path / "photos", per_class=3)
    files = sorted(photos.glob("*/*.png"))
    right = [seen.label == file.parent.name
             for file, seen in zip(files, runtime.open(FOLDER / name).classify(files), strict=True)]  # fmt: skip
    code, out, err = smallcnn("evaluate", FOLDER / name, "--data", photos, "--json")
    assert code == 0, err
    said = json.loads(out)
    assert (said["images"], said["labels"]) == (9, ["blue", "green", "red"])
    assert said["top1"] == pytest.approx(np.mean(right))
    assert np.array(said["confusion"]).sum() == 9


@pytest.mark.parametrize("name", MODELS)
def test_training_starts_from_it(smallcnn, tmp_path, name):
    pytest.importorskip("torch")
    pytest.importorskip("kornia")
    photos = colour_photos(tmp_path / "photos", per_class=4)
    code, _, err = smallcnn("train", "--from", FOLDER / name, "--data", photos, "--epochs", 1, "--batch-size", 4,
                            "--out", tmp_path / "run")  # fmt: skip
    assert code == 0, err
    assert store.load(tmp_path / "run" / "best.safetensors").labels == ("blue", "green", "red")


def test_a_compiled_file_is_one_clear_line(refused, tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    said = refused("predict", FOLDER / "softmax.so", tmp_path / "a.png")
    assert said == f"{FOLDER / 'softmax.so'}: written in format 1, this smallcnn reads 2; compile it again"
    with pytest.raises(FileError, match=r"softmax\.so: compiled; its network cannot be read back"):
        read(FOLDER / "softmax.so")
