"""`evaluate` of detectors: which boxes are judged, in which pixels, and what is printed."""

import json

import numpy as np
import pytest

from detectors import IMAGES, SIDE, detector, images, listing
from smallcnn.data.sources import open_source
from smallcnn.data.targets import CLASS, DIFFICULT, FLAG, NO_BOX
from smallcnn.errors import DataError, GraphError
from smallcnn.evaluate import evaluate, targets_for
from smallcnn.tasks.detection import Detection
from smallcnn.tasks.metrics import scores


@pytest.fixture
def photos(tmp_path):
    return images(tmp_path / "photos")


def of(photos, **changes):
    """The data set as a source."""
    from smallcnn.data.sources import Source

    given = listing(photos, **changes)
    return Source(given, given.splits, val_is_cut=False)


@pytest.mark.parametrize("fit", ["letterbox", "stretch"])
def test_boxes_are_judged_in_pixels_of_the_image(photos, fit):
    """Each box is found to within a pixel of the input, which is an IoU above 0.75, in images of any shape."""
    result = evaluate(detector(fit=fit), of(photos))
    assert result.scores["map75"] == pytest.approx(1)
    assert result.figures.objects.tolist() == [2, 1, 1]
    for answer, (_, rectangles) in zip(result.found, IMAGES.values(), strict=True):
        boxes = [answer.boxes[list(answer.classes).index(answer.labels.index(name))] for name, _ in rectangles]
        for box, (_, wanted) in zip(boxes, rectangles, strict=True):
            np.testing.assert_allclose(box, wanted, atol=1.5 * 192 / SIDE)


def test_labels_are_matched_by_name(photos):
    """The data numbers its classes differently, has one without objects, and lacks one that the network finds."""
    others = ("unused", "red", "green", "blue")
    result = evaluate(detector(), of(photos, classes=others))
    assert result.scores["map75"] == pytest.approx(1)

    def without_blue(_, rows):
        return rows[rows[:, CLASS] != 3]

    fewer = evaluate(detector(), of(photos, classes=others, change=without_blue))
    assert fewer.figures.objects.tolist() == [0, 1, 1]
    assert np.isnan(fewer.figures.by_class["map"]).tolist() == [True, False, False]

    def numbered(_, rows):
        rows[:, CLASS] -= 1
        return rows

    source = of(photos, change=lambda name, rows: numbered(name, rows[rows[:, CLASS] > 0]))
    renamed = type(source)(
        type(source.listing)(Detection(("green", "red")), source.splits, place=source.listing.place),
        source.splits,
        False,
    )
    found = evaluate(detector(), renamed).found
    assert [[one.label for one in answer.found] for answer in found] == [["red"], ["green"], [], []]


def test_a_class_that_the_network_does_not_know(photos):
    with pytest.raises(DataError, match="does not know green; it knows blue, red"):
        evaluate(detector(("blue", "red")), of(photos))


def test_padding_stays_padding(photos):
    source = of(photos, classes=("green", "red", "blue"))
    targets = targets_for(Detection(("blue", "green", "red")), source, source.splits["val"])
    assert targets.shape == (4, 2, 7)
    assert targets[:, :, CLASS].tolist() == [[0, 2], [1, NO_BOX], [NO_BOX, NO_BOX], [0, NO_BOX]]


def test_an_image_that_cannot_be_decoded(photos):
    """Its objects are not counted as missed."""
    (photos / "b.jpg").write_bytes(b"no image")
    result = evaluate(detector(), of(photos))
    assert list(result.skipped) == ["b.jpg"]
    assert result.figures.objects.tolist() == [2, 0, 1]
    assert result.scores["map75"] == pytest.approx(1)


def test_difficult_objects_need_not_be_found(photos):
    def without_red(name, rows):
        """Red boxes are where nothing is; they are difficult."""
        rows[rows[:, CLASS] == 2, :4] = [0, 0, 5, 5]
        rows[rows[:, CLASS] == 2, FLAG] = DIFFICULT
        return rows

    result = evaluate(detector(), of(photos, change=without_red))
    assert result.figures.objects.tolist() == [2, 1, 0]
    assert result.scores["map50"] == pytest.approx(1)


def test_scores_need_the_part_of_each_image_that_was_seen(photos):
    result = evaluate(detector(), of(photos))
    answers = result.answers
    again = scores(result.task, answers.outputs, answers.targets, answers.seen)
    assert again == pytest.approx(result.scores, nan_ok=True)
    with pytest.raises(ValueError, match="zip"):
        scores(result.task, answers.outputs, answers.targets)


def test_a_classifier_has_no_objects(photos):
    with pytest.raises(GraphError, match="a confusion matrix is for classifiers, not for detection"):
        evaluate(detector(), of(photos)).metrics  # noqa: B018


class TestCommand:
    @pytest.fixture
    def command(self, smallcnn, monkeypatch, photos):
        """Runs `evaluate` on the images, with red boxes in the wrong place."""

        def change(name, rows):
            rows[rows[:, CLASS] == 2, :4] += 20
            return rows

        monkeypatch.setattr("smallcnn.runtime.open", lambda *_args, **_kwargs: detector())
        monkeypatch.setattr("smallcnn.data.sources.listed", lambda *_args, **_kwargs: listing(photos, change=change))

        def call(*options, said=""):
            code, out, err = smallcnn("evaluate", "m.onnx", "--data", photos, *options)
            assert (code, err) == (0, said)
            return out

        return call

    def test_json(self, command, photos):
        said = json.loads(command("--json"))
        assert (said["map50"], said["images"], said["split"]) == (pytest.approx(2 / 3), 4, "val")
        assert said["seconds"] > 0
        assert {one["label"]: (one["objects"], one["detections"], one["map50"]) for one in said["classes"]} == {
            "blue": (2, 2, pytest.approx(1)), "green": (1, 1, pytest.approx(1)), "red": (1, 1, 0),
        }  # fmt: skip
        assert said["map"] == pytest.approx(np.mean([one["map"] for one in said["classes"]]))

    def test_text(self, command):
        lines = command().splitlines()
        assert "m.onnx, fake, " in lines[0]
        assert "(val): 4 images in " in lines[0]
        assert lines[1].split("   ")[1] == "AP50 66.67%"
        assert "AR 100 " in lines[2]
        rows = [line.split() for line in lines[3:] if line.strip() and "─" not in line]
        assert rows[0] == ["class", "objects", "detections", "AP", "AP50", "AR", "100"]
        assert rows[3] == ["red", "1", "1", "0.0%", "0.0%", "0.0%"]

    def test_plot(self, command, tmp_path):
        pytest.importorskip("matplotlib")
        command("--plot", tmp_path / "curves.svg", said=f"plot: {tmp_path / 'curves.svg'}\n")
        text = (tmp_path / "curves.svg").read_text()
        assert "<svg" in text


def test_the_fixture_is_listed_as_it_is(photos):
    assert open_source(of(photos)).splits["val"].targets.counts.tolist() == [2, 1, 0, 1]
