"""`smallcnn analyze` of a detector: errors, thresholds and calibration in JSON, in words and as a page."""

import json

import numpy as np
import pytest

from detectors import detector, images, listing
from pages import Page
from smallcnn.data.targets import CLASS


@pytest.fixture
def photos(tmp_path):
    return images(tmp_path / "photos")


@pytest.fixture
def data(monkeypatch, photos):
    """The red box is labelled elsewhere, the green one as blue, and c.png has a label where nothing is."""

    def change(name, rows):
        rows[rows[:, CLASS] == 2, :4] += [20, 0, 20, 0]
        rows[rows[:, CLASS] == 1, CLASS] = 0
        return np.array([[10, 10, 30, 40, 2, 600, 0]]) if name == "c.png" else rows

    monkeypatch.setattr("smallcnn.runtime.open", lambda *_args, **_kwargs: detector())
    monkeypatch.setattr("smallcnn.data.sources.listed", lambda *_args, **_kwargs: listing(photos, change=change))
    return photos


def test_json(smallcnn, data):
    code, out, err = smallcnn("analyze", "m.onnx", "--data", data, "--json", "--threshold", 0)
    assert (code, err) == (0, "")
    said = json.loads(out)
    assert (said["images"], said["split"]) == (4, "val")
    assert {kind: one["count"] for kind, one in said["errors"].items()} == {
        "class": 1, "place": 1, "both": 0, "duplicate": 0, "background": 0, "missed": 1,
    }  # fmt: skip
    assert said["confused"] == [{"true": "blue", "taken_for": "green", "count": 1}]
    (example,) = said["errors"]["missed"]["examples"]
    assert example == {"image": "c.png", "true": "red", "box": [10, 10, 30, 40]}
    (example,) = said["errors"]["class"]["examples"]
    assert (example["image"], example["label"], example["true"]) == ("b.jpg", "green", "blue")
    assert example["score"] == pytest.approx(0.8)
    best = {one["label"]: (one["objects"], one["score"]) for one in said["thresholds"]}
    assert best == {"blue": (3, pytest.approx(0.9)), "red": (2, None)}
    assert said["threshold"]["f1"] == pytest.approx(4 / 7)  # two of two found, of five
    assert said["map50"] == pytest.approx(67 / 101 / 2)  # two of three blue objects: the 67 recalls up to 2/3
    assert sum(said["calibration"]["count"]) == 4
    # bins of 1/15: 0.9 (two right), 0.8 and 0.7 (wrong)
    assert said["calibration"]["error"] == pytest.approx((2 * 0.1 + 0.8 + 0.7) / 4)
    assert list(said["precision_recall"]) == ["blue", "red"]
    assert said["precision_recall"]["blue"] == [pytest.approx(1)] * 67 + [0] * 34


def test_errors_are_shown_from_the_best_threshold(smallcnn, data):
    """Those of 0.7 and 0.8 are not, so all objects but two are missed."""
    said = json.loads(smallcnn("analyze", "m.onnx", "--data", data, "--json")[1])
    assert said["errors_above"] == pytest.approx(0.85)
    assert {kind: (one["count"], one["count_all"]) for kind, one in said["errors"].items()} == {
        "class": (0, 1), "place": (0, 1), "both": (0, 0), "duplicate": (0, 0), "background": (0, 0), "missed": (3, 1),
    }  # fmt: skip


def test_text(smallcnn, data):
    _, out, _ = smallcnn("analyze", "m.onnx", "--data", data)
    lines = out.splitlines()
    assert lines[0].endswith("(val): 4 images, 5 objects")
    assert "best threshold 0.850: precision 100.0%, recall 40.0%, F1 57.1%" in out
    rows = [line.split() for line in lines]
    assert ["missed", "3", "1"] in [row[:3] for row in rows]
    assert ["red", "2", "-", "-", "-", "-"] in rows


def test_the_page(smallcnn, data, tmp_path):
    pytest.importorskip("matplotlib")
    code, _, err = smallcnn("analyze", "m.onnx", "--data", data, "--out", tmp_path / "page.html", "--threshold", 0)
    assert (code, err) == (0, f"report: {tmp_path}/page.html\n")
    page = Page((tmp_path / "page.html").read_text())
    text = " ".join(page.words)
    for section in ("Accuracy", "Classes", "Errors", "Not well placed", "False alarms", "Missed objects",
                    "Calibration of the scores", "How this was made"):  # fmt: skip
        assert section in text
    assert page.tags.count("figure") == 3  # of the class, the place and the missed object
    assert page.tags.count("svg") >= 2


def test_nothing_found(smallcnn, data, monkeypatch):
    """A detector without any detection: everything is missed, and nothing divides by zero."""
    monkeypatch.setattr("detectors.SCORES", {})
    said = json.loads(smallcnn("analyze", "m.onnx", "--data", data, "--json")[1])
    assert said["errors"]["missed"]["count"] == 5
    assert (said["threshold"]["score"], said["map"], said["calibration"]["error"]) == (None, 0, 0)
    assert "no object is found" in smallcnn("analyze", "m.onnx", "--data", data)[1]


@pytest.mark.parametrize("option", [("--calibrate", "--save", "n.safetensors"), ("--reestimate",),
                                    ("--resolution", 32), ("--sweep", 10)])  # fmt: skip
def test_options_of_classifiers(refused, data, option):
    assert refused("analyze", "m.onnx", "--data", data, *option) == f"{option[0]} is for classifiers, not for detection"
