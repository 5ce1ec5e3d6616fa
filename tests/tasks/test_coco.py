"""COCO's figures against pycocotools, on random and on real objects."""

import contextlib
import io
import tarfile

import numpy as np
import pytest
from PIL import Image

from shared_files import shared
from smallcnn.tasks.coco import THRESHOLDS, judge
from smallcnn.tasks.detection import DetectionAnswer
from smallcnn.tasks.matching import found_by_both, overlap
from smallcnn.tasks.objects import CROWD, DIFFICULT, PLAIN, Detections, Objects

NAMES = (
    "map", "map50", "map75", "map_small", "map_medium", "map_large",
    "recall_1", "recall_10", "recall_100", "recall_small", "recall_medium", "recall_large",
)  # fmt: skip
"""In the order of pycocotools' `stats`."""


def judged_by_pycocotools(objects, detections, images, classes):
    """Its evaluation. Difficult objects, which it does not know, are ignored like crowds, with an ordinary IoU."""
    pytest.importorskip("pycocotools")
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    class Eval(COCOeval):
        def computeIoU(self, image, category):  # noqa: N802
            own = self._gts[image, category]
            for one in own:
                one["iscrowd"] = int(one["flag"] == CROWD)
            found = super().computeIoU(image, category)
            for one in own:
                one["iscrowd"] = int(one["flag"] != PLAIN)
            return found

    def sides(box):
        left, top, right, bottom = box.tolist()
        return [left, top, right - left, bottom - top]

    truth = COCO()
    truth.dataset = {
        "images": [{"id": i + 1} for i in range(images)],
        "categories": [{"id": i + 1, "name": str(i)} for i in range(classes)],
        "annotations": [
            {"id": i + 1, "image_id": int(objects.images[i]) + 1, "category_id": int(objects.classes[i]) + 1,
             "bbox": sides(objects.boxes[i]), "area": float(objects.areas[i]),
             "iscrowd": int(objects.flags[i] != PLAIN), "flag": int(objects.flags[i])}
            for i in range(len(objects))
        ],
    }  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        results = COCO()
        results.dataset = {
            "images": truth.dataset["images"],
            "annotations": [
                {"id": i + 1, "image_id": int(detections.images[i]) + 1, "category_id": int(detections.classes[i]) + 1,
                 "bbox": sides(detections.boxes[i]), "score": float(detections.scores[i]),
                 "area": float(np.prod(sides(detections.boxes[i])[2:]))}
                for i in range(len(detections))
            ],
        }  # fmt: skip
        results.createIndex()
        judge = Eval(truth, results, "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return judge


def compare(objects, detections, images, classes):
    theirs = judged_by_pycocotools(objects, detections, images, classes)
    ours = judge(objects, detections, classes)
    wanted = np.where(theirs.stats == -1, np.nan, theirs.stats)
    np.testing.assert_allclose([ours.scores[name] for name in NAMES], wanted, rtol=0, atol=1e-9)
    assert tuple(ours.scores) == NAMES
    precision, recall = (
        np.where(found == -1, np.nan, found) for found in (theirs.eval["precision"], theirs.eval["recall"])
    )
    np.testing.assert_allclose(ours.precision, precision[:, :, :, 0, 2], rtol=0, atol=1e-12)
    np.testing.assert_allclose(ours.recall_by_size, recall[:, :, :, 2].transpose(2, 0, 1), rtol=0, atol=1e-12)
    np.testing.assert_allclose(ours.recall_by_most, recall[:, :, 0].transpose(2, 0, 1), rtol=0, atol=1e-12)
    by_class = {"map": precision[:, :, :, 0, 2].mean((0, 1)), "map50": precision[0, :, :, 0, 2].mean(0),
                "recall_100": recall[:, :, 0, 2].mean(0)}  # fmt: skip
    for name, values in by_class.items():
        np.testing.assert_allclose(ours.by_class[name], values, rtol=0, atol=1e-12)
    return ours


def random_objects(rng, images, classes, count):
    """Objects on a coarse grid, so that equal IoUs are frequent, of all sizes, one in six of them flagged."""
    boxes = rng.integers(0, 40, (count, 2)) * 8.0
    sizes = np.where(rng.random((count, 1)) < 0.5, rng.integers(1, 5, (count, 2)), rng.integers(1, 30, (count, 2))) * 8
    boxes = np.concatenate([boxes, boxes + sizes], 1)
    share = rng.choice([1.0, 0.5], count)  # an outline's area is smaller than its box
    order = np.sort(rng.integers(0, images, count))
    flags = rng.choice([PLAIN, CROWD, DIFFICULT], count, p=[10 / 12, 1 / 12, 1 / 12])
    return Objects(order, boxes, rng.integers(0, classes, count), sizes.prod(1) * share, flags)


def near(rng, objects, images, classes, count):
    """Detections next to objects, or anywhere, of the right class or another, with few different scores."""
    source = rng.integers(0, max(len(objects), 1), count)
    boxes = np.zeros((count, 4))
    if len(objects):
        boxes = objects.boxes[source] + rng.integers(-2, 3, (count, 4)) * 4.0
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2])  # some have no area
    anywhere = (rng.random(count) < 0.2) | (len(objects) == 0)
    boxes[anywhere] = np.tile(rng.integers(0, 200, (count, 2)), 2)[anywhere] + np.array([0, 0, 40.5, 33.3])
    where = rng.integers(0, images, count)
    kinds = rng.integers(0, classes, count)
    if len(objects):
        where = np.where(anywhere, where, objects.images[source])
        kinds = np.where(rng.random(count) < 0.2, kinds, objects.classes[source])
    scores = np.where(rng.random(count) < 0.5, rng.integers(0, 10, count) / 10, rng.random(count))
    order = np.argsort(where, kind="stable")
    return Detections(where[order], boxes[order], kinds[order], scores[order])


@pytest.mark.parametrize("seed", range(25))
def test_random_detections(seed):
    rng = np.random.default_rng(seed)
    images, classes = int(rng.integers(1, 12)), int(rng.integers(1, 6))
    objects = random_objects(rng, images, classes, int(rng.integers(0, 60)))
    compare(objects, near(rng, objects, images, classes, int(rng.integers(0, 200))), images, classes)


def test_more_than_a_hundred_detections_in_an_image():
    """Only the hundred best of a class in an image count: that of the last places find the objects."""
    rng = np.random.default_rng(0)
    objects = random_objects(rng, 2, 2, 60)
    found = compare(objects, near(rng, objects, 2, 2, 700), 2, 2)
    assert 0 < found.scores["recall_10"] < found.scores["recall_100"]


@pytest.mark.parametrize(("objects", "detections"), [(0, 0), (0, 20), (20, 0)])
def test_nothing_to_find_and_nothing_found(objects, detections):
    rng = np.random.default_rng(1)
    labelled = random_objects(rng, 3, 2, objects)
    found = compare(labelled, near(rng, labelled, 3, 2, detections), 3, 2)
    assert np.isnan(found.scores["map"]) if not objects else found.scores["map"] == 0


def test_memory_is_bounded_by_chunks(monkeypatch):
    """The same figures if no two objects of different images are compared together."""
    monkeypatch.setattr("smallcnn.tasks.matching._PAIRS", 1)
    rng = np.random.default_rng(2)
    objects = random_objects(rng, 5, 2, 50)
    compare(objects, near(rng, objects, 5, 2, 150), 5, 2)


@pytest.mark.parametrize(("part", "images"), [("train", 128), ("val", 64)])
def test_real_objects_moved_a_little(part, images):
    objects, names = coco_objects(part, images)
    rng = np.random.default_rng(0)
    source = np.sort(np.concatenate([rng.permutation(len(objects))[: len(objects) * 9 // 10], np.arange(0, 50)]))
    size = np.tile(objects.boxes[source, 2:] - objects.boxes[source, :2], 2)
    boxes = objects.boxes[source] + rng.normal(0, 0.06, (len(source), 4)) * size
    kinds = np.where(rng.random(len(source)) < 0.1, rng.integers(0, 80, len(source)), objects.classes[source])
    found = Detections(objects.images[source], boxes, kinds, rng.random(len(source)).round(2))
    scores = compare(objects, found, images, len(names)).scores
    assert 0.1 < scores["map"] < scores["map50"] < 1


def coco_objects(part, images):
    """The objects of the shared COCO images, class x_centre y_centre width height, and the names of the classes."""
    with tarfile.open(shared("data/coco_det_416.tar")) as archive:
        names = archive.extractfile("coco_det/names.txt").read().decode().split("\n")
        rows = []
        members = sorted(name for name in archive.getnames() if name.startswith(f"coco_det/{part}/images/"))
        assert len(members) == images
        for number, member in enumerate(members):
            size = Image.open(archive.extractfile(member)).size
            label = member.replace("/images/", "/labels/").replace(".jpg", ".txt")
            for line in archive.extractfile(label).read().decode().splitlines():
                kind, x, y, width, height = map(float, line.split())
                box = np.array([x - width / 2, y - height / 2, x + width / 2, y + height / 2]) * np.tile(size, 2)
                rows.append([number, kind, *box])
    table = np.array(rows)
    boxes = table[:, 2:]
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    flags = np.full(len(table), PLAIN)
    return Objects(table[:, 0].astype(int), boxes, table[:, 1].astype(int), areas, flags), [n for n in names if n]


def test_intersection_over_union():
    """Two boxes of 4 x 4 share 2 x 4: 8 of 24, or with a crowd 8 of 16; an empty box shares nothing."""
    box, other = np.array([0.0, 0, 4, 4]), np.array([2.0, 0, 6, 4])
    assert overlap(box, other) == pytest.approx(8 / 24)
    assert overlap(box, other, crowd=True) == 0.5
    assert overlap(box, np.array([1.0, 1, 1, 3])) == 0
    assert overlap(box, np.array([4.0, 0, 8, 4])) == 0
    assert not overlap(np.zeros((0, 4)), np.zeros((0, 4))).size


class TestFlags:
    """One object found twice: the second is a false alarm, unless the object is a crowd or difficult."""

    def figures(self, flag):
        boxes = np.array([[0.0, 0, 50, 50], [100, 100, 150, 150]])
        objects = Objects(np.zeros(2, int), boxes, np.zeros(2, int), np.full(2, 2500.0), np.array([flag, PLAIN]))
        twice = Detections(np.zeros(3, int), boxes[[0, 0, 1]], np.zeros(3, int), np.array([0.9, 0.8, 0.7]))
        return judge(objects, twice, 1)

    def test_plain(self):
        """Precision 1 up to recall 1/2 (51 of 101 recalls), then 2/3."""
        figures = self.figures(PLAIN)
        assert figures.scores["map"] == pytest.approx((51 + 50 * 2 / 3) / 101)
        assert (figures.objects.tolist(), figures.detections.tolist()) == ([2], [3])

    @pytest.mark.parametrize("flag", [CROWD, DIFFICULT])
    def test_ignored(self, flag):
        figures = self.figures(flag)
        assert figures.scores["map"] == pytest.approx(1)
        assert figures.scores["recall_100"] == 1
        assert figures.objects.tolist() == [1]

    def test_a_small_box_inside_a_crowd_is_ignored_and_inside_a_difficult_object_is_not(self):
        large, small = np.array([[0.0, 0, 100, 100]]), np.array([[10.0, 10, 30, 30]])
        other = np.array([[200.0, 200, 220, 220]])
        for flag, precision in ((CROWD, 1.0), (DIFFICULT, 0.5)):
            objects = Objects(
                np.zeros(2, int), np.concatenate([large, other]), np.zeros(2, int), np.array([1e4, 400]),
                np.array([flag, PLAIN]),
            )  # fmt: skip
            found = Detections(np.zeros(2, int), np.concatenate([small, other]), np.zeros(2, int), np.array([0.9, 0.5]))
            assert judge(objects, found, 1).scores["map50"] == pytest.approx(precision)


def test_a_class_without_objects_does_not_count():
    """The mean is over the classes with objects; the thresholds are those of COCO."""
    box = np.array([[0.0, 0, 50, 50]])
    one = np.zeros(1, int)
    objects = Objects(one, box, one + 1, np.array([2500.0]), one)
    figures = judge(objects, Detections(one, box, one, np.ones(1)), 3)
    assert figures.scores["map"] == 0
    assert np.isnan(figures.by_class["map"]).tolist() == [True, False, True]
    assert np.round(THRESHOLDS, 2).tolist() == [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95]


def test_objects_found_by_both():
    """One of two equal boxes finds a partner once; a box of another class, or too far away, finds none."""
    box, far = [10.0, 10, 30, 30], [18.0, 10, 38, 30]  # IoU 12 / 28
    labels = ("cat", "dog")
    one = DetectionAnswer(
        labels, np.array([box, box, far, box]), np.array([0.9, 0.8, 0.7, 0.6]), np.array([0, 0, 0, 1])
    )
    other = DetectionAnswer(labels, np.array([box, far]), np.array([0.9, 0.5]), np.array([0, 1]))
    assert found_by_both(one, other) == found_by_both(other, one) == 1
    assert found_by_both(one, one) == 4
    assert found_by_both(one, one.above(2)) == 0
