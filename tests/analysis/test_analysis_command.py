"""`smallcnn analyze`: figures for people and machines, the page, and what it saves."""

import json
import re

import numpy as np
import pytest

from artifacts import COLOURS, colour_photos
from networks import tiny
from pages import Page
from smallcnn import onnx, runtime
from smallcnn.analysis.calibration import fit_temperature
from smallcnn.evaluate import evaluate
from smallcnn.image.fit import Preprocessing
from smallcnn.model import store
from smallcnn.model.model import Model
from smallcnn.tasks.classification import Classification
from smallcnn.transform.adapt import with_resolution

SMALL = ("--threads", "1", "--workers", "1")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """120 images of three colours, nine of them in the wrong folder, and one that is none."""
    folder = colour_photos(tmp_path_factory.mktemp("set") / "photos", per_class=40)
    for i in range(6):
        (folder / "blue" / f"{i}.png").rename(folder / "red" / f"blue-{i}.png")
    for i in range(3):
        (folder / "red" / f"{i}.png").rename(folder / "green" / f"red-{i}.png")
    (folder / "red" / "broken.png").write_bytes(b"no image")
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A network that sees colours: each logit is ten times the mean of a channel."""
    graph = tiny()
    weights = {name: np.zeros(weight.shape, np.float32) for name, weight in graph.weights.items()}
    for layer in ("stem", "block"):
        weights[f"{layer}.bn.weight"] += 1
        weights[f"{layer}.bn.running_var"] += 1
    for channel in range(3):
        weights["stem.conv.weight"][channel, channel] = weights["block.conv.weight"][channel] = 1 / 9
        weights["classifier.weight"][2 - channel, channel] = 10  # red is the first channel and the last class
    preprocessing = Preprocessing((8, 8), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    path = tmp_path_factory.mktemp("model") / "m.safetensors"
    store.save(Model(graph, weights, Classification(tuple(COLOURS)), preprocessing), path)
    return path


def test_json(smallcnn, model, photos):
    code, out, err = smallcnn("analyze", model, "--data", photos, "--json", "--sweep", 20, *SMALL)
    assert code == 0
    found = json.loads(out)
    assert (found["images"], found["top1"], found["part"], found["skipped"]) == (
        120,
        111 / 120,
        "all",
        ["red/broken.png"],
    )
    assert found["split"] == "all"
    assert "skipped: " in err
    assert [(pair["true"], pair["taken_for"], pair["count"]) for pair in found["confused"]] == [
        ("red", "blue", 6), ("green", "red", 3),
    ]  # fmt: skip
    assert sorted(found["confused"][0]["pictures"]) == [f"red/blue-{i}.png" for i in range(6)]
    assert {one["picture"] for one in found["surest_mistakes"]} == {
        *(f"red/blue-{i}.png" for i in range(6)), *(f"green/red-{i}.png" for i in range(3)),
    }  # fmt: skip
    scores = {score["label"]: (score["support"], score["named"], score["recall"]) for score in found["classes"]}
    assert scores == {"blue": (34, 40, 1), "green": (43, 40, 40 / 43), "red": (43, 40, 37 / 43)}
    answers = evaluate(runtime.open(model), photos).answers
    assert found["calibration"]["temperature"] == fit_temperature(answers.logits, answers.labels)
    assert [tuple(row["size"]) for row in found["sweep"]["sizes"]] == [(n, n) for n in (5, 6, 7, 8, 9, 10)]


def test_text(smallcnn, model, photos):
    _, out, _ = smallcnn("analyze", model, "--data", photos, "--sweep", 20, *SMALL)
    assert "top-1 92.50%" in out
    assert "6 of red predicted as blue" in out
    assert "cross-validated" in out
    assert re.search(r"8x8 .* M +\d", out)
    _, without, _ = smallcnn("analyze", model, "--data", photos, "--sweep", 0, *SMALL)
    assert "other input sizes" in out
    assert "other input sizes" not in without


def test_the_page_has_every_section(smallcnn, model, photos, tmp_path):
    path = tmp_path / "page.html"
    smallcnn("analyze", model, "--data", photos, "--reestimate", "--sweep", 20, "--out", path, *SMALL)
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    headings = re.findall("<h2>(.*?)</h2>", text)
    assert headings == [
        "Accuracy", "Changes without training", "Classes", "Most confused", "Most confident errors",
        "Least certain", "Calibration", "Input size", "Cost", "How this was made",
    ]  # fmt: skip
    words = "".join(page.words)
    assert "1 images could not be decoded" in words
    assert "broken.png: not a" in words
    assert "red/blue-0.png" in words
    assert not re.findall(r"""(?:src|href)=['"](?!data:|#)""", text)


def test_saving_a_calibrated_network(smallcnn, model, photos, tmp_path):
    path = tmp_path / "c.safetensors"
    code, _, _ = smallcnn("analyze", model, "--data", photos, "--sweep", 0, "--calibrate", "--save", path, *SMALL)
    assert code == 0
    before, after = (evaluate(runtime.open(file), photos).answers for file in (model, path))
    temperature = fit_temperature(before.logits, before.labels)
    assert temperature > 1.1
    np.testing.assert_allclose(after.logits, before.logits / temperature, rtol=1e-5)
    assert store.load(path).facts["calibrated"] == {"temperature": temperature, "part": "all", "images": 120}


def test_saving_another_resolution_with_batch_norm_re_estimated(smallcnn, model, photos, tmp_path):
    path = tmp_path / "r.safetensors"
    code, out, _ = smallcnn(
        "analyze", model, "--data", photos, "--crop", 1, "--resolution", 12, "--reestimate", "--save", path, "--sweep",
        0, "--json", *SMALL,
    )  # fmt: skip
    assert code == 0
    steps = json.loads(out)["steps"]
    assert [(step["what"], step["size"]) for step in steps] == [
        ("as it is", [8, 8]), ("at 12x12", [12, 12]),
        ("batch norm re-estimated from the evaluated images themselves", [12, 12]),
    ]  # fmt: skip
    saved = store.load(path)
    assert saved.preprocessing == Preprocessing((12, 12), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))  # the file's own crop
    assert saved.graph == with_resolution(tiny(), (12, 12))
    assert saved.facts["resized_from"] == [8, 8]
    assert saved.facts["reestimated"] == {"pictures": 120, "size": [12, 12], "from": "the evaluated images themselves"}
    assert steps[2]["top1"] == evaluate(runtime.open(path), photos, crop=1).metrics.top1


def test_an_onnx_file(smallcnn, model, photos, tmp_path):
    onnx.export(store.load(model), tmp_path / "m.onnx")
    code, out, _ = smallcnn("analyze", tmp_path / "m.onnx", "--data", photos, "--sweep", 20, "--json", *SMALL)
    assert code == 0
    found = json.loads(out)
    assert found["top1"] == 111 / 120
    assert "no batch norm" in found["sweep"]["note"]


NAMES = ("<script>alert(1)</script>", "'><img src=x onerror=alert(2)>", "$5 & \\frac{1}")


def test_class_names_are_text(smallcnn, model, tmp_path):
    """Also one class missing in the part, and one image each in the others."""
    start = store.load(model)
    store.save(
        Model(start.graph, start.weights, Classification(NAMES), start.preprocessing), tmp_path / "m.safetensors"
    )
    pixels = np.stack([np.full((8, 8, 3), colour, np.uint8) for colour in COLOURS.values()])
    np.savez(tmp_path / "set.npz", x_test=pixels[[0, 2]], y_test=[1, 2], classes=np.array(NAMES))
    path = tmp_path / "page.html"
    code, _, err = smallcnn(
        "analyze", tmp_path / "m.safetensors", "--data", tmp_path / "set.npz", "--out", path, "--sweep", 2, *SMALL
    )
    assert code == 0, err
    page = Page(path.read_text(encoding="utf-8"))
    assert page.tags.count("script") == 1
    assert not [name for name in page.attributes if name.startswith("on")]
    words = "".join(page.words)
    assert f"1 of {NAMES[1]} predicted as {NAMES[0]}" in words
    assert "No temperature can be fitted" in words


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--save", "x.safetensors"], "--save needs a change to save"),
        (["--save", "x.onnx", "--calibrate"], "ends in .safetensors"),
        (["--out", "photo.jpg"], "photo.jpg: a report's name ends in .html"),
        (["--out", "nowhere/page.html"], "cannot write nowhere/page.html"),
        (["--part", "test"], "has no split 'test'"),
    ],
)
def test_mistakes(refused, model, photos, args, message):
    assert message in refused("analyze", model, "--data", photos, *args, *SMALL)


def test_nothing_to_re_estimate(refused, model, photos, tmp_path):
    onnx.export(store.load(model), tmp_path / "m.onnx")
    assert "no batch norm" in refused("analyze", tmp_path / "m.onnx", "--data", photos, "--reestimate", *SMALL)


def test_no_temperature_to_save(refused, model, tmp_path):
    photos = colour_photos(tmp_path / "photos", per_class=2)  # all of them right
    line = refused("analyze", model, "--data", photos, "--calibrate", "--sweep", 0, *SMALL)
    assert "cannot fit a temperature" in line
