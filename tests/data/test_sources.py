"""Folders, arrays and named sets as people have them, and what is said about those that cannot be used."""

import errno
import hashlib
import os
import pickle
import sys
import tarfile
import unicodedata
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared_files import shared
from smallcnn.data.sources import open_source
from smallcnn.errors import DataError
from smallcnn.image.decode import decode


def make(root, *files):
    """Empty files, for `open_source` decodes none; a name that ends in / is an empty folder."""
    for name in files:
        path = root / name
        if name.endswith("/"):
            path.mkdir(parents=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    return root


def numbered(folder, count):
    return [f"{folder}/{i}.jpg" for i in range(count)]


def labelled(source, part):
    split = source.splits[part]
    return {name: source.classes[label] for name, label in zip(split.names, split.labels, strict=True)}


def problem(source):
    with pytest.raises(DataError) as caught:
        open_source(source)
    assert "\n" not in str(caught.value)
    return str(caught.value)


class TestFolder:
    def test_one_folder_per_class(self, tmp_path):
        source = open_source(make(tmp_path, *numbered("b", 4), *numbered("a", 6)), val_fraction=0.5)
        assert source.classes == ("a", "b")
        assert source.val_is_cut
        assert list(source.splits) == ["train", "val"]
        everything = source.everything()
        assert sorted(everything.names) == sorted([*numbered("a", 6), *numbered("b", 4)])
        for split in (*source.splits.values(), everything):
            assert [path.relative_to(tmp_path).as_posix() for path in split.images] == list(split.names)
            assert [source.classes[label] for label in split.labels] == [name[0] for name in split.names]

    @pytest.mark.parametrize("val", ["val", "valid", "validation", "VAL"])
    def test_given_parts(self, tmp_path, val):
        make(tmp_path, "Train/a/1.jpg", "Train/b/2.jpg", f"{val}/b/3.jpg", "test/a/4.jpg", "annotations/a.xml")
        source = open_source(tmp_path)
        assert not source.val_is_cut
        assert list(source.splits) == ["train", "val", "test"]
        assert labelled(source, "train") == {"Train/a/1.jpg": "a", "Train/b/2.jpg": "b"}
        assert labelled(source, "val") == {f"{val}/b/3.jpg": "b"}  # a class may be missing here
        assert labelled(source, "test") == {"test/a/4.jpg": "a"}

    def test_parts_for_evaluation_only(self, tmp_path):
        source = open_source(make(tmp_path, "test/b/1.jpg", "test/a/2.jpg", "val/c/3.jpg"))
        assert source.classes == ("a", "b", "c")
        assert list(source.splits) == ["val", "test"]
        assert not source.val_is_cut

    def test_a_class_may_be_called_train(self, tmp_path):
        source = open_source(make(tmp_path, *numbered("train", 2), *numbered("plane", 2), *numbered("test", 2)))
        assert source.classes == ("plane", "test", "train")

    def test_what_counts_as_an_image(self, tmp_path):
        make(tmp_path, "a/1.JPG", "a/2.tif", "a/deep/er/3.webp", "a/folder.jpg/4.png", "b/Ünï 花.jpeg")
        make(tmp_path, "a/.DS_Store", "a/._1.jpg", "a/.ipynb_checkpoints/1.jpg", ".git/c/5.jpg", "6.jpg", "a/empty/")
        make(tmp_path, "a/notes.txt", "a/deep/Thumbs.db", "b/7.jpg.part", "README")
        source = open_source(tmp_path)
        names = ["a/1.JPG", "a/2.tif", "a/deep/er/3.webp", "a/folder.jpg/4.png", "b/Ünï 花.jpeg"]
        assert sorted(source.everything().names) == names
        kinds = {
            "a/deep/Thumbs.db": ".db", "a/notes.txt": ".txt", "b/7.jpg.part": ".part", "a/.DS_Store": "hidden",
            "a/._1.jpg": "hidden", "6.jpg": "outside the class folders", "README": "without suffix",
        }  # fmt: skip
        assert source.left_out.files == {tmp_path / name: kind for name, kind in kinds.items()}
        skipped = {tmp_path / ".git": ".git", tmp_path / "a/.ipynb_checkpoints": ".ipynb_checkpoints"}
        assert source.left_out.folders == skipped
        assert source.notes == (
            "left out 7 files: 2 hidden, 1 .db, 1 .part, 1 .txt, 1 outside the class folders, "
            "1 without suffix; skipped 2 folders that programs make (.git, .ipynb_checkpoints)",
        )

    @pytest.mark.skipif(sys.platform == "win32", reason="making links needs rights there")
    def test_links_lead_nowhere_twice(self, tmp_path):
        make(tmp_path / "elsewhere", "b/1.jpg", "b/deep/2.jpg")
        root = make(tmp_path / "root", "a/1.jpg")
        (root / "b").symlink_to(tmp_path / "elsewhere" / "b")
        (root / "all").symlink_to(root)
        (root / "up").symlink_to("..")
        (root / "itself").symlink_to("itself")
        (root / "a" / "back").symlink_to(root)
        (root / "a" / "self.jpg").symlink_to("self.jpg")
        (root / "a" / "gone.jpg").symlink_to("gone")
        source = open_source(root)
        assert source.classes == ("a", "b")
        # links to nothing are kept, so that they are named when they cannot be decoded
        names = ["a/1.jpg", "a/gone.jpg", "a/self.jpg", "b/1.jpg", "b/deep/2.jpg"]
        assert sorted(source.everything().names) == names
        kinds = {root / "a" / "back": "linking to a folder", root / "itself": "without suffix"}
        assert source.left_out.files == kinds

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
    def test_a_name_in_two_ways_of_unicode(self, tmp_path):
        make(tmp_path, "caf\u00e9/1.png", "cafe\u0301/2.png", "tea/3.png")
        if len(list(tmp_path.iterdir())) < 3:
            pytest.skip("this file system knows one of them")
        assert "two folders called 'caf\u00e9', in different Unicode forms" in problem(tmp_path)

    def test_a_pipe_is_no_image(self, tmp_path):
        make(tmp_path, "a/1.jpg", "b/1.jpg")
        os.mkfifo(tmp_path / "a" / "pipe.jpg")  # opening it would wait for ever
        assert open_source(tmp_path).left_out.files == {tmp_path / "a" / "pipe.jpg": "special (pipe, socket or device)"}

    @pytest.mark.skipif(sys.platform != "linux", reason="elsewhere file names are text")
    def test_a_name_that_is_no_text(self, tmp_path):
        make(tmp_path, "a/1.jpg", "b/1.jpg", os.fsdecode(b"a/\xff.jpg"))
        assert os.fsdecode(b"a/\xff.jpg") in open_source(tmp_path).everything().names

    @pytest.mark.parametrize(
        ("files", "message"),
        [
            ([], "{root}: no class folders; put the images of each class into a separate folder"),
            (["1.jpg"], "{root}: no class folders; put the images of each class into a separate folder (left out 1 "),
            (["a/1.txt", "b/x.txt"], "{root}: no images (left out 2 files: 2 .txt)"),
            (["train/1.jpg", "val/2.jpg"], "{root}/train: no class folders"),
            (["train/a/1.jpg", "train/b/2.jpg", "test/3.jpg"], "{root}/test: no class folders"),
            (["train/a/1.jpg", "train/b/2.jpg", "val/a/"], "{root}/val: no images"),
            (["train/a/1.jpg", "val/a/1.jpg", "valid/a/1.jpg"], "{root}: val and valid mean the same split"),
            (["train/a/1.jpg", "train/b/2.jpg", "c/3.jpg"], "{root}/c: images next to the splits (train)"),
            (
                ["x/train/a/1.jpg", "y/val/a/1.jpg", "z/1.txt"],
                "{root}: ambiguous folder: x, y are data sets with train, val or test; give one folder, "
                "such as {root}/x",
            ),
            (
                ["x/train/a/1.jpg", "y/1.jpg"],
                "{root}: ambiguous folder: x is a data set with train, val or test, next to folders of images "
                "(y); give one folder",
            ),
        ],
    )
    def test_refused(self, tmp_path, files, message):
        assert problem(make(tmp_path, *files)).startswith(message.format(root=tmp_path))

    def test_a_class_without_images_is_noted(self, tmp_path):
        source = open_source(make(tmp_path, "train/a/1.jpg", "train/b/2.jpg", "train/c/x.txt", "val/a/", "val/d/3.jpg"))
        assert source.classes == ("a", "b", "d")
        assert source.untrainable == source.notes[0]
        assert source.notes == (
            f"{tmp_path / 'train' / 'c'}: no images in this class folder (left out 1 file: 1 .txt)",
            f"{tmp_path / 'val' / 'a'}: no images in this class folder",
            "left out 1 file: 1 .txt",
        )

    def test_a_class_that_is_only_judged_cannot_be_trained(self, tmp_path):
        source = open_source(make(tmp_path, "train/a/1.jpg", "train/b/2.jpg", "val/c/3.jpg"))
        assert source.classes == ("a", "b", "c")
        assert source.untrainable == f"{tmp_path / 'val' / 'c'}: class 'c' has no folder in {tmp_path / 'train'}"

    @pytest.mark.parametrize("around", ["flowers", "Ünï/flowers", "one/two/three"])
    def test_a_folder_above_the_set(self, tmp_path, around):
        names = ["train/a/1.jpg", "train/b/2.jpg", "val/a/3.jpg"]
        make(tmp_path / around, *names)
        make(tmp_path, "notes.txt", "@eaDir/train/a/1.jpg")
        source = open_source(tmp_path)
        assert source.left_out.as_dict() == {"files": {".txt": 1}, "folders": {"@eaDir": 1}}
        assert source.fingerprint == open_source(tmp_path / around).fingerprint
        assert source.notes[0] == f"the data set is {tmp_path / around}, the only one in {tmp_path}"

    def test_a_class_alone_is_no_folder_above(self, tmp_path):
        for name in ("cats/night/1.jpg", "cats/day/1.jpg", "cats/train/1.jpg"):
            assert open_source(make(tmp_path, name)).classes == ("cats",)

    def test_a_forbidden_folder_is_named(self, tmp_path, monkeypatch):
        def forbid(folder):
            raise PermissionError(errno.EACCES, "Permission denied", str(folder))

        monkeypatch.setattr(os, "scandir", forbid)  # chmod would not keep root out
        assert problem(make(tmp_path, "a/1.jpg", "b/1.jpg")) == f"{tmp_path}: Permission denied"


class TestCut:
    def test_is_defined_by_names_and_seed(self, tmp_path):
        """The first by SHA-256 of "seed/name": no random generator, file system or library can change it."""
        make(tmp_path, *numbered("a", 10), *numbered("b", 20))
        for seed in (0, 7):
            want = []
            for names in (numbered("a", 10), numbered("b", 20)):
                by_hash = sorted(names, key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).hexdigest())
                want += by_hash[: len(names) // 5]
            assert sorted(open_source(tmp_path, seed=seed).splits["val"].names) == sorted(want)

    def test_does_not_depend_on_the_file_system(self, tmp_path, monkeypatch):
        names = [*numbered("a", 9), "a/Z.jpg", "a/é.jpg", "a/sub/1.jpg", "a/sub.x/1.jpg", *numbered("b", 5)]
        plain = open_source(make(tmp_path / "linux", *names))
        apart = make(tmp_path / "mac", *(unicodedata.normalize("NFD", name) for name in reversed(names)))
        scandir, iterdir = os.scandir, Path.iterdir
        with monkeypatch.context() as other:
            other.setattr(os, "scandir", lambda folder: _Backwards(scandir(folder)))
            other.setattr(Path, "iterdir", lambda folder: reversed(list(iterdir(folder))))
            moved = open_source(apart)
        assert moved.fingerprint == plain.fingerprint
        for part in ("train", "val"):
            assert moved.splits[part].names == plain.splits[part].names

    @settings(max_examples=50, deadline=None)
    @given(
        counts=st.lists(st.integers(1, 30), min_size=2, max_size=5),
        fraction=st.floats(0.01, 0.99),
        seed=st.integers(0, 99),
    )
    def test_every_class_keeps_images_on_both_sides(self, tmp_path_factory, counts, fraction, seed):
        labels = np.repeat(np.arange(len(counts)), counts)
        path = tmp_path_factory.mktemp("cut") / "set.npz"
        np.savez(path, x=np.zeros((len(labels), 1, 1), np.uint8), y=labels)
        source = open_source(path, seed=seed, val_fraction=fraction)
        train, val = source.splits["train"], source.splits["val"]
        assert sorted([*train.names, *val.names]) == sorted(f"x[{i}]" for i in range(len(labels)))
        for label, count in enumerate(counts):
            held_out = np.sum(val.labels == label)
            assert held_out <= count - 1
            assert held_out >= min(1, count - 1)
            assert abs(held_out - count * fraction) <= 1

    def test_a_new_image_hardly_changes_it(self, tmp_path):
        make(tmp_path, *numbered("a", 50), *numbered("b", 50))
        before = set(open_source(tmp_path).splits["val"].names)
        for i in range(10):
            after = set(open_source(make(tmp_path, f"a/new{i}.jpg")).splits["val"].names)
            assert len(before ^ after) <= 2  # one comes in, and one may go out for it
            before = after

    @pytest.mark.parametrize("fraction", [0, 1, -0.1, float("nan")])
    def test_of_nothing_or_everything_is_refused(self, tmp_path, fraction):
        with pytest.raises(DataError, match="between 0 and 1"):
            open_source(make(tmp_path, "a/1.jpg", "b/1.jpg"), val_fraction=fraction)


class _Backwards(list):
    """What os.scandir gives, in another order."""

    def __init__(self, entries):
        with entries:
            super().__init__(reversed(list(entries)))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


PIXELS = np.random.default_rng(0).integers(0, 256, (6, 5, 4, 3), np.uint8)
LABELS = np.array([0, 1, 2, 0, 1, 2])
PAIR = {"x": PIXELS, "y": LABELS}


class Trap:
    """Unpickling this makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


class TestArrays:
    @pytest.mark.parametrize("labels", [LABELS, LABELS[:, None], LABELS.astype(np.uint8)], ids=["N", "N1", "uint8"])
    def test_parts(self, tmp_path, labels):
        path = tmp_path / "set.NPZ"
        with path.open("wb") as file:
            np.savez(file, x_train=PIXELS, y_train=labels, x_test=PIXELS[:2], y_test=labels[:2], z=np.zeros(3))
        source = open_source(path, val_fraction=0.5)
        assert source.classes == ("0", "1", "2")
        assert source.val_is_cut
        assert {part: len(split) for part, split in source.splits.items()} == {"train": 3, "val": 3, "test": 2}
        everything = source.everything()
        for pixels, label, name in zip(everything.images, everything.labels, everything.names, strict=True):
            array, index = name.rstrip("]").split("[")
            assert array in ("x_train", "x_test")
            np.testing.assert_array_equal(pixels, PIXELS[int(index)])
            assert label == LABELS[int(index)]

    def test_class_names_allow_gaps(self, tmp_path):
        np.savez(tmp_path / "set.npz", x=PIXELS, y=LABELS * 2, classes=["kiwi", "emu", "rhea", "moa", "ostrich"])
        assert open_source(tmp_path / "set.npz").classes == ("kiwi", "emu", "rhea", "moa", "ostrich")

    def test_for_evaluation_only(self, tmp_path):
        np.savez(tmp_path / "set.npz", x_test=PIXELS, y_test=LABELS)
        assert list(open_source(tmp_path / "set.npz").splits) == ["test"]

    @pytest.mark.parametrize(
        ("arrays", "message"),
        [
            ({}, "needs x_train and y_train, or x and y; the file has nothing"),
            ({"images": PIXELS}, "needs x_train and y_train, or x and y; the file has images"),
            ({"x": PIXELS}, "x needs y; the file has x"),
            (PAIR | {"x_val": PIXELS}, "x_val needs y_val"),
            (PAIR | {"x_train": PIXELS, "y_train": LABELS}, "has x and x_train"),
            (PAIR | {"x": PIXELS.astype(float)}, "x must be uint8 (N, H, W), (N, H, W, 1) or (N, H, W, 3), not float"),
            (PAIR | {"x": PIXELS.transpose(0, 3, 1, 2)}, "not uint8 (6, 3, 5, 4)"),
            (PAIR | {"x": PIXELS[:0], "y": LABELS[:0]}, "not uint8 (0, 5, 4, 3)"),
            (PAIR | {"y": LABELS[:5]}, "x needs one whole number per image as labels, (6,), not int64 (5,)"),
            (PAIR | {"y": np.eye(6, dtype=int)}, "(6,), not int64 (6, 6)"),  # one-hot
            (PAIR | {"y": LABELS.astype(float)}, "(6,), not float64 (6,)"),
            (PAIR | {"y": LABELS - 1}, "x has the label -1; labels start at 0"),
            (PAIR | {"y": LABELS.astype(np.uint64) - 1}, "labels start at 0"),  # 2**64 - 1
            (PAIR | {"y": LABELS * 2}, "3 different labels, the highest 4; they must be 0, 1, ... without gaps"),
            (PAIR | {"y": LABELS + 2**60}, "they must be 0, 1, ... without gaps"),
            (PAIR | {"classes": ["a", "b"]}, "label 2, but classes has only 2 names"),
            (PAIR | {"classes": ["a", "b", "a"]}, "classes must be a list of different names"),
            (PAIR | {"classes": "abc"}, "classes must be a list of different names, not <U3 ()"),
            (PAIR | {"classes": [3, 4, 5]}, "classes must be a list of different names, not int64 (3,)"),
            (PAIR | {"x_val": PIXELS[:, :4], "y_val": LABELS}, "all splits need images of one shape"),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_refused(self, tmp_path, arrays, message):
        np.savez(tmp_path / "set.npz", **arrays)
        text = problem(tmp_path / "set.npz")
        assert text.startswith(f"{tmp_path / 'set.npz'}: ")
        assert message in text

    def test_pickles_are_not_opened(self, tmp_path):
        path, made = tmp_path / "set.npz", tmp_path / "made"
        np.savez(path, x=PIXELS, y=np.array([Trap(made)] * 6))
        assert problem(path).startswith(f"{path}: not a readable .npz file without pickled objects")
        path.write_bytes(pickle.dumps(Trap(made)))
        assert problem(path).startswith(f"{path}: not a readable .npz file without pickled objects")
        assert not made.exists()
        np.load(tmp_path / "set.npz", allow_pickle=True)  # the trap is set
        assert made.exists()

    def test_damaged(self, tmp_path):
        path = tmp_path / "set.npz"
        np.savez_compressed(path, **PAIR)
        data = path.read_bytes()
        damaged = [data[:cut] for cut in range(0, len(data), 40)]
        damaged += [data[:100] + b"\0" * 40 + data[140:], b"text"]
        for content in damaged:
            path.write_bytes(content)
            assert problem(path).startswith(f"{path}: not a readable .npz file")
        with path.open("wb") as file:
            np.save(file, PIXELS)
        assert problem(path).startswith(f"{path}: not a readable .npz file")


class TestFingerprint:
    def test_of_files_is_their_names_and_labels(self, tmp_path):
        files = ["a/1.jpg", "a/2.jpg", "b/1.jpg"]
        one = open_source(make(tmp_path / "one", *files)).fingerprint
        assert open_source(make(tmp_path / "two", *files), seed=5, val_fraction=0.5).fingerprint == one
        assert open_source(make(tmp_path / "three", *files, "b/2.jpg")).fingerprint != one
        assert open_source(make(tmp_path / "four", "a/1.jpg", "b/2.jpg", "b/1.jpg")).fingerprint != one

    def test_of_arrays_is_their_content(self, tmp_path):
        def of(x, y):
            np.savez(tmp_path / "set.npz", x=x, y=y)
            return open_source(tmp_path / "set.npz").fingerprint

        other = PIXELS.copy()
        other[3, 2, 1, 0] ^= 1
        assert of(PIXELS, LABELS) == of(PIXELS.copy(), LABELS.astype(np.int32))
        assert len({of(PIXELS, LABELS), of(other, LABELS), of(PIXELS, LABELS[::-1])}) == 3


def test_digits():
    original = pytest.importorskip("sklearn.datasets").load_digits()
    source = open_source("digits")
    assert source.classes == tuple("0123456789")
    assert not source.mirror  # a mirrored digit is another one, or none
    everything = source.everything()
    order = [int(name[len("digits[") : -1]) for name in everything.names]
    assert sorted(order) == list(range(1797))
    np.testing.assert_array_equal(everything.labels, original.target[order])
    np.testing.assert_allclose(everything.images, original.images[order] * 255 / 16, atol=0.5)
    assert len(source.splits["test"]) == 1797 // 5


class TestArchive:
    FILES = ("train/a/1.jpg", "train/a/deep/2.png", "train/b/3.jpg", "val/b/4.jpg", "train/a/notes.txt")

    def packed(self, tmp_path, suffix, names, top=""):
        """An archive of empty files."""
        path = tmp_path / f"set{suffix}"
        if suffix == ".zip":
            with zipfile.ZipFile(path, "w") as archive:
                for name in names:
                    archive.writestr(top + name, b"")
            return path
        with tarfile.open(path, "w:" + suffix.removeprefix(".tar").removeprefix(".").replace("tgz", "gz")) as archive:
            for name in names:
                archive.addfile(tarfile.TarInfo(top + name))
        return path

    @pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".zip"])
    @pytest.mark.parametrize("top", ["", "set/", "./", "one/two/"])
    def test_is_read_as_the_folder_would_be(self, tmp_path, suffix, top):
        folder = open_source(make(tmp_path / "folder", *self.FILES))
        source = open_source(self.packed(tmp_path, suffix, [*self.FILES, ".hidden/c/5.jpg", "train/a/._1.jpg"], top))
        assert source.classes == folder.classes == ("a", "b")
        assert source.fingerprint == folder.fingerprint
        for part in ("train", "val"):
            assert labelled(source, part) == labelled(folder, part)
        assert sorted(source.left_out.files.values()) == [".txt", "hidden"]
        assert list(source.left_out.folders.values()) == [".hidden"]

    def test_classes_alone(self, tmp_path):
        source = open_source(self.packed(tmp_path, ".tar", [*numbered("b", 4), *numbered("a", 4)], "cifar_train/"))
        assert source.classes == ("a", "b")
        assert source.val_is_cut

    @pytest.mark.parametrize("file", ["cifar10_jpeg_test5000.tar.gz", "clothing10_160.tar"])
    def test_real_ones(self, file):
        source = open_source(shared(f"data/{file}"))
        assert len(source.classes) == 10
        if file.startswith("cifar"):
            assert np.bincount(source.everything().labels).tolist() == [500] * 10
        else:
            assert {part: len(split) for part, split in source.splits.items()} == {"train": 1675, "val": 341}
        for split in source.splits.values():
            image = decode(split.images[-1], 3)
            assert min(image.size) == (32 if file.startswith("cifar") else 160)

    @pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".zip"])
    def test_cut_short(self, tmp_path, suffix):
        path = self.packed(tmp_path, suffix, [*numbered("a", 30), *numbered("b", 30)])
        data = path.read_bytes()
        if suffix == ".tar":
            data = data[: 512 * 60]  # its end and nothing else is missing
        for cut in (
            len(data) * 2 // 3,
            len(data) * 2 // 3 - 100,
            len(data) - 11,
            len(data) - 11 * (suffix != ".tar"),
            0,
        ):
            path.write_bytes(data[:cut])
            assert problem(path).startswith(f"{path}: not a whole, readable archive (")

    @pytest.mark.parametrize(
        ("files", "message"),
        [
            (["a/1.txt", "b/1.txt"], ": no images (left out 2 files: 2 .txt)"),
            (["1.jpg"], ": no class folders"),
            ([], ": no class folders"),
        ],
    )
    def test_refused(self, tmp_path, files, message):
        path = self.packed(tmp_path, ".tar", files)
        assert problem(path).startswith(f"{path}{message}")


def test_no_such_source(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert problem("digit") == "no folder, archive, .npz file or named set 'digit'; closest: digits"
    (tmp_path / "set.tar").touch()
    assert problem(tmp_path / "set.tar").startswith(f"{tmp_path / 'set.tar'}: not a whole, readable archive")


def test_a_folder_goes_before_a_named_set(tmp_path, monkeypatch):
    monkeypatch.chdir(make(tmp_path, "digits/a/1.jpg", "digits/b/1.jpg"))
    assert open_source("digits").classes == ("a", "b")
