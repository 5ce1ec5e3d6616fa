"""Tables of attributes next to images: what they say, where they lie, and messages on those that do not fit."""

import tarfile
import time
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared_files import shared
from smallcnn.data.shards.write import write_shards
from smallcnn.data.sources import open_source
from smallcnn.data.split import Split
from smallcnn.data.table import Names
from smallcnn.data.targets import Attributes, Classes
from smallcnn.errors import DataError
from smallcnn.tasks.attributes import Attributes as Task
from smallcnn.tasks.classification import Classification

NAN = np.nan
TABLE = """file,colour,smiling,old
1.jpg,red,yes,0
2.jpg,blue,,1
3.jpg,,NO,1
4.jpg,red,true,-1
"""
COLOURS = ("colour: blue", "colour: red")
SAYS = {
    "1.jpg": [0, 1, 1, 0],
    "2.jpg": [1, 0, NAN, 1],
    "3.jpg": [NAN, NAN, 0, 1],
    "4.jpg": [0, 1, 1, 0],
}


def make(root, table=TABLE, *, folder="", images=("1.jpg", "2.jpg", "3.jpg", "4.jpg"), name="labels.csv"):
    """Empty images (`open_source` decodes none) in `folder`, and a table next to it."""
    (root / folder).mkdir(parents=True, exist_ok=True)
    for image in images:
        (root / folder / image).parent.mkdir(parents=True, exist_ok=True)
        (root / folder / image).touch()
    (root / name).write_bytes(table if isinstance(table, bytes) else table.encode())
    return root


def said(source):
    """Base name -> targets, over all splits."""
    split = source.everything()
    assert [name.rsplit("/", 1)[-1] for name in split.names] == [image.name for image in split.images]
    return {path.name: row.tolist() for path, row in zip(split.images, split.targets.array, strict=True)}


def same(found, wanted):
    assert found.keys() == wanted.keys()
    for name, row in wanted.items():
        np.testing.assert_array_equal(found[name], row, err_msg=name)


def problem(source, **options):
    with pytest.raises(DataError) as caught:
        open_source(source, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


class TestWhatATableSays:
    @pytest.mark.parametrize("folder", ["", "images", "a/b"])
    def test_choices_and_yes_or_no(self, tmp_path, folder):
        source = open_source(make(tmp_path, folder=folder))
        assert source.task == Task((*COLOURS, "smiling", "old"), {"colour": COLOURS})
        assert source.classes == source.task.labels
        same(said(source), SAYS)
        assert source.notes == ()
        assert source.everything().targets.array.dtype == np.float32

    @pytest.mark.parametrize("separator", [",", ";", "\t"])
    @pytest.mark.parametrize("path", ["{0}", "./images/{0}", "images\\{0}", "set/images/{0}"])
    def test_separators_and_ways_to_name_a_file(self, tmp_path, separator, path):
        lines = [line.split(",") for line in TABLE.splitlines()]
        rows = [lines[0], *([path.format(name), *cells] for name, *cells in lines[1:])]
        table = "\r\n".join(separator.join(row) for row in rows)
        suffix = "tsv" if separator == "\t" else "csv"
        make(tmp_path, b"\xef\xbb\xbf" + table.encode(), folder="images", name=f"Labels.{suffix}")
        same(said(open_source(tmp_path)), SAYS)

    def test_columns_in_the_order_given(self, tmp_path):
        source = open_source(make(tmp_path), columns=["old", "colour"])
        assert source.task == Task(("old", *COLOURS), {"colour": COLOURS})
        same(said(source), {name: [row[3], *row[:2]] for name, row in SAYS.items()})

    def test_the_questions_of_a_task_where_the_table_has_them(self, tmp_path):
        make(tmp_path)
        task = Task(("hat", "old", "colour: red"), {"colour": ("colour: red",)})
        same(said(open_source(tmp_path, columns=task)), said(open_source(tmp_path, columns=["old", "colour"])))
        for other in (Task(("hat",)), Classification(("a", "b"))):
            assert open_source(tmp_path, columns=other).fingerprint == open_source(tmp_path).fingerprint

    def test_a_short_row_ends_in_unknown(self, tmp_path):
        make(tmp_path, "file,a,b\n1.jpg,yes,no\n\n2.jpg,no\n", images=("1.jpg", "2.jpg"))
        same(said(open_source(tmp_path)), {"1.jpg": [1, 0], "2.jpg": [0, NAN]})

    def test_numbers_other_than_yes_and_no_are_values(self, tmp_path):
        make(tmp_path, "file,doors\n1.jpg,0\n2.jpg,1\n3.jpg,2\n", images=("1.jpg", "2.jpg", "3.jpg"))
        assert open_source(tmp_path).classes == ("doors: 0", "doors: 1", "doors: 2")

    def test_a_column_that_names_every_image_is_not_used_unless_it_is_wanted(self, tmp_path):
        images = [f"{i}.jpg" for i in range(12)]
        rows = [f"{image},{'yn'[i % 2]},id{i:02}" for i, image in enumerate(images)]
        make(tmp_path, "\n".join(["file,a,id", *rows]), images=images)
        source = open_source(tmp_path)
        assert source.classes == ("a: n", "a: y")
        path = tmp_path / "labels.csv"
        assert source.notes == (f"{path}: column 'id' is not used: its 12 values are all different",)
        assert open_source(tmp_path, columns=["id"]).classes == tuple(f"id: id{i:02}" for i in range(12))

    def test_columns_without_an_answer(self, tmp_path):
        make(tmp_path, "file,a,b\n1.jpg,yes,\n2.jpg,no,\n", images=("1.jpg", "2.jpg"))
        path = tmp_path / "labels.csv"
        assert open_source(tmp_path).notes == (f"{path}: column 'b' is not used: it is empty",)
        assert problem(tmp_path, columns=["b"]) == f"{path}: column 'b' is not used: it is empty"

    def test_too_many_values(self, tmp_path):
        images = [f"{i}.jpg" for i in range(1002)]
        make(
            tmp_path,
            "\n".join(["file,a,b", *(f"{image},x{i % 1001},yes" for i, image in enumerate(images))]),
            images=images,
        )
        assert open_source(tmp_path).classes == ("b",)
        assert "it has 1,001 different values, and a question at most 1,000" in problem(tmp_path, columns=["a"])


class TestWhereItLies:
    @pytest.mark.parametrize("around", ["", "set/"])
    @pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip"])
    def test_archives(self, tmp_path, kind, around):
        make(tmp_path / "set", folder="images")
        path = tmp_path / f"set.{kind}"
        files = [file for file in sorted((tmp_path / "set").rglob("*")) if file.is_file()]
        names = [around + file.relative_to(tmp_path / "set").as_posix() for file in files]
        if kind == "zip":
            with zipfile.ZipFile(path, "w") as archive:
                for file, name in zip(files, names, strict=True):
                    archive.write(file, name)
        else:
            with tarfile.open(path, "w:gz" if kind == "tar.gz" else "w") as tar:
                for file, name in zip(files, names, strict=True):
                    tar.add(file, name)
        source, folder = open_source(path), open_source(tmp_path / "set")
        assert source.fingerprint == folder.fingerprint
        assert source.notes == ()
        for key, split in source.splits.items():
            assert split.names == folder.splits[key].names
            np.testing.assert_array_equal(split.targets.array, folder.splits[key].targets.array)

    def test_a_folder_around_it_is_noted(self, tmp_path):
        make(tmp_path / "set")
        assert open_source(tmp_path).notes == (f"the data set is {tmp_path / 'set'}, the only one in {tmp_path}",)

    def test_files_outside_the_splits_are_counted(self, tmp_path):
        make(tmp_path / "set", images=("train/1.jpg", "train/2.jpg", "train/3.jpg", "val/4.jpg", "5.jpg"))
        for name in ("README", "set/notes.txt", "set/train/x.pdf"):
            (tmp_path / name).touch()
        source = open_source(tmp_path)
        assert source.left_out.as_dict()["files"] == {
            ".pdf": 1,
            ".txt": 1,
            "outside the splits": 1,
            "without suffix": 1,
        }
        same(said(source), SAYS)

    def test_splits_under_one_table(self, tmp_path):
        make(tmp_path, images=("train/1.jpg", "train/deep/2.jpg", "valid/3.jpg", "test/4.jpg"))
        source = open_source(tmp_path)
        names = {key: list(split.names) for key, split in source.splits.items()}
        assert names == {"train": ["train/1.jpg", "train/deep/2.jpg"], "val": ["valid/3.jpg"], "test": ["test/4.jpg"]}
        assert not source.val_is_cut
        same(said(source), SAYS)

    def test_a_table_in_each_split(self, tmp_path):
        make(tmp_path / "train", "file,smiling,colour\n1.jpg,yes,red\n2.jpg,,blue\n", images=("1.jpg", "2.jpg"))
        make(tmp_path / "test", "file,colour,hat\n1.jpg,pink,no\n", images=("1.jpg",))
        source = open_source(tmp_path)
        assert source.classes == ("smiling", "colour: blue", "colour: pink", "colour: red", "hat")
        everything = source.everything()
        assert sorted(everything.names) == ["test/1.jpg", "train/1.jpg", "train/2.jpg"]
        found = dict(zip(everything.names, everything.targets.array, strict=True))
        np.testing.assert_array_equal(found["train/1.jpg"], [1, 0, 0, 1, NAN])
        np.testing.assert_array_equal(found["train/2.jpg"], [NAN, 1, 0, 0, NAN])
        np.testing.assert_array_equal(found["test/1.jpg"], [NAN, 0, 1, 0, 0])

    def test_class_folders_come_first_unless_the_table_is_given(self, tmp_path):
        make(tmp_path, images=("a/1.jpg", "a/2.jpg", "b/3.jpg", "b/4.jpg"))
        source = open_source(tmp_path)
        assert source.task == Classification(("a", "b"))
        assert source.notes == ("left out 1 file: 1 .csv",)
        source = open_source(tmp_path / "labels.csv")
        assert source.notes == ()
        same(said(source), SAYS)

    def test_a_table_of_something_else_is_left_out(self, tmp_path):
        make(tmp_path, "a,b\n1,2\n", name="sizes.csv", folder="images")
        make(tmp_path, folder="images")
        source = open_source(tmp_path)
        assert source.notes == ("left out 1 file: 1 .csv",)
        same(said(source), SAYS)

    def test_class_folders_called_like_splits(self, tmp_path):
        make(tmp_path, images=("train/1.jpg", "plane/2.jpg", "test/3.jpg", "plane/4.jpg"))
        assert open_source(tmp_path).classes == ("plane", "test", "train")

    def test_cut_like_any_set_and_with_groups(self, tmp_path):
        images = [f"{i}.jpg" for i in range(20)]
        make(
            tmp_path,
            "\n".join(["file,a", *(f"{image},{'yes' if i % 3 else 'no'}" for i, image in enumerate(images))]),
            images=images,
        )
        source = open_source(tmp_path, seed=3)
        assert source.val_is_cut
        assert [len(split) for split in source.splits.values()] == [16, 4]
        source = open_source(tmp_path, groups=r"(\d)\d?\.jpg")
        sides = [{name[0] for name in split.names} for split in source.splits.values()]
        assert not sides[0] & sides[1]

    def test_a_source_is_cut_again_without_being_listed(self, tmp_path):
        images = [f"{i}.jpg" for i in range(20)]
        make(tmp_path, "\n".join(["file,a", *(f"{image},yes" for image in images)]), images=images)
        source = open_source(tmp_path, seed=3)
        again = {seed: open_source(tmp_path, seed=seed) for seed in (3, 4)}
        (tmp_path / "labels.csv").unlink()
        for seed, want in again.items():
            assert open_source(source, seed=seed).splits["val"].names == want.splits["val"].names


class TestRefused:
    @pytest.mark.parametrize(
        ("table", "message"),
        [
            ("file,a\n1.jpg,yes\n2.jpg,no\n", "images without a row: 2 of 4 ('3.jpg')"),
            (TABLE + "5.jpg,red,,\n6.jpg,,,\n", "rows without an image: 2 of 6 (row 6: '5.jpg')"),
            (TABLE + "2.jpg,red,,\n", "images with several rows: 1 (rows 3 and 6: '2.jpg')"),
            (
                TABLE.replace("4.jpg", "5.jpg"),
                "rows without an image: 1 of 4 (row 5: '5.jpg'); images without a row: 1 of 4 ('4.jpg')",
            ),
            (TABLE.replace("old", "colour"), "several columns are called colour"),
            (TABLE.replace("red,yes", "red,yes,x,y"), "row 2 has 6 cells, for 4 titles"),
            ("file\n1.jpg\n2.jpg\n3.jpg\n4.jpg\n", "no column to learn; it only names the files"),
            ("file,a,a: x\n1.jpg,x,yes\n2.jpg,y,no\n3.jpg,,\n4.jpg,,\n", "the same label twice: a: x"),
        ],
    )  # fmt: skip
    def test_one_line_with_counts(self, tmp_path, table, message):
        assert problem(make(tmp_path, table)) == f"{tmp_path / 'labels.csv'}: {message}"

    def test_no_such_column(self, tmp_path):
        message = problem(make(tmp_path), columns=["smiling", "color"])
        assert message == f"{tmp_path / 'labels.csv'}: no column 'color'; closest: colour, old"

    def test_a_name_of_two_images(self, tmp_path):
        make(tmp_path, images=("a/1.jpg", "b/1.jpg", "2.jpg", "3.jpg", "4.jpg"))
        assert problem(tmp_path / "labels.csv").endswith("row 2: '1.jpg' names 2 images (a/1.jpg, b/1.jpg)")

    def test_two_tables(self, tmp_path):
        make(tmp_path)
        make(tmp_path, name="other.csv")
        message = "2 tables that name images (labels.csv, other.csv); one is needed"
        assert problem(tmp_path) == f"{tmp_path}: {message}"
        same(said(open_source(tmp_path / "other.csv")), SAYS)

    def test_a_split_without_a_table(self, tmp_path):
        make(tmp_path / "train")
        make(tmp_path / "val").joinpath("labels.csv").unlink()
        assert problem(tmp_path) == f"{tmp_path / 'val'}: no table that names the images; one is needed"

    def test_a_split_without_images(self, tmp_path):
        make(tmp_path, images=("train/1.jpg", "train/2.jpg", "train/3.jpg", "train/4.jpg"))
        (tmp_path / "val").mkdir()
        assert problem(tmp_path) == f"{tmp_path / 'val'}: no images"

    def test_columns_of_class_folders(self, tmp_path):
        make(tmp_path, "x", images=("a/1.jpg", "b/1.jpg"), name="x.txt")
        message = "columns are those of a table next to the images, and none was found"
        assert problem(tmp_path, columns=["a"]) == f"{tmp_path}: {message}"
        np.savez(tmp_path / "x.npz", x=np.zeros((2, 4, 4), np.uint8), y=np.arange(2))
        assert problem(tmp_path / "x.npz", columns=["a"]).startswith("columns are those of a table")

    def test_damaged_tables(self, tmp_path):
        make(tmp_path, b"\xff\xfe")
        assert problem(tmp_path / "labels.csv").startswith(f"{tmp_path / 'labels.csv'}: not a table")

    def test_shards_of_attributes(self, tmp_path):
        pytest.importorskip("webdataset")
        source = open_source(make(tmp_path))
        with pytest.raises(DataError, match="shards hold one class or the boxes of each image, not attributes"):
            write_shards(source.task, source.splits, tmp_path / "out", shard_bytes=1 << 20, seed=0)
        assert not (tmp_path / "out").exists()

    @settings(max_examples=200, deadline=None)
    @given(text=st.text(alphabet='12.jpg,;\t"\n\r\0ayesno ', max_size=60) | st.binary(max_size=20))
    def test_any_text_is_a_table_or_one_line(self, tmp_path_factory, text):
        root = make(tmp_path_factory.getbasetemp() / "any", text, images=("1.jpg", "2.jpg"))
        try:
            found = open_source(root / "labels.csv")
        except DataError as error:
            found = error
        if isinstance(found, DataError):
            assert "\n" not in str(found)
        else:
            assert found.everything().targets.array.shape == (2, len(found.classes))


class TestTargets:
    def test_rare_labels_are_on_both_sides_of_a_cut(self, tmp_path):
        """200 images, of which two are red, three green and two old; the rest are blue and not old."""
        images = [f"{i}.jpg" for i in range(200)]
        colour = {"3.jpg": "red", "70.jpg": "red", "9.jpg": "green", "99.jpg": "green", "199.jpg": "green"}
        rows = [f"{image},{colour.get(image, 'blue')},{int(image in ('100.jpg', '150.jpg'))}" for image in images]
        make(tmp_path, "\n".join(["file,colour,old", *rows]), images=images)
        for seed in range(5):
            for groups in (None, r"(\d+)\.jpg"):
                source = open_source(tmp_path, seed=seed, groups=groups)
                assert source.classes == ("colour: blue", "colour: green", "colour: red", "old")
                assert all((split.targets.array.sum(0) > 0).all() for split in source.splits.values())
                assert len(source.splits["val"]) == pytest.approx(40, abs=2)

    def test_images_without_an_answer_are_cut_like_others(self):
        nothing = np.full((6, 2), NAN, np.float32)
        assert len(set(Attributes(nothing).strata().tolist())) == 1
        alone = nothing.copy()
        alone[2, 1] = 1  # the only image with its label, which can be on one side only
        assert len(set(Attributes(alone).strata().tolist())) == 1

    def test_class_numbers_of_attributes(self):
        split = Split(np.zeros((2, 4, 4), np.uint8), Attributes(np.zeros((2, 3), np.float32)), ["a", "b"])
        assert len(split.subset([1])) == 1
        with pytest.raises(DataError, match="not labelled with one class each, but with attributes"):
            split.labels  # noqa: B018

    def test_kinds_do_not_mix(self):
        with pytest.raises(TypeError, match="Attributes cannot follow Classes"):
            Classes(np.arange(2)).followed_by(Attributes(np.zeros((2, 3), np.float32)))

    def test_a_changed_label_changes_the_fingerprint(self, tmp_path):
        found = {
            open_source(make(tmp_path, TABLE.replace("2.jpg,blue,", f"2.jpg,blue,{said}"))).fingerprint
            for said in ("", "yes", "no")
        }
        found.add(open_source(make(tmp_path, TABLE.replace("smiling", "sad"))).fingerprint)
        assert len(found) == 4


def test_products_with_attributes():
    """The figures of its description: 997 photographs, 15 kinds, 15 colour groups, five genders."""
    source = open_source(shared("data/fashion_attr_160.tar"), columns=["kind", "colour_group", "gender"])
    assert {name: len(labels) for name, labels in source.task.choices.items()} == {
        "kind": 15, "colour_group": 15, "gender": 5,
    }  # fmt: skip
    everything = source.everything()
    assert len(everything) == 997
    counts = dict(zip(source.classes, everything.targets.array.sum(0).astype(int).tolist(), strict=True))
    assert counts["kind: Casual Shoes"] == 171
    assert counts["colour_group: Black"] == 312
    assert counts["gender: Boys"] == 3


class TestHostileTables:
    def test_many_images_of_one_base_name(self, tmp_path):
        """One folder per product, each with its front.jpg."""
        names = [f"{i}/front.jpg" for i in range(20_000)]
        images, started = Names(names), time.process_time()
        assert [images.find(f"x/{name}") for name in names] == [[name] for name in names]
        assert images.find("./7\\front.jpg") == ["7/front.jpg"]
        assert len(images.find("front.jpg")) == 20_000
        assert time.process_time() - started < 3

    def test_many_columns(self, tmp_path):
        count, started = 10_000, time.process_time()
        titles = ",".join(f"c{i}" for i in range(count))
        rows = [f"{i}.jpg," + ",".join(["yes"] * count) for i in range(1, 5)]
        source = open_source(make(tmp_path, "\n".join([f"file,{titles}", *rows])))
        assert len(source.task.labels) == count
        assert time.process_time() - started < 5

    def test_lines_end_as_in_csv_and_quotes_hold_them(self, tmp_path):
        table = 'file,c\r1.jpg,"two\r\nlines"\r2.jpg,a\u2028b\r3.jpg,\x0c\r4.jpg,"say ""x"""\r'
        source = open_source(make(tmp_path, table))
        assert source.task.labels == ("c: a\u2028b", 'c: say "x"', "c: two\r\nlines")

    def test_a_quote_that_does_not_end(self, tmp_path):
        assert "not a table (" in problem(make(tmp_path, TABLE.replace("4.jpg,red", '4.jpg,"red')))

    def test_nan_is_unknown(self, tmp_path):
        source = open_source(
            make(tmp_path, TABLE.replace("2.jpg,blue,,", "2.jpg,blue,NaN,").replace("3.jpg,,", "3.jpg,nan,"))
        )
        same(said(source), SAYS)

    def test_titles_that_are_missing(self, tmp_path):
        source = open_source(make(tmp_path, "file,c,,\n1.jpg,a,x\n2.jpg,b,y\n3.jpg,a,x\n4.jpg,b,y\n"))
        assert source.task.labels == ("c: a", "c: b")
        assert "column '' is not used: it has no title" in source.notes[0]
        assert "its first row must have the titles" in problem(make(tmp_path, "\n" + TABLE))

    def test_a_label_that_no_file_could_hold(self, tmp_path):
        message = problem(make(tmp_path, "file,c\n1.jpg,a\n2.jpg,a\n3.jpg,b\n4.jpg," + "x" * 1000))
        assert "column 'c' is not used: it makes a label of 1,003 characters; at most 1,000 are allowed" in message
