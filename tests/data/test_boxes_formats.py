"""Annotations of objects in the formats and layouts that occur: the same boxes from each, and from an archive of it."""

import shutil
import tarfile

import numpy as np
import pytest

from boxes_files import coco, image, images, notes, said, voc, write
from shared_files import shared
from smallcnn.data.sources import open_source
from smallcnn.data.targets import AREA, CROWD, DIFFICULT, FLAG, PLAIN
from smallcnn.errors import DataError
from smallcnn.tasks.attributes import Attributes
from smallcnn.tasks.classification import Classification
from smallcnn.tasks.detection import Detection

A = [("cat", 10.0, 4.0, 30.0, 28.0), ("dog", 0.0, 0.0, 64.0, 48.0)]
B = [("dog", 8.0, 12.0, 16.0, 36.0)]
WANTED = {"a.jpg": A, "b.jpg": B}
COCO_A = [("a.jpg", 1, [10, 4, 20, 24]), ("a.jpg", 2, [0, 0, 64, 48])]
COCO_B = [("b.jpg", 2, [8, 12, 8, 24])]
VOC_A = [("cat", 10, 4, 30, 28), ("dog", 0, 0, 64, 48)]
VOC_B = [("dog", 8, 12, 16, 36)]
YOLO_A = "0 0.3125 0.33333333333 0.3125 0.5\n1 0.5 0.5 1 1\n"
YOLO_B = "1 0.1875 0.5 0.125 0.5\n"
YAML = "names: [cat, dog]\nnc: 2\n"


def coco_of_all(root):
    write(images(root, "images/a.jpg images/b.jpg") / "annotations.json", coco(COCO_A + COCO_B))


def coco_next_to_images(root):
    write(images(root, "a.jpg b.jpg") / "_annotations.coco.json", coco(COCO_A + COCO_B))


def coco_of_another_system(root):
    """A BOM, Windows paths, ids as text and as floats."""
    made = coco([("C:\\me\\images\\" + name, *rest) for name, *rest in COCO_A + COCO_B])
    for entry in made["annotations"]:
        entry["category_id"] = float(entry["category_id"])
        entry["image_id"] = str(entry["image_id"])
    text = __import__("json").dumps(made)
    write(images(root, "images/a.jpg images/b.jpg") / "annotations.json", b"\xef\xbb\xbf" + text.encode())


def coco_of_outlines(root):
    made = coco(COCO_A + COCO_B)
    for entry in made["annotations"]:
        left, top, width, height = entry.pop("bbox")
        entry["segmentation"] = [[left, top, left + width, top], [left, top + height, left + width, top + height]]
    write(images(root, "images/a.jpg images/b.jpg") / "annotations.json", made)


def voc_devkit(root):
    images(root / "VOC2007", "JPEGImages/a.jpg JPEGImages/b.jpg")
    write(root / "VOC2007/Annotations/a.xml", voc(VOC_A, filename="a.jpg"))
    write(root / "VOC2007/Annotations/b.xml", voc(VOC_B, filename="b.jpg"))


def voc_official(root):
    """Sides count from 1, and the last pixel is inside."""
    shifted = [
        [(name, left + 1, top + 1, right, bottom) for name, left, top, right, bottom in one] for one in (VOC_A, VOC_B)
    ]
    for stem, objects in zip("ab", shifted, strict=True):
        write(images(root, f"{stem}.jpg") / f"{stem}.xml", voc(objects, database="The VOC2007 Database"))


def voc_renamed(root):
    """The name in the XML is that of before the images were renamed."""
    for stem, objects in (("a", VOC_A), ("b", VOC_B)):
        write(images(root, f"photos/{stem}.jpg") / f"xml/{stem}.xml", voc(objects, filename="IMG_1.JPG", size=(0, 0)))


def yolo_ultralytics(root):
    images(root, "images/a.jpg images/b.jpg")
    write(root / "labels/a.txt", YOLO_A)
    write(root / "labels/b.txt", YOLO_B)
    write(root / "data.yaml", YAML)


def yolo_darknet(root):
    images(root, "obj_train_data/a.jpg obj_train_data/b.jpg")
    write(root / "obj_train_data/a.txt", YOLO_A)
    write(root / "obj_train_data/b.txt", YOLO_B)
    write(root / "obj.data", "classes = 2\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n")
    write(root / "obj.names", "cat\ndog\n")
    write(root / "train.txt", "data/obj_train_data/a.jpg\ndata/obj_train_data/b.jpg\n")


def yolo_labelimg(root):
    """classes.txt among the labels; CRLF; sides in pixels."""
    images(root, "a.jpg b.jpg")
    write(root / "a.txt", "0 20 16 20 24\r\n1 32 24 64 48\r\n")
    write(root / "b.txt", "1 12 24 8 24\r\n")
    write(root / "classes.txt", "cat\r\ndog\r\n")


def yolo_outlines(root):
    """Polygons, as for segmentation; the second line is an oriented box."""
    images(root, "a.jpg b.jpg")
    a = "0 0.15625 0.0833333333 0.46875 0.0833333333 0.2 0.58333333333\n1 0 0.5 0.5 0 1 0.5 0.5 1\n"
    write(root / "a.txt", a)
    write(root / "b.txt", "1 0.125 0.25 0.25 0.25 0.25 0.75\n")
    write(root / "data.yaml", 'train: images\nnames:\n  0: "cat"  # first\n  1: dog\n')


def csv_of_tensorflow(root):
    rows = [
        "filename,width,height,class,xmin,ymin,xmax,ymax",
        "a.jpg,64,48,cat,10,4,30,28",
        "a.jpg,64,48,dog,0,0,64,48",
    ]
    write(images(root, "images/a.jpg images/b.jpg") / "labels.csv", "\n".join([*rows, "b.jpg,64,48,dog,8,12,16,36"]))


def csv_without_titles(root):
    rows = ["images/a.jpg,10,4,30,28,cat", "images/a.jpg,0,0,64,48,dog", "images/b.jpg,8,12,16,36,dog"]
    write(images(root, "images/a.jpg images/b.jpg") / "train.csv", "\n".join(rows))


def csv_of_corner_and_size(root):
    rows = ["image;label;x;y;w;h", "a.jpg;cat;10;4;20;24", "a.jpg;dog;0;0;64;48", "b.jpg;dog;8;12;8;24"]
    write(images(root, "a.jpg b.jpg") / "boxes.csv", "\n".join(rows))


def csv_of_fractions(root):
    rows = [
        "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax",
        "a,x,cat,1,0.15625,0.46875,0.083333333,0.5833333333",
    ]
    rows += ["a,x,dog,1,0,1,0,1", "b,x,dog,1,0.125,0.25,0.25,0.75"]
    write(images(root, "a.jpg b.jpg") / "boxes.csv", "\n".join(rows))


def csv_of_lists(root):
    rows = ["image_id,width,height,bbox,class", 'a,64,48,"[10, 4, 20, 24]",cat', 'a,64,48,"[0.0, 0, 64, 48]",dog']
    write(images(root, "a.jpg b.jpg") / "boxes.csv", "\n".join([*rows, 'b,64,48,"[8, 12, 8, 24]",dog']))


LAYOUTS = [
    coco_of_all, coco_next_to_images, coco_of_another_system, coco_of_outlines, voc_devkit, voc_official, voc_renamed,
    yolo_ultralytics, yolo_darknet, yolo_labelimg, yolo_outlines, csv_of_tensorflow, csv_without_titles,
    csv_of_corner_and_size, csv_of_fractions, csv_of_lists,
]  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
def test_the_same_boxes_from_every_layout(tmp_path, layout):
    layout(root := tmp_path / "set")
    source = open_source(root)
    assert source.task == Detection(("cat", "dog"))
    assert said(root) == {"train": WANTED}
    assert source.listing.notes in ((), (f"the data set is {root}/VOC2007, the only one in {root}",))
    assert source.listing.left_out.line() == ""
    for suffix, form in (("zip", "zip"), ("tar", "tar"), ("tar.gz", "gztar")):
        shutil.make_archive(str(tmp_path / "packed"), form, tmp_path, "set")
        assert said(tmp_path / f"packed.{suffix}") == {"train": WANTED}, suffix


@pytest.mark.parametrize("layout", [coco_next_to_images, yolo_labelimg, voc_official], ids=lambda one: one.__name__)
def test_a_tar_without_folders_is_no_shard(tmp_path, layout):
    layout(root := tmp_path / "set")
    with tarfile.open(tmp_path / "flat.tar", "w") as tar:
        for path in sorted(root.iterdir()):
            tar.add(path, path.name)
    assert said(tmp_path / "flat.tar") == {"train": WANTED}


class TestSplits:
    def test_one_coco_file_each(self, tmp_path):
        images(tmp_path, "train2017/a.jpg val2017/b.jpg")
        write(tmp_path / "annotations/instances_train2017.json", coco(COCO_A))
        write(tmp_path / "annotations/instances_val2017.json", coco(COCO_B))
        captions = {"images": coco(COCO_A)["images"], "annotations": [{"image_id": 10, "caption": "a cat"}]}
        write(tmp_path / "annotations/captions_train2017.json", captions)
        write(tmp_path / "annotations/person_keypoints_train2017.json", coco([("a.jpg", 1, [1, 1, 2, 2])]))
        assert said(tmp_path) == {"train": {"a.jpg": A}, "val": {"b.jpg": B}}
        assert said(tmp_path / "annotations/instances_val2017.json") == {"val": {"b.jpg": B}}

    def test_a_folder_each(self, tmp_path):
        """As Roboflow writes: the same names in each folder, and a category above the others."""
        for folder, boxes in (("train", COCO_A), ("valid", [("a.jpg", *COCO_B[0][1:])])):
            made = coco(boxes)
            made["categories"].insert(0, {"id": 0, "name": "pets", "supercategory": "none"})
            made["categories"][1]["supercategory"] = made["categories"][2]["supercategory"] = "pets"
            write(images(tmp_path / folder, "a.jpg") / "_annotations.coco.json", made)
        assert said(tmp_path) == {"train": {"a.jpg": A}, "val": {"a.jpg": B}}
        assert open_source(tmp_path).classes == ("cat", "dog")
        assert notes(tmp_path).count("category 'pets' is above others and has no boxes: not a class") == 2

    def test_lists_of_voc(self, tmp_path):
        images(tmp_path, "JPEGImages/a.jpg JPEGImages/b.jpg JPEGImages/c.jpg")
        for stem, objects in (("a", VOC_A), ("b", VOC_B), ("c", VOC_B)):
            write(tmp_path / f"Annotations/{stem}.xml", voc(objects))
        write(tmp_path / "ImageSets/Main/train.txt", "a\n")
        write(tmp_path / "ImageSets/Main/trainval.txt", "a\nb\n")
        write(tmp_path / "ImageSets/Main/val.txt", "b  1\n")
        assert said(tmp_path) == {"train": {"a.jpg": A}, "val": {"b.jpg": B}}
        assert "annotated images in no split, not used: 1 (first: JPEGImages/c.jpg)" in notes(tmp_path)

    @pytest.mark.parametrize("places", ["images/{}", "{}/images"])
    def test_folders_of_yolo(self, tmp_path, places):
        for folder, text in (("train", YOLO_A), ("valid", YOLO_B), ("test", YOLO_B)):
            path = places.format(folder)
            images(tmp_path / path, f"{folder}.jpg")
            write(tmp_path / path.replace("images", "labels") / f"{folder}.txt", text)
        write(tmp_path / "data.yaml", f"train: ../{places.format('train')}\nval: ../{places.format('valid')}\n{YAML}")
        found = said(tmp_path)
        assert found == {"train": {"train.jpg": A}, "val": {"valid.jpg": B}, "test": {"test.jpg": B}}

    def test_lists_of_yolo(self, tmp_path):
        images(tmp_path, "all/a.jpg all/b.jpg")
        write(tmp_path / "all/a.txt", YOLO_A)
        write(tmp_path / "all/b.txt", YOLO_B)
        write(tmp_path / "obj.names", "cat\ndog\n")
        write(tmp_path / "train.txt", "/home/me/all/a.jpg\n")
        write(tmp_path / "valid.txt", "/home/me/all/b.jpg\n")
        assert said(tmp_path) == {"train": {"a.jpg": A}, "val": {"b.jpg": B}}

    def test_tables(self, tmp_path):
        images(tmp_path, "images/a.jpg images/b.jpg")
        write(
            tmp_path / "train_labels.csv", "file,class,xmin,ymin,xmax,ymax\na.jpg,cat,10,4,30,28\na.jpg,dog,0,0,64,48\n"
        )
        write(tmp_path / "test_labels.csv", "file,class,xmin,ymin,xmax,ymax\nb.jpg,dog,8,12,16,36\n")
        assert said(tmp_path) == {"train": {"a.jpg": A}, "test": {"b.jpg": B}}

    def test_an_image_of_two_splits_is_not_trained_on(self, tmp_path):
        images(tmp_path, "images/a.jpg images/b.jpg")
        write(tmp_path / "instances_train.json", coco(COCO_A + COCO_B))
        write(tmp_path / "instances_val.json", coco(COCO_B))
        assert said(tmp_path) == {"train": {"a.jpg": A}, "val": {"b.jpg": B}}
        assert "images annotated for several splits, kept in val: 1 (first: images/b.jpg)" in notes(tmp_path)

    def test_a_cut_has_rare_classes_on_both_sides(self, tmp_path):
        boxes = [(f"{i}.jpg", 1, [1, 1, 5, 5]) for i in range(40)] + [(f"{i}.jpg", 2, [2, 2, 5, 5]) for i in range(5)]
        images(tmp_path, " ".join(f"{i}.jpg" for i in range(40)))
        write(tmp_path / "boxes.json", coco(boxes))
        one, again = open_source(tmp_path), open_source(tmp_path, seed=0)
        assert one.splits["val"].names == again.splits["val"].names != open_source(tmp_path, seed=1).splits["val"].names
        assert [int((split.targets.rows[:, 4] == 1).sum()) for split in one.splits.values()] == [4, 1]
        assert [len(split) for split in one.splits.values()] == [32, 8]
        assert not set(one.splits["val"].names) & set(one.splits["train"].names)
        groups = open_source(tmp_path, groups=r"(\d)\d?\.jpg")
        sides = [{name[0] for name in split.names} for split in groups.splits.values()]
        assert not sides[0] & sides[1]


class TestFlags:
    def test_of_coco(self, tmp_path):
        boxes = [("a.jpg", 1, [1, 1, 5, 5], {"iscrowd": 1, "area": 7.5}), ("a.jpg", 1, [2, 2, 5, 5], {"ignore": 1})]
        write(images(tmp_path, "a.jpg") / "a.json", coco([*boxes, ("a.jpg", 1, [3, 3, 5, 4])]))
        rows = open_source(tmp_path).everything().targets.rows
        assert rows[:, FLAG].tolist() == [CROWD, DIFFICULT, PLAIN]
        assert rows[:, AREA].tolist() == [7.5, 25, 20]

    def test_of_voc(self, tmp_path):
        write(images(tmp_path, "a.jpg") / "a.xml", voc([("cat", 1, 1, 5, 5, 1), ("cat", 2, 2, 5, 5)]))
        assert open_source(tmp_path).everything().targets.rows[:, FLAG].tolist() == [DIFFICULT, PLAIN]

    def test_of_tables(self, tmp_path):
        table = "file,class,xmin,ymin,xmax,ymax,IsGroupOf,difficult\na.jpg,x,1,1,5,5,1,0\na.jpg,x,2,2,5,5,0,true\n"
        write(images(tmp_path, "a.jpg") / "a.csv", table)
        assert open_source(tmp_path).everything().targets.rows[:, FLAG].tolist() == [CROWD, DIFFICULT]


class TestOtherSetsStayWhatTheyAre:
    def test_class_folders_with_texts(self, tmp_path):
        images(tmp_path, "cat/a.jpg cat/b.jpg dog/c.jpg dog/d.jpg")
        write(tmp_path / "cat/a.txt", "a cat on a mat")
        write(tmp_path / "classes.txt", "cat\ndog\n")
        write(tmp_path / "meta.json", '{"images": [], "annotations": "none"}')
        write(tmp_path / "cat/a.xml", "<root><annotation/></root>")
        assert open_source(tmp_path).task == Classification(("cat", "dog"))
        assert "left out 4 files: 2 .txt, 1 .json, 1 .xml" in notes(tmp_path)

    def test_class_folders_with_points_of_faces(self, tmp_path):
        images(tmp_path, "cat/a.jpg cat/b.jpg dog/c.jpg dog/d.jpg")
        write(tmp_path / "cat/a.txt", "9 175 160 239 162 199 199 149 121 137 78 166 93 281 101 312 96 296 133\n")
        write(tmp_path / "dog/c.txt", "0.5 175 160 239 162\n")
        assert open_source(tmp_path).task == Classification(("cat", "dog"))

    def test_attributes(self, tmp_path):
        write(images(tmp_path, "a.jpg b.jpg") / "labels.csv", "file,width,height\na.jpg,big,yes\nb.jpg,small,no\n")
        assert isinstance(open_source(tmp_path).task, Attributes)

    def test_columns_ask_for_attributes(self, tmp_path):
        csv_of_tensorflow(tmp_path)
        with pytest.raises(DataError, match="images with several rows"):
            open_source(tmp_path, columns=["class"])

    def test_panoptic_segmentation(self, tmp_path):
        panoptic = {"images": [], "categories": [], "annotations": [{"image_id": 1, "segments_info": []}]}
        write(images(tmp_path, "cat/a.jpg dog/b.jpg") / "panoptic.json", panoptic)
        assert open_source(tmp_path).task == Classification(("cat", "dog"))
        with pytest.raises(DataError, match=r"panoptic\.json: not COCO annotations, which have lists of images"):
            open_source(tmp_path / "panoptic.json")


def test_images_without_objects_are_kept_where_the_format_says_so(tmp_path):
    made = {
        "coco": lambda root: write(root / "a.json", coco(COCO_A, names=["b.jpg"])),
        "voc": lambda root: (write(root / "a.xml", voc(VOC_A)), write(root / "b.xml", voc([]))),
        "yolo": lambda root: (
            write(root / "a.txt", YOLO_A),
            write(root / "b.txt", ""),
            write(root / "data.yaml", YAML),
        ),
        "csv": lambda root: write(root / "a.csv", "a.jpg,10,4,30,28,cat\na.jpg,0,0,64,48,dog\nb.jpg,,,,,\n"),
    }
    for form, make in made.items():
        make(images(tmp_path / form, "a.jpg b.jpg c.jpg"))
        assert said(tmp_path / form) == {"train": {"a.jpg": A, "b.jpg": []}}, form
        assert open_source(tmp_path / form).left_out.line() == "left out 1 file: 1 without annotations", form


def test_shared_sets(tmp_path):
    """Counts of the sets' own description."""
    wanted = {
        "raccoon_320.tar": (160, 174, 1), "coco_det_416.tar": (192, 1390, 80),
        "bccd_voc_416.tar": (292, 3922, 3), "rabbits_coco_416.tar": (128, 167, 1),
    }  # fmt: skip
    for name, (count, boxes, classes) in wanted.items():
        source = open_source(shared(f"data/{name}"))
        everything = source.everything()
        assert (len(everything), len(everything.targets.rows), len(source.classes)) == (count, boxes, classes), name
        sides = everything.targets.rows[:, :4]
        assert (sides >= 0).all()
        assert (sides[:, :2] < sides[:, 2:]).all()
        np.testing.assert_array_equal(everything.targets.counts.sum(), boxes)


def test_an_image_that_cannot_be_opened(tmp_path):
    coco_of_all(tmp_path)
    (tmp_path / "images/a.jpg").write_bytes(b"no image")
    assert said(tmp_path) == {"train": WANTED}, "its size is stated"
    yolo_ultralytics(tmp_path / "yolo")
    image(tmp_path / "yolo/images/a.jpg").write_bytes(b"no image")
    assert said(tmp_path / "yolo") == {"train": {"a.jpg": [], "b.jpg": B}}
    assert "boxes of images that cannot be read, dropped: 2 (first: images/a.jpg)" in notes(tmp_path / "yolo")
