"""`smallcnn predict` with a detector: objects in words, JSON, CSV and COCO's results, and drawn."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from artifacts import LABELS, artifact
from detectors import IMAGES, SCORES, detector, images
from smallcnn.image.draw import colour
from smallcnn.model.store import save
from smallcnn.tasks.detection import Detection


@pytest.fixture
def photos(tmp_path, monkeypatch):
    monkeypatch.setattr("smallcnn.runtime.open", lambda *_, limits, **__: detector(threshold=limits.threshold or 0))
    return images(tmp_path / "photos")


def wanted(name):
    """The objects of an image by falling score."""
    return sorted(IMAGES[name][1], key=lambda one: -SCORES[one[0]])


def test_in_words(smallcnn, photos):
    code, out, err = smallcnn("predict", "m.onnx", photos)
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        f"{photos}/a.png: 2 objects: blue 90.0% at 8,8 32x16; red 70.0% at 64,16 56x40",
        f"{photos}/b.jpg: 1 object: green 80.0% at 4,4 56x56",
        f"{photos}/c.png: no objects",
        f"{photos}/deep/a.png: 1 object: blue 90.0% at 96,6 84x54",
    ]
    _, out, _ = smallcnn("predict", "m.onnx", photos / "a.png", "--top", 1)
    assert out == f"{photos}/a.png: 2 objects: blue 90.0% at 8,8 32x16; and 1 more\n"


def test_json_and_csv(smallcnn, photos):
    records = json.loads(smallcnn("predict", "m.onnx", photos, "--json")[1])
    assert [record["image"] for record in records] == [str(photos / name) for name in IMAGES]
    rows = list(csv.DictReader(smallcnn("predict", "m.onnx", photos, "--csv")[1].splitlines()))
    for record, name in zip(records, IMAGES, strict=True):
        assert [one["label"] for one in record["objects"]] == [label for label, _ in wanted(name)]
        mine = [row for row in rows if row["file"] == str(photos / name)]
        for one, row, (label, box) in zip(record["objects"], mine, wanted(name), strict=True):
            assert one["score"] == pytest.approx(SCORES[label])
            np.testing.assert_allclose(one["box"], box, atol=1.5 * max(IMAGES[name][0]) / 64)  # a pixel of the input
            assert (row["label"], float(row["score"])) == (label, pytest.approx(SCORES[label]))
            sides = [float(row[side]) for side in ("left", "top", "right", "bottom")]
            np.testing.assert_allclose(sides, one["box"], rtol=1e-5)
    one = json.loads(smallcnn("predict", "m.onnx", photos, "--json", "--top", 1)[1])
    assert [len(record["objects"]) for record in one] == [1, 1, 0, 1]


def test_threshold_and_labels(smallcnn, refused, photos):
    def labels(*options):
        records = json.loads(smallcnn("predict", "m.onnx", photos, "--json", *options)[1])
        return [[one["label"] for one in record["objects"]] for record in records]

    assert labels("--threshold", 0.75) == [["blue"], ["green"], [], ["blue"]]
    assert labels("--labels", "red, green") == [["red"], ["green"], [], []]
    assert labels("--labels", "blue,red", "--threshold", 0.95) == [[], [], [], []]
    said = refused("predict", "m.onnx", photos, "--labels", "gren")
    assert said == "the network does not know 'gren'; closest: green, red"


def test_drawn(smallcnn, photos, tmp_path):
    """The box's frame has the class's colour, a JPEG stays one, and images of the same name stay apart."""
    code, _, err = smallcnn("predict", "m.onnx", photos, photos / "deep" / "a.png", "--draw", tmp_path / "drawn")
    assert (code, err) == (0, "")
    made = sorted(str(path.relative_to(tmp_path / "drawn")) for path in (tmp_path / "drawn").rglob("*.*"))
    assert made == ["a-2.png", "a.png", "b.jpg", "c.png", "deep/a.png"]
    drawn = np.asarray(Image.open(tmp_path / "drawn" / "a.png"))
    assert drawn.shape == (64, 128, 3)
    assert drawn[55, 90].tolist() == list(colour(LABELS.index("red")))  # the last row inside the box
    assert drawn[36, 90].tolist() == [220, 50, 40]  # the rectangle itself
    assert Image.open(tmp_path / "drawn" / "b.jpg").format == "JPEG"
    np.testing.assert_array_equal(Image.open(tmp_path / "drawn" / "c.png"), Image.open(photos / "c.png"))


def test_no_file_is_replaced(refused, smallcnn, photos, tmp_path):
    before = (photos / "a.png").read_bytes()
    assert refused("predict", "m.onnx", photos, "--draw", photos) == (
        f"{photos}/a.png exists already; give --draw another folder"
    )
    assert (photos / "a.png").read_bytes() == before
    smallcnn("predict", "m.onnx", photos / "a.png", "--draw", tmp_path / "drawn")
    assert "exists already" in refused("predict", "m.onnx", photos, "--draw", tmp_path / "drawn")
    assert not (tmp_path / "drawn" / "b.jpg").exists()


def test_a_damaged_image_is_named_and_the_others_are_drawn(smallcnn, photos, tmp_path):
    (photos / "b.jpg").write_bytes(b"no image")
    code, out, err = smallcnn("predict", "m.onnx", photos, "--draw", tmp_path / "drawn", "--coco", tmp_path / "c.json")
    assert (code, len(out.splitlines())) == (2, 3)
    assert "b.jpg" in err
    assert not (tmp_path / "drawn" / "b.jpg").exists()
    assert {one["file_name"] for one in json.loads((tmp_path / "c.json").read_text())} == {
        str(photos / "a.png"),
        str(photos / "deep" / "a.png"),
    }


def test_coco_results_are_read_by_pycocotools(smallcnn, tmp_path, photos):
    """File names that are numbers are ids, as in COCO; categories count from 1."""
    pytest.importorskip("pycocotools")
    from pycocotools.coco import COCO

    for name, number in (("a.png", "000000000042.png"), ("b.jpg", "000000000007.jpg")):
        (photos / name).rename(photos / number)
    code, _, err = smallcnn("predict", "m.onnx", photos / "000000000042.png", photos / "000000000007.jpg",
                            "--coco", tmp_path / "found.json")  # fmt: skip
    assert (code, err) == (0, f"results: {tmp_path / 'found.json'}\n")
    truth = COCO()
    truth.dataset = {
        "images": [{"id": 42}, {"id": 7}],
        "categories": [{"id": i, "name": name} for i, name in enumerate(LABELS, 1)],
        "annotations": [],
    }
    truth.createIndex()
    found = truth.loadRes(str(tmp_path / "found.json"))
    assert [(one["image_id"], one["category_id"]) for one in found.dataset["annotations"]] == [(42, 1), (42, 3), (7, 2)]
    for one, (_, box) in zip(found.dataset["annotations"], wanted("a.png") + wanted("b.jpg"), strict=True):
        np.testing.assert_allclose(one["bbox"], [*box[:2], box[2] - box[0], box[3] - box[1]], atol=4)


def test_other_names_are_numbered(smallcnn, photos, tmp_path):
    smallcnn("predict", "m.onnx", photos, "--coco", tmp_path / "found.json")
    found = json.loads((tmp_path / "found.json").read_text())
    assert [one["image_id"] for one in found] == [1, 1, 2, 4]
    assert [one["category"] for one in found] == ["blue", "red", "green", "blue"]


@pytest.mark.parametrize(("option", "value"), [("--labels", "red"), ("--draw", "drawn"), ("--coco", "found.json")])
def test_options_of_detectors(refused, tmp_path, monkeypatch, option, value):
    monkeypatch.chdir(tmp_path)
    save(artifact(), tmp_path / "m.safetensors")
    Image.new("RGB", (8, 8)).save("a.png")
    assert refused("predict", "m.safetensors", "a.png", option, value) == (
        f"{option} is for detectors, not for classification"
    )


def test_answers_above_a_score():
    """Equal to the threshold is not above it, as in the detector; nothing left is no objects."""
    task = Detection(("a", "b"))
    outputs = {
        "boxes": np.array([[0, 0, 1, 1], [0.5, 0.5, 1, 1], [0, 0, 0, 0]]), "scores": np.array([0.5, 0.25, 0]),
        "classes": np.array([1, 0, 0]), "count": np.array([2]),
    }  # fmt: skip
    answer = task.answer(outputs)
    assert [one.label for one in answer.found] == ["b", "a"]
    assert answer.above(0.49).found == answer.found[:1]
    assert answer.above(0.25).found == answer.found[:1]
    assert answer.above(0.5).found == ()
    assert answer.take([]).found == ()
