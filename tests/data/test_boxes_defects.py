"""Annotations with defects: mended and counted, or refused in one line with counts."""

import numpy as np
import pytest

from boxes_files import coco, image, images, notes, said, voc, write
from smallcnn.data.sources import open_source
from smallcnn.errors import DataError


def boxes(place):
    """The sides of all boxes."""
    return open_source(place).everything().targets.rows[:, :4].tolist()


def refused(place) -> str:
    with pytest.raises(DataError) as caught:
        open_source(place)
    line = str(caught.value)
    assert "\n" not in line
    return line


def one(tmp_path, *wrong, size=(64, 48), **options):
    """A set of one image with these COCO boxes, and a good one."""
    image(tmp_path / "a.jpg")
    made = coco([("a.jpg", 1, list(box)) for box in (*wrong, (1, 2, 3, 4))], size=size, categories=("cat",), **options)
    write(tmp_path / "a.json", made)
    return tmp_path


GOOD = [1.0, 2.0, 4.0, 6.0]


class TestBoxes:
    @pytest.mark.parametrize(
        ("box", "found", "note"),
        [
            ((-5, 40, 20, 20), [[0, 40, 15, 48]], "boxes that reach beyond their images, clipped: 1 (first: a.jpg)"),
            ((44, 40, 20.5, 8.9), [[44, 40, 64, 48]], ""),  # by less than a pixel: rounding
            ((65, 2, 20, 20), [], "boxes outside of their images, dropped: 1 (first: a.jpg)"),
            ((10, 10, 0, 20), [], "empty boxes, dropped: 1 (first: a.jpg)"),
            ((30, 20, -20, -10), [[10, 10, 30, 20]], "boxes with sides in the wrong order, swapped: 1 (first: a.jpg)"),
            ((1, 2, 3, 4), [], "boxes that repeat another, dropped: 1 (first: a.jpg)"),
            ((float("nan"), 2, 3, 4), [], "boxes without numbers, dropped: 1 (first: a.jpg)"),
            ((1, 2, float("inf"), 4), [], "boxes without numbers, dropped: 1 (first: a.jpg)"),
            ((1, 2, "much", 4), [], "boxes without numbers, dropped: 1 (first: a.jpg)"),
            ((1, 2, 10**400, 4), [], "boxes without numbers, dropped: 1 (first: a.jpg)"),
            ((1, 2, 3), [], "boxes without numbers, dropped: 1 (first: a.jpg)"),
            (("1.5", 2, 3, 4), [[1.5, 2, 4.5, 6]], ""),
        ],
        ids=str,
    )
    def test_mended(self, tmp_path, box, found, note):
        assert boxes(one(tmp_path, box)) == [*found, GOOD]
        assert notes(tmp_path).removeprefix(f"{tmp_path}: ") == note

    def test_without_numbers_in_a_table(self, tmp_path):
        write(
            images(tmp_path, "a.jpg") / "a.csv", "file,class,xmin,ymin,xmax,ymax\na.jpg,x,1,2,4,6\na.jpg,x,nan,2,4,6\n"
        )
        assert boxes(tmp_path) == [GOOD]
        assert "boxes without numbers, dropped: 1" in notes(tmp_path)

    def test_fractions_a_little_beyond_the_edge_are_none_of_pixels(self, tmp_path):
        write(images(tmp_path, "a.jpg") / "a.txt", "0 0.5 0.5 1.1 0.5\n")
        assert boxes(tmp_path) == [[0, 12, 64, 36]]

    def test_nothing_left_to_train_on(self, tmp_path):
        write(images(tmp_path, "a.jpg b.jpg") / "a.json", coco([("a.jpg", 1, [1, 1, 0, 0])], names=["b.jpg"]))
        source = open_source(tmp_path)
        assert source.untrainable == f"{tmp_path}: no boxes to train on"
        assert len(source.everything()) == 2


class TestSizes:
    """One image of 64x48 as stored, and annotations of another size."""

    @pytest.mark.parametrize(
        ("orientation", "size", "box"),
        [
            (6, (64, 48), (42, 1, 46, 4)),  # stored before it is turned right: x = 48 - (2 + 4), y = 1
            (8, (64, 48), (2, 60, 6, 63)),  # left: x = 2, y = 64 - (1 + 3)
            (5, (64, 48), (2, 1, 6, 4)),
            (7, (64, 48), (42, 60, 46, 63)),
            (6, (48, 64), (1, 2, 4, 6)),  # upright
            (6, (128, 96), (45, 0.5, 47, 2)),  # stored, twice as large
            (3, (64, 48), (1, 2, 4, 6)),  # half a turn: the size is the same, so the upright image is meant
            (1, (128, 96), (0.5, 1, 2, 3)),
            (1, (65, 48), (1, 2, 4, 6)),
            (1, (0, 0), (1, 2, 4, 6)),
        ],
    )
    def test_boxes_are_those_of_the_upright_image(self, tmp_path, orientation, size, box):
        one(tmp_path, size=size)
        image(tmp_path / "a.jpg", orientation=orientation)
        np.testing.assert_allclose(boxes(tmp_path), [box])
        turned = "images annotated before EXIF turns them, boxes turned: 1 (first: a.jpg)" in notes(tmp_path)
        assert turned == (orientation > 3 and size != (48, 64))
        assert ("images scaled since they were annotated, boxes scaled too: 1" in notes(tmp_path)) == (size[0] == 128)

    def test_an_image_of_half_a_turn_follows_the_others(self, tmp_path):
        made = coco([(name, 1, [1, 2, 3, 4]) for name in ("a.jpg", "b.jpg")], categories=("cat",))
        image(tmp_path / "a.jpg", orientation=3)
        image(tmp_path / "b.jpg", orientation=6)
        write(tmp_path / "a.json", made)
        np.testing.assert_allclose(boxes(tmp_path), [(60, 42, 63, 46), (42, 1, 46, 4)])

    def test_a_turned_box_covers_the_same_pixels(self, tmp_path):
        """White pixels under the box, as they are decoded."""
        from PIL import Image

        from smallcnn.image.decode import decode

        for orientation in range(5, 9):
            root = one(tmp_path / str(orientation), (20, 8, 24, 16))
            pixels = np.zeros((48, 64, 3), np.uint8)
            pixels[8:24, 20:44] = 255
            exif = Image.Exif()
            exif[0x0112] = orientation
            Image.fromarray(pixels).save(root / "a.png", exif=exif)
            (root / "a.jpg").unlink()
            upright = np.asarray(decode(root / "a.png", 1).image)
            left, top, right, bottom = map(int, boxes(root)[0])
            assert (upright[top:bottom, left:right] == 255).all()
            assert (upright == 255).sum() == (right - left) * (bottom - top) == 24 * 16

    def test_another_shape_is_kept_if_the_boxes_fit(self, tmp_path):
        assert boxes(one(tmp_path, size=(48, 64))) == [GOOD]
        assert "images of another size than annotated, boxes kept: 1 (first: a.jpg)" in notes(tmp_path)

    def test_another_shape_is_refused_if_they_do_not(self, tmp_path):
        line = refused(one(tmp_path, (10, 50, 10, 10), size=(48, 64)))
        assert line == f"{tmp_path}: images of another shape than annotated, with boxes outside: 1 (first: a.jpg)"

    def test_area_scales_with_the_image(self, tmp_path):
        image(tmp_path / "a.jpg")
        write(tmp_path / "a.json", coco([("a.jpg", 1, [2, 4, 6, 8], {"area": 20})], size=(128, 96)))
        assert open_source(tmp_path).everything().targets.rows.tolist() == [[1, 2, 4, 6, 0, 5, 0]]


class TestCoco:
    @pytest.fixture
    def made(self, tmp_path):
        images(tmp_path, "a.jpg b.jpg")
        return coco([("a.jpg", 1, [1, 2, 3, 4]), ("b.jpg", 2, [1, 2, 3, 4])])

    def test_duplicate_image_ids(self, tmp_path, made):
        made["images"][1]["id"] = 10
        write(tmp_path / "a.json", made)
        assert refused(tmp_path) == f"{tmp_path}/a.json: image ids of two files: 1 (first: 10: a.jpg, b.jpg)"

    def test_an_image_listed_twice_has_the_boxes_of_both(self, tmp_path, made):
        made["images"][1]["file_name"] = "a.jpg"
        write(tmp_path / "a.json", made)
        assert said(tmp_path) == {"train": {"a.jpg": [("cat", *GOOD), ("dog", *GOOD)]}}

    def test_annotation_ids_do_not_matter(self, tmp_path, made):
        made["annotations"][1]["id"] = 0
        write(tmp_path / "a.json", made)
        assert boxes(tmp_path) == [GOOD, GOOD]

    def test_duplicate_categories(self, tmp_path, made):
        made["categories"][1]["name"] = "cat"
        write(tmp_path / "a.json", made)
        assert open_source(tmp_path).classes == ("cat",)
        made["categories"] += [{"id": 1, "name": "cow"}]
        write(tmp_path / "a.json", made)
        assert refused(tmp_path) == f"{tmp_path}/a.json: category ids with two names: 1 (first: 1: cat, cow)"

    def test_boxes_of_nothing(self, tmp_path, made):
        made["annotations"][1]["image_id"] = 99
        made["annotations"] += [dict(made["annotations"][0], category_id=7)]
        write(tmp_path / "a.json", made)
        assert refused(tmp_path).endswith("a.json: boxes of a category that is not listed: 1 (first: 7)")
        made["annotations"].pop()
        write(tmp_path / "a.json", made)
        assert said(tmp_path) == {"train": {"a.jpg": [("cat", *GOOD)], "b.jpg": []}}
        assert "boxes of an image that is not listed: 1 (first: image_id 99)" in notes(tmp_path)
        assert "classes without a box: 1 of 2 (dog)" in notes(tmp_path)

    def test_images_that_are_not_there(self, tmp_path, made):
        (tmp_path / "b.jpg").unlink()
        write(tmp_path / "a.json", made)
        assert said(tmp_path) == {"train": {"a.jpg": [("cat", *GOOD)]}}
        assert "images that are annotated but not there: 1 (first: b.jpg)" in notes(tmp_path)
        (tmp_path / "a.jpg").unlink()
        line = f"{tmp_path}: no images with annotations (images that are annotated but not there: 2 (first: a.jpg))"
        assert refused(tmp_path) == line

    def test_a_missing_image_does_not_take_the_place_of_another(self, tmp_path):
        images(tmp_path, "cats/1.jpg")
        write(tmp_path / "a.json", coco([("cats/1.jpg", 1, [1, 2, 3, 4]), ("dogs/1.jpg", 2, [5, 6, 7, 8])]))
        assert said(tmp_path) == {"train": {"1.jpg": [("cat", *GOOD)]}}
        assert "not there: 1 (first: dogs/1.jpg)" in notes(tmp_path)

    def test_a_name_that_several_images_have(self, tmp_path):
        images(tmp_path, "one/1.jpg two/1.jpg")
        write(tmp_path / "a.json", coco([("1.jpg", 1, [1, 2, 3, 4])]))
        assert refused(tmp_path).endswith("a.json: names that several images have: 1 (first: 1.jpg in a.json)")

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b'{"images": [], "annotations": [], "categories": []', "not JSON"),
            (b'{"images": 1, "annotations": [], "categories": []}', "not COCO annotations: its images are not a list"),
            (
                b'{"images": [1], "annotations": [], "categories": []}',
                "not COCO annotations: its images are not a list",
            ),
            (b'{"images": [], "annotations": [], "categories": []}', "no images with annotations"),
            (b'{"images": [], "annotations": ' + b"[" * 100_000 + b', "categories": 1}', "not JSON"),
            (b'{"images": [{"id": 1}], "annotations": [], "categories": []}', "images without an id or a file_name: 1"),
            (b'{"images": [{}], "annotations": [], "categories": [{"id": 1}]}', "categories without an id or a name"),
            (b'{"images": [], "annotations": [], "categories": [], "x": ' + b"1" * 5000 + b"}", "not JSON"),
        ],
    )
    def test_damaged_files(self, tmp_path, content, message):
        write(images(tmp_path, "a.jpg") / "a.json", content)
        assert message in refused(tmp_path)
        assert message in refused(tmp_path / "a.json")

    def test_odd_labels(self, tmp_path):
        odd = ["traffic light", " é\u200b ", "a/b:c", "<b>", "日本"]
        write(images(tmp_path, "a.jpg") / "a.json", coco([("a.jpg", 1, [1, 2, 3, 4])], categories=odd))
        assert open_source(tmp_path).classes == ("traffic light", "é\u200b", "a/b:c", "<b>", "日本")
        write(tmp_path / "a.json", coco([("a.jpg", 1, [1, 2, 3, 4])], categories=["x" * 1001]))
        assert "a class has a name of 1,001 characters; at most 1,000 are allowed" in refused(tmp_path)


class TestVoc:
    def test_a_bomb_is_refused(self, tmp_path):
        entities = "".join(f'<!ENTITY {a} "{f"&{b};" * 10}">' for a, b in zip("bcdefghij", "abcdefghi", strict=True))
        bomb = f'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">{entities}]>{voc([("&j;", 1, 2, 3, 4)])}'
        for content in (bomb.encode(), bomb.encode("utf-16")):
            write(images(tmp_path, "a.jpg") / "a.xml", content)
            line = f"{tmp_path}: files that are not valid XML: 1 (first: a.xml: it defines a document type)"
            assert refused(tmp_path) == line

    def test_files_that_are_not_whole(self, tmp_path):
        images(tmp_path, "a.jpg b.jpg")
        write(tmp_path / "a.xml", voc([("cat", 1, 2, 4, 6)])[:-5])
        write(tmp_path / "b.xml", voc([("cat", 1, 2, 4, 6)]))
        assert "files that are not valid XML: 1 (first: a.xml: unclosed token" in refused(tmp_path)

    def test_objects_without_a_name_or_a_box(self, tmp_path):
        write(images(tmp_path, "a.jpg") / "a.xml", voc([("", 1, 2, 4, 6)]))
        assert refused(tmp_path) == f"{tmp_path}: objects without a name: 1 (first: a.xml)"
        write(
            tmp_path / "a.xml",
            voc([("cat", 1, 2, 4, 6)]).replace("</object>", "</object><object><name>dog</name></object>"),
        )
        assert said(tmp_path) == {"train": {"a.jpg": [("cat", *GOOD)]}}
        assert "objects without a box: 1 (first: a.xml)" in notes(tmp_path)

    def test_parts_of_objects_are_not_objects(self, tmp_path):
        part = (
            "<part><name>head</name><bndbox><xmin>9</xmin><ymin>9</ymin><xmax>10</xmax><ymax>10</ymax></bndbox></part>"
        )
        write(images(tmp_path, "a.jpg") / "a.xml", voc([("cat", 1, 2, 4, 6)]).replace("<bndbox>", part + "<bndbox>", 1))
        assert said(tmp_path) == {"train": {"a.jpg": [("cat", *GOOD)]}}

    def test_a_file_without_image(self, tmp_path):
        write(images(tmp_path, "a.jpg") / "a.xml", voc([("cat", 1, 2, 4, 6)]))
        write(tmp_path / "b.xml", voc([("cat", 1, 2, 4, 6)], filename="b.jpg"))
        assert said(tmp_path) == {"train": {"a.jpg": [("cat", *GOOD)]}}
        assert "annotation files without an image: 1 (first: b.xml)" in notes(tmp_path)


class TestYolo:
    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("0 0.5 0.5 0.1 0.1\n0 0.5 0.5 0.1\n", "lines that are not {}: 1 (first: a.txt, line 2)"),
            ("0 0.5 0.5 0.1 0.1\n\n0.5 0.5 0.5 0.1 0.1\n", "lines that are not {}: 1 (first: a.txt, line 3)"),
            ("0 0.5 0.5 0.1 0.1\n0 0.5 0.5 0.1 x\n", "lines that are not {}: 1 (first: a.txt, line 2)"),
            ("2 0.5 0.5 0.1 0.1\n", "objects of a class without a name: 1 (first: a.txt: class 2)"),
            ("-1 0.5 0.5 0.1 0.1\n", "objects of a class without a name: 1 (first: a.txt: class -1)"),
        ],
    )
    def test_lines_that_are_refused(self, tmp_path, text, message):
        write(images(tmp_path, "a.jpg") / "a.txt", text)
        write(tmp_path / "classes.txt", "cat\ndog\n")
        assert refused(tmp_path) == f"{tmp_path}: " + message.format("'class x y width height'")

    def test_a_huge_class_number_makes_no_labels(self, tmp_path):
        write(images(tmp_path, "a.jpg") / "a.txt", "99999999 0.5 0.5 0.1 0.1\n0 0.5 0.5 0.1 0.1\n")
        assert open_source(tmp_path).classes == ("0", "99999999")
        assert "no names of classes (data.yaml, obj.names or classes.txt): they are numbers" in notes(tmp_path)

    def test_labels_without_an_image(self, tmp_path):
        write(images(tmp_path, "a.jpg") / "a.txt", "0 0.5 0.5 0.25 0.25\n")
        write(tmp_path / "b.txt", "0 0.5 0.5 0.25 0.25\n")
        write(tmp_path / "notes.txt", "taken in May\n")
        assert said(tmp_path) == {"train": {"a.jpg": [("0", 24, 18, 40, 30)]}}
        assert "label files without an image: 1 (first: b.txt)" in notes(tmp_path)
        assert open_source(tmp_path).left_out.line() == "left out 1 file: 1 .txt"

    def test_one_folder_for_training_and_validation_is_cut(self, tmp_path):
        """As in coco128.yaml."""
        for i in range(10):
            image(tmp_path / f"images/train2017/{i}.jpg")
            write(tmp_path / f"labels/train2017/{i}.txt", "0 0.5 0.5 0.25 0.25\n")
        write(tmp_path / "data.yaml", "train: images/train2017\nval: images/train2017\nnames: [cat]\n")
        source = open_source(tmp_path)
        assert {key: len(split) for key, split in source.splits.items()} == {"train": 8, "val": 2}

    @pytest.mark.parametrize(
        ("names", "labels"),
        [
            ("names: ['a, b', \"it's\", c d]", ("a, b", "it's", "c d")),
            ("names:\n- a\n- 'b # no comment'  # comment\n- c", ("a", "b # no comment", "c")),
            ("names:\n  0: a\n  1: 'b: c'\n  2: \"\\u00e9\"", ("a", "b: c", "é")),
            ("names: {0: a, 1: b,\n  2: c}", ("a", "b", "c")),
            ('names: ["a",\n  "b",\n  "c"\n]', ("a", "b", "c")),
        ],
    )
    def test_names_in_yaml(self, tmp_path, names, labels):
        write(images(tmp_path, "a.jpg") / "a.txt", "2 0.5 0.5 0.25 0.25\n")
        write(
            tmp_path / "data.yaml", f"# a set\npath: ../x\ntrain: images\n{names}\nnc: 3\nroboflow:\n  workspace: x\n"
        )
        assert open_source(tmp_path).classes == labels

    @pytest.mark.parametrize("names", ["names:", "names: {}", "names: [a, '']", "names: {x: a}", "names: 3"])
    def test_names_that_cannot_be_read(self, tmp_path, names):
        write(images(tmp_path, "a.jpg") / "a.txt", "0 0.5 0.5 0.25 0.25\n")
        write(tmp_path / "data.yaml", f"{names}\ntrain: x\n")
        assert refused(tmp_path).startswith(f"{tmp_path}/data.yaml: ")


class TestTables:
    @pytest.mark.parametrize(
        ("row", "message"),
        [
            ("a.jpg,cat,1,2,x,6", "rows whose sides are not four numbers: 1 (first: a.csv, row 3)"),
            ("a.jpg,cat,1,2,,6", "rows whose sides are not four numbers: 1 (first: a.csv, row 3)"),
            (",cat,1,2,3,6", "rows without a file: 1 (first: a.csv, row 3)"),
            ("a.jpg,,1,2,3,6", "rows with a box but no class: 1 (first: a.csv, row 3)"),
        ],
    )
    def test_rows_that_are_refused(self, tmp_path, row, message):
        write(images(tmp_path, "a.jpg") / "a.csv", f"file,class,xmin,ymin,xmax,ymax\na.jpg,cat,1,2,3,6\n{row}\n")
        assert refused(tmp_path) == f"{tmp_path}: {message}"

    def test_a_column_of_classes_that_is_missing(self, tmp_path):
        write(images(tmp_path, "a.jpg") / "a.csv", "file,xmin,ymin,xmax,ymax\na.jpg,1,2,4,6\n")
        assert said(tmp_path) == {"train": {"a.jpg": [("object", *GOOD)]}}
        assert notes(tmp_path) == f"{tmp_path}/a.csv: no column of classes: all objects are of class 'object'"

    def test_rows_without_an_image(self, tmp_path):
        write(images(tmp_path, "a.jpg") / "a.csv", "a.jpg,1,2,4,6,cat\nb.jpg,1,2,4,6,cat\nb.jpg,1,2,5,6,cat\n")
        assert said(tmp_path) == {"train": {"a.jpg": [("cat", *GOOD)]}}
        assert "images that are annotated but not there: 1 (first: b.jpg)" in notes(tmp_path)


def test_a_name_may_not_break_the_line(tmp_path):
    made = coco([("a\n\x1b.jpg", 1, [1, 2, 3, 4]), ("a.jpg", 1, [1, 2, 3, 4])])
    write(images(tmp_path, "a.jpg") / "a.json", made)
    assert "not there: 1 (first: a??.jpg)" in notes(tmp_path)
    assert all(note.isprintable() for note in open_source(tmp_path).notes)
