"""Boxes written in a format or into shards are read again as they were, to the format's precision."""

import json
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boxes_files import coco, image, images, notes, said, write
from smallcnn.data.archive import content
from smallcnn.data.boxes.convert import convert
from smallcnn.data.shards.index import Index
from smallcnn.data.sources import open_source
from smallcnn.data.split import Split
from smallcnn.data.targets import AREA, CROWD, DIFFICULT, FLAG, PLAIN, Boxes
from smallcnn.errors import DataError

SIZE = (57, 41)  # of all images; odd, so that fractions are not exact
LABELS = st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1, max_size=8).map(str.strip)


@st.composite
def sets(draw):
    """(labels, rows of each image of train, the same of val): some images without boxes."""
    labels = tuple(draw(st.lists(LABELS.filter(bool), min_size=1, max_size=4, unique=True)))

    def sides(most):
        return st.floats(0, most).map(lambda value: round(value, 3))

    def box():
        left, right = sorted((draw(sides(SIZE[0])), draw(sides(SIZE[0]))))
        top, bottom = sorted((draw(sides(SIZE[1])), draw(sides(SIZE[1]))))
        area = draw(st.sampled_from([(right - left) * (bottom - top), 0.75]))
        return left, top, right, bottom, draw(st.integers(0, len(labels) - 1)), area, draw(st.integers(0, 2))

    def rows():
        boxes = [box() for _ in range(draw(st.integers(0, 3)))]
        unique = {one[:5]: one for one in boxes if one[2] - one[0] > 0.01 and one[3] - one[1] > 0.01}
        return np.array(list(unique.values()), np.float64).reshape(-1, 7)

    return labels, [rows() for _ in range(3)], [rows() for _ in range(2)]


def splits_of(root: Path, each) -> dict[str, Split]:
    """The splits of a set. Image names need care: the same in two folders, with two suffixes, odd letters."""
    names = {"train": ["x/a.jpg", "y/a.jpg", "a b.c.png"], "val": ["a b.c.jpg", "é.png"]}
    return {
        key: Split([image(root / key / name, SIZE) for name in own], Boxes.of(rows), own)
        for (key, own), rows in zip(names.items(), each, strict=True)
    }


def by_image(splits, kept=lambda rows: rows):
    """The rows of every image of a split, in the order of their sides: images may be renamed."""
    return {
        key: sorted((kept(rows) for rows in split.targets.each()), key=lambda rows: rows[:, :5].round(3).tolist())
        for key, split in splits.items()
    }


@pytest.mark.parametrize("form", ["coco", "voc", "yolo"])
@settings(max_examples=40)
@given(made=sets())
def test_round_trip(form, made):
    labels, *each = made
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        splits = splits_of(root / "in", each)
        lost = convert(splits, labels, root / "out", form)
        found = open_source(root / "out").listing
    every = np.concatenate([*each[0], *each[1]])
    used = sorted({labels[int(number)] for number in every[:, 4]})
    order = used if form == "voc" else list(labels)  # VOC has no list of classes
    assert found.classes == tuple(order)

    def expected(rows):
        rows = rows.copy()
        rows[:, 4] = [order.index(labels[int(number)]) for number in rows[:, 4]]
        if form != "coco":
            rows[:, AREA] = (rows[:, 2] - rows[:, 0]) * (rows[:, 3] - rows[:, 1])
        if form == "voc":
            rows[:, FLAG] = np.where(rows[:, FLAG] == PLAIN, PLAIN, DIFFICULT)
        if form == "yolo":
            rows = rows[rows[:, FLAG] != CROWD]
            rows[:, FLAG] = PLAIN
        return rows

    wanted, got = by_image(splits, expected), by_image(found.splits)
    assert wanted.keys() == got.keys()
    for key in wanted:
        for one, other in zip(wanted[key], got[key], strict=True):
            np.testing.assert_allclose(other[:, :5], one[:, :5], rtol=0, atol=1e-9)  # 12 digits of 57 pixels
            np.testing.assert_allclose(other[:, AREA], one[:, AREA], rtol=1e-6)  # of sides of 0.01 and more
            np.testing.assert_array_equal(other[:, FLAG], one[:, FLAG])
    assert bool(lost) == bool({*every[:, FLAG]} & {"coco": set(), "voc": {CROWD}, "yolo": {CROWD, DIFFICULT}}[form])


def test_images_are_copied_unchanged(tmp_path):
    splits = splits_of(tmp_path / "in", [[np.array([[1, 2, 3, 4, 0, 4, 0.0]])] * 3, [np.zeros((0, 7))] * 2])
    for form in ("coco", "voc", "yolo"):
        convert(splits, ("cat",), tmp_path / form, form)
        found = sorted(path.name for path in (tmp_path / form).rglob("*") if path.suffix in (".jpg", ".png"))
        assert found == ["a b.c-2.jpg", "a b.c.png", "x_a.jpg", "y_a.jpg", "é.png"]
        before = sorted(content(file) for split in splits.values() for file in split.images)
        after = sorted(content(file) for split in open_source(tmp_path / form).splits.values() for file in split.images)
        assert after == before, form


def test_what_is_written(tmp_path):
    """Each format by hand."""
    image(tmp_path / "a.jpg", (50, 40))
    rows = np.array([[10, 4, 30, 24, 1, 300, CROWD], [0, 0, 50, 20.5, 0, 1025, DIFFICULT]])
    splits = {"val": Split([tmp_path / "a.jpg"], Boxes.of([rows]), ["a.jpg"])}
    for form in ("coco", "voc", "yolo"):
        convert(splits, ("cat & co", "dog"), tmp_path / form, form)
    made = json.loads((tmp_path / "coco/annotations/instances_val.json").read_text())
    assert made["images"] == [{"id": 1, "file_name": "a.jpg", "width": 50, "height": 40}]
    assert [(one["category_id"], one["bbox"], one["area"], one["iscrowd"]) for one in made["annotations"]] == [
        (2, [10, 4, 20, 20], 300, 1), (1, [0, 0, 50, 20.5], 1025, 0)
    ]  # fmt: skip
    assert [(one["id"], one["name"]) for one in made["categories"]] == [(1, "cat & co"), (2, "dog")]
    assert (tmp_path / "yolo/labels/val/a.txt").read_text() == "0 0.5 0.25625 1 0.5125\n"
    assert (tmp_path / "yolo/data.yaml").read_text() == (
        'path: .\nval: images/val\nnc: 2\nnames:\n  0: "cat & co"\n  1: "dog"\n'
    )
    xml = (tmp_path / "voc/Annotations/a.xml").read_text()
    assert "<name>cat &amp; co</name><difficult>1</difficult><bndbox><xmin>0.0</xmin><ymin>0.0</ymin>" in xml
    assert (tmp_path / "voc/ImageSets/Main/val.txt").read_text() == "a\n"


def test_what_cannot_be_written(tmp_path):
    image(tmp_path / "a.jpg")
    split = Split([tmp_path / "a.jpg"], Boxes.of([np.array([[1, 2, 3, 4, 0, 4, 0.0]])]), ["a.jpg"])
    with pytest.raises(DataError, match="cannot be written as XML; choose another format"):
        convert({"train": split}, ("a\x01",), tmp_path / "voc", "voc")
    assert [path.name for path in tmp_path.iterdir()] == ["a.jpg"]  # no part of the set is left
    with pytest.raises(DataError, match="is not an empty folder; choose another --out"):
        convert({"train": split}, ("a",), tmp_path, "coco")
    with pytest.raises(DataError, match="no format 'csv'; known: coco, voc, yolo"):
        convert({"train": split}, ("a",), tmp_path / "csv", "csv")
    write(tmp_path / "a.jpg", "no image")
    with pytest.raises(DataError, match="not a JPEG"):
        convert({"train": split}, ("a",), tmp_path / "coco", "coco")


class TestShards:
    @pytest.fixture
    def made(self, tmp_path, smallcnn):
        pytest.importorskip("webdataset")
        boxes = [(f"{i}.jpg", 1 + i % 2, [i, 1, 7.1, 9.3], {"area": 3.7, "iscrowd": i % 2}) for i in range(9)]
        images(tmp_path / "set/images", " ".join(f"{i}.jpg" for i in range(12)))
        write(tmp_path / "set/annotations.json", coco(boxes, names=["10.jpg"]))
        code, _, err = smallcnn("shard", tmp_path / "set", "--out", tmp_path / "shards", "--size", "1")
        assert code == 0, err
        return tmp_path

    def test_come_back_exactly(self, made):
        one, other = open_source(made / "set"), open_source(made / "shards")
        assert one.task == other.task
        assert one.fingerprint == other.fingerprint
        for key, split in one.splits.items():
            again = other.splits[key]
            assert split.names == again.names
            np.testing.assert_array_equal(again.targets.rows, split.targets.rows)
            np.testing.assert_array_equal(again.targets.counts, split.targets.counts)
            assert [content(file) for file in again.images] == [content(file) for file in split.images]

    def test_boxes_lie_next_to_their_image(self, made):
        with tarfile.open(made / "shards/train-000000.tar") as tar:
            names = tar.getnames()
            assert [name.rpartition(".")[2] for name in names] == ["jpg", "json"] * 10
            found = [json.load(tar.extractfile(name))["objects"] for name in names[1::2]]
        first = {"label": "cat", "box": [0, 1, 7.1, 10.3], "area": 3.7, "flag": 0}
        assert first in [one for each in found for one in each]
        assert sorted(map(len, found)) == [0] + [1] * 9

    @pytest.mark.parametrize("name", ["train-000000.tar", "train-{000000..000000}.tar"])
    def test_come_back_without_the_index(self, made, name, monkeypatch):
        monkeypatch.setenv("SMALLCNN_CACHE", str(made / "cache"))
        (made / "shards/index.json").unlink()
        wanted = open_source(made / "set").everything().targets.each()
        for _ in range(2):  # the second time from the cache
            found = open_source(str(made / "shards" / name))
            assert found.task.labels == ("cat", "dog")
            rows = sorted(rows.tolist() for rows in found.everything().targets.each())
            assert rows == sorted(rows.tolist() for rows in wanted)

    def test_objects_that_cannot_be_read_are_counted(self, tmp_path, monkeypatch):
        monkeypatch.setenv("SMALLCNN_CACHE", str(tmp_path / "cache"))
        good = {"label": "cat", "box": [1, 2, 3, 4], "area": 4, "flag": 0}
        bad = [good | {"box": [3, 2, 1, 4]}, good | {"label": 3}, good | {"flag": 7}, {"label": "cat"}, 5]
        files = [json.dumps({"objects": rows}) for rows in ([good], [], [good, good], *([one] for one in bad))]
        with tarfile.open(tmp_path / "x-0.tar", "w") as tar:
            for number, text in enumerate(files):
                tar.add(image(tmp_path / f"{number}.jpg"), f"{number}.jpg")
                tar.add(write(tmp_path / f"{number}.json", text), f"{number}.json")
        found = open_source(str(tmp_path / "x-0.tar"))
        assert found.everything().targets.counts.tolist() == [1, 0, 2]
        assert found.left_out.counts["with a bad label"] == len(bad)

    def test_an_index_is_not_trusted(self, made):
        text = (made / "shards/index.json").read_text()
        fields = json.loads(text)
        assert Index.from_json(text, "here").to_json() == text
        shard = fields["parts"]["train"][0]
        rest = shard["labels"][1:]
        good = [1, 2, 3, 4, 0, 5, 0]
        for row in ([], good[:6], [3, 2, 1, *good[3:]], [*good[:4], 2, 5, 0], [*good[:4], -1, 5, 0], [*good[:6], 3],
                    [*good[:4], 0.5, 5, 0], ["1", *good[1:]], [True, *good[1:]], 3, None):  # fmt: skip
            damaged = fields | {"parts": {"train": [shard | {"labels": [[row], *rest]}]}}
            with pytest.raises(DataError, match="not an index of shards"):
                Index.from_json(json.dumps(damaged), "here")
        for damaged in (fields | {"task": "x"}, fields | {"format": "smallcnn shards 1"}):
            with pytest.raises(DataError, match="not an index of shards"):
                Index.from_json(json.dumps(damaged), "here")


class TestCommand:
    @pytest.fixture
    def made(self, tmp_path):
        images(tmp_path / "set", "a.jpg b.jpg")
        write(tmp_path / "set/a.json", coco([("a.jpg", 1, [1, 2, 3, 4]), ("a.jpg", 1, [1, 2, 3, 4])], names=["b.jpg"]))
        return tmp_path

    def test_counts(self, made, smallcnn):
        code, out, err = smallcnn("boxes", made / "set")
        assert code == 0
        assert [line.split() for line in out.splitlines() if line.strip()[:3] in ("cat", "dog")] == [
            ["cat", "1"], ["dog", "0"]
        ]  # fmt: skip
        assert "train: 2 images, 1 of them without objects" in err
        assert "boxes that repeat another, dropped: 1 (first: a.jpg)" in err

    def test_json(self, made, smallcnn):
        _, out, _ = smallcnn("boxes", made / "set", "--json")
        counts = {"images": 2, "without_objects": 1, "objects": {"cat": 1, "dog": 0}, "crowds": 0, "difficult": 0}
        assert json.loads(out)["splits"] == {"train": counts}

    @pytest.mark.parametrize("form", ["coco", "voc", "yolo"])
    def test_conversion(self, made, smallcnn, form):
        code, out, _ = smallcnn("boxes", made / "set", "--to", form, "--out", made / form)
        assert (code, out) == (0, f"{made / form}\n")
        assert said(made / form) == {"train": {"a.jpg": [("cat", 1, 2, 4, 6)], "b.jpg": []}}
        assert "dropped" not in notes(made / form)

    def test_mistakes(self, made, refused):
        assert refused("boxes", made / "set", "--to", "coco").startswith("--to and --out belong together")
        assert refused("boxes", "digits") == "the images are labelled with classes, not boxes"
