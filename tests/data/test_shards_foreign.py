"""Shards as others write them: which images are used with which label, and what is said of the rest."""

import gzip
import io
import json
import os
import tarfile

import numpy as np
import pytest
from PIL import Image

from smallcnn.data.sources import open_source
from smallcnn.errors import DataError

SIDE = 6


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SMALLCNN_CACHE", str(tmp_path / "cache"))


def jpeg(seed=0):
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3), np.uint8)).save(file, "JPEG")
    return file.getvalue()


def shard(path, *files):
    """Of (name, content); a name alone is an image."""
    with tarfile.open(path, "w") as tar:
        for file in files:
            name, data = file if isinstance(file, tuple) else (file, jpeg())
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def pair(key, label, *, image="jpg", suffix="cls"):
    return f"{key}.{image}", (f"{key}.{suffix}", label if isinstance(label, bytes) else str(label).encode())


def read(path):
    """(image -> class, notes)."""
    source = open_source(path)
    everything = source.everything()
    pairs = zip(everything.names, everything.labels, strict=True)
    return {name: source.classes[label] for name, label in pairs}, source.notes


def test_keys_with_dots_and_suffixes_in_capitals(tmp_path):
    path = shard(
        tmp_path / "keys-000000.tar",
        *pair("0001", 1), *pair("a.2024.01", 1), *pair("0003", 1, image="JPG", suffix="CLS"),
        *pair("0004", 1, image="jpeg"),
    )  # fmt: skip
    want = dict.fromkeys(["0001.jpg", "a.2024.01.jpg", "0003.JPG", "0004.jpeg"], "1")
    assert read(path) == read(tmp_path / "keys-{000000..000000}.tar") == (want, ())


def test_two_keys_that_are_one_for_webdataset(tmp_path):
    path = shard(tmp_path / "x.tar", *pair("a.2024.01", 0), *pair("a.2024.02", 1), *pair("b/a.2024.01", 1))
    assert read(path)[0] == {"a.2024.01.jpg": "0", "a.2024.02.jpg": "1", "b/a.2024.01.jpg": "1"}


@pytest.mark.parametrize(
    ("suffix", "label", "name"),
    [
        ("cls", "tabby cat", "tabby cat"), ("cls.txt", "tabby", "tabby"), ("txt", "tabby\n", "tabby"),
        ("label", "7", "7"), ("CLASS", "\ufefftabby", "tabby"), ("cls", "007\r\n", "7"),
        ("json", '"tabby"', "tabby"), ("json", "3", "3"), ("json", '{"label": 3, "url": "x"}', "3"),
        ("json", '{"label": 3, "class_name": "tabby"}', "tabby"), ("json", '{"category": " tabby "}', "tabby"),
    ],
)  # fmt: skip
def test_labels(tmp_path, suffix, label, name):
    path = shard(tmp_path / "x-0.tar", *pair("1", label, suffix=suffix))
    assert read(tmp_path / "x-{0..0}.tar") == read(path) == ({"1.jpg": name}, ())


@pytest.mark.parametrize(
    ("suffix", "label"),
    [
        ("cls", b""), ("cls", b"\xff"), ("cls", b"-1"), ("cls", b"two"), ("cls", b"1.5"), ("cls", b"a\nb"),
        ("cls", b"\x1b[31m"), ("json", b"{"), ("json", b"{}"), ("json", b'{"label": [1, 2]}'), ("json", b"true"),
        ("json", b'{"label": null}'), ("cls", b"9" * 5000), ("json", b'{"label": 1.5}'), ("cls", b"x" * 2_000_000),
    ],
)  # fmt: skip
def test_one_bad_label_costs_one_sample(tmp_path, suffix, label):
    path = shard(tmp_path / "x.tar", *pair("1", 0), *pair("2", label, suffix=suffix), *pair("3", 1), *pair("4", 1))
    found, notes = read(path)
    assert found == {"1.jpg": "0", "3.jpg": "1", "4.jpg": "1"}
    assert len(notes) == 2
    assert notes[0].startswith("labels that cannot be used: 1; the first is ")
    assert "2." in notes[0]
    assert notes[0].isprintable()
    assert notes[1] == "left out 1 file: 1 with a bad label"


def test_numbers_with_gaps_name_the_classes(tmp_path):
    path = shard(tmp_path / "x.tar", *pair("1", 10), *pair("2", 9), *pair("3", 100))
    assert open_source(path).classes == ("9", "10", "100")


def test_names_that_are_digits_among_letters(tmp_path):
    path = shard(tmp_path / "x.tar", *(file for name in "ABCD12" for file in pair(f"is_{name}", name)))
    assert open_source(path).classes == ("1", "2", "A", "B", "C", "D")


def test_captions_are_no_labels(tmp_path):
    captions = [pair(f"{i:03}", f"a photo number {i}", suffix="txt") for i in range(30)]
    path = shard(tmp_path / "x.tar", *(file for pair in captions for file in pair))
    with pytest.raises(DataError, match=r"no images with a label .*\(left out 30 files: 30 without a label\)$"):
        open_source(path)
    labelled = [(f"{i:03}.cls", b"%d" % (i % 2)) for i in range(29)]
    shard(path, *(file for pair in captions for file in pair), *labelled)
    found, notes = read(path)
    assert found == {f"{i:03}.jpg": str(i % 2) for i in range(29)}
    assert notes == ("left out 1 file: 1 without a label",)


class TestSeveralImages:
    def test_the_one_named_like_the_label(self, tmp_path):
        path = shard(tmp_path / "x.tar", *pair("1", "a"), "1.mask.png", "1.depth.jpg", "1.png")
        assert read(path) == ({"1.jpg": "a"}, ("left out 3 files: 3 additional to a sample's image",))

    def test_all_of_one_kind_if_none_is(self, tmp_path):
        path = shard(tmp_path / "x.tar", "1.left.jpg", "1.right.JPEG", "1.mask.png", ("1.cls", b"a"))
        found = {"1.left.jpg": "a", "1.right.JPEG": "a"}
        assert read(path) == (found, ("left out 1 file: 1 additional to a sample's image",))

    def test_each_with_its_own_label(self, tmp_path):
        path = shard(tmp_path / "x.tar", *pair("1.left", "a"), *pair("1.right", "b"), ("1.cls", b"c"))
        assert read(path) == ({"1.left.jpg": "a", "1.right.jpg": "b"}, ())

    def test_a_label_with_more_in_its_name(self, tmp_path):
        path = shard(tmp_path / "x.tar", "1.jpg", ("1.target.cls", b"a"), "2.jpg", ("2.jpg.cls", b"b"))
        assert read(path)[0] == {"1.jpg": "a", "2.jpg": "b"}


def test_the_same_key_again_is_another_sample(tmp_path):
    """As in shards that were put together: webdataset gives both."""
    path = shard(tmp_path / "x.tar", *pair("1", "a"), *pair("2", "b"), *pair("1", "b"))
    split = open_source(path).everything()
    assert list(zip(split.names, split.labels.tolist(), strict=True)) == [("1.jpg", 0), ("1.jpg", 1), ("2.jpg", 1)]
    assert len({image.at for image in split.images}) == 3


def test_the_rest_is_counted_and_remembered(tmp_path, monkeypatch):
    path = shard(
        tmp_path / "x.tar",
        *pair("1", 0),
        ("1.npy", b"x"),
        ("1.json", b"{}"),
        "2.jpg",
        ("._1.jpg", b"x"),
        ("3.cls", b"0"),
    )
    notes = ("left out 3 files: 1 .npy, 1 hidden, 1 without a label",)
    assert read(path) == ({"1.jpg": "0"}, notes)
    with monkeypatch.context() as patch:
        patch.setattr("smallcnn.data.shards.foreign.scan", None)
        assert read(path) == ({"1.jpg": "0"}, notes), "from the cache"
    (kept,) = (tmp_path / "cache" / "data" / "indexes").iterdir()
    kept.write_text(json.dumps({"index": "{}", "notes": 3}))
    assert read(path) == ({"1.jpg": "0"}, notes), "damaged there, so read again"


def test_links_in_a_shard_are_counted(tmp_path):
    path = shard(tmp_path / "x.tar", *pair("1", 0))
    with tarfile.open(path, "a") as tar:
        for name, kind in (("2.jpg", tarfile.LNKTYPE), ("3.jpg", tarfile.SYMTYPE), ("folder", tarfile.DIRTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "1.jpg"
            tar.addfile(info)
    assert read(path) == ({"1.jpg": "0"}, ("left out 2 files: 2 special (link, pipe or device)",))


def test_compressed_ones_are_named(tmp_path):
    path = shard(tmp_path / "x-0.tar", *pair("1", 0))
    path.write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(DataError, match="a compressed shard; decompress it"):
        open_source(str(tmp_path / "x-{0..0}.tar"))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_no_shard(tmp_path):
    os.mkfifo(tmp_path / "x-0.tar")
    with pytest.raises(DataError, match="not a regular file"):
        open_source(str(tmp_path / "x-{0..0}.tar"))


def test_class_folders_with_texts_beside_the_images_stay_a_folder(tmp_path):
    path = shard(tmp_path / "x.tar", *pair("a/1", "one cat", suffix="txt"), *pair("b/1", "{}", suffix="json"))
    assert read(path) == ({"a/1.jpg": "a", "b/1.jpg": "b"}, ("left out 2 files: 1 .json, 1 .txt",))


@pytest.mark.parametrize("keys", [["000", "001", "002"], ["d/000", "e/000", "d/001"]])
def test_as_webdataset_reads_them(tmp_path, keys):
    webdataset = pytest.importorskip("webdataset")
    files = [
        (f"{key}.{name}", data)
        for i, key in enumerate(keys)
        for name, data in (("cls", b"%d" % (i % 2)), ("jpg", jpeg(i)), ("txt", b"a text"))
    ]
    path = shard(tmp_path / "x-0.tar", *files)
    want = [(sample["jpg"], int(sample["cls"])) for sample in webdataset.WebDataset(str(path), shardshuffle=False)]
    split = open_source(path).everything()
    assert sorted(
        (image.read(), int(label)) for image, label in zip(split.images, split.labels, strict=True)
    ) == sorted(want)
