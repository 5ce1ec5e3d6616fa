"""Shards: what was written comes back, in any order, from anywhere; what is damaged is named and the rest is used."""

import io
import json
import os
import shutil
import tarfile
import threading
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from served import served
from smallcnn.cli.shard import command
from smallcnn.data.loader import batches
from smallcnn.data.order import order
from smallcnn.data.shards import remote, write
from smallcnn.data.shards.index import Index
from smallcnn.data.sources import open_source
from smallcnn.errors import DataError, FileError
from smallcnn.image.decode import decode
from smallcnn.image.fit import Preprocessing
from smallcnn.image.stored import Stored

pytest.importorskip("webdataset")

SHARD_BYTES = 40_000


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SMALLCNN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "*")
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of 60 small images, train and val, of two kinds of files."""
    root, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for part, count in (("train", 20), ("val", 10)):
        for name in ("ant", "bee"):
            (root / part / name).mkdir(parents=True)
            for i in range(count):
                kind = "png" if i % 4 == 0 else "jpg"
                Image.fromarray(rng.integers(0, 256, (12, 15, 3), np.uint8)).save(root / part / name / f"x.{i}.{kind}")
    return root


@pytest.fixture(scope="module")
def made(photos, tmp_path_factory):
    """The same as shards."""
    out = tmp_path_factory.mktemp("made") / "shards"
    source = open_source(photos)
    write.write_shards(source.task, source.splits, out, shard_bytes=SHARD_BYTES, seed=0)
    return out


@pytest.fixture
def shards(made, tmp_path):
    return shutil.copytree(made, tmp_path / "shards")


def contents(split):
    """Name -> (label, bytes)."""
    read = [image.read() if isinstance(image, Stored) else image.read_bytes() for image in split.images]
    return {name: (int(label), data) for name, label, data in zip(split.names, split.labels, read, strict=True)}


def loaded(split):
    """(images that were decoded, name -> what is wrong)."""
    prepare = Preprocessing((8, 8)).prepare
    found = list(batches(split, lambda i: prepare(split.images[i]), range(len(split)), batch_size=16, workers=3))
    failed = {name: text for batch in found for name, text in batch.failed.items()}
    return sum(len(batch.labels) for batch in found), failed


def same(one, other):
    assert one.classes == other.classes
    assert list(one.splits) == list(other.splits)
    for part, split in one.splits.items():
        assert contents(split) == contents(other.splits[part])


def test_shards_are_the_folder(photos, made):
    assert len(list(made.glob("train-*.tar"))) == 3
    same(open_source(made), open_source(photos))
    same(open_source(made / "index.json"), open_source(photos))
    assert open_source(made).fingerprint == open_source(photos).fingerprint, "and in the same order"
    assert all(path.stat().st_size <= SHARD_BYTES + 10240 for path in made.glob("*.tar"))  # a tar is padded


def test_the_validation_split_is_cut_alike(photos, tmp_path):
    source = open_source(photos / "train", seed=3)
    assert source.val_is_cut
    result = CliRunner().invoke(command, [str(photos / "train"), "--out", str(tmp_path / "out")])
    assert (result.exit_code, result.stdout) == (0, f"{tmp_path / 'out'}\n"), result.output
    assert "train: 40 images in 1 shards" in result.stderr
    again = open_source(tmp_path / "out", seed=3)
    assert again.val_is_cut
    assert again.fingerprint == source.fingerprint
    for part in ("train", "val"):
        assert contents(again.splits[part]) == contents(source.splits[part])


def test_webdataset_reads_them(photos, made):
    import webdataset

    files = sorted(str(path) for path in made.glob("train-*.tar"))
    found = [(s.get("jpg") or s.get("png"), int(s["cls"])) for s in webdataset.WebDataset(files, shardshuffle=False)]
    want = contents(open_source(photos).splits["train"]).values()
    assert sorted(found) == sorted((data, label) for label, data in want)
    assert [label for _, label in found] != sorted(label for _, label in found), "they are shuffled"


def test_writing_depends_on_the_seed_alone(photos, made, tmp_path):
    source = open_source(photos)
    for seed, equal in ((0, True), (1, False)):
        out = tmp_path / str(seed)
        write.write_shards(source.task, source.splits, out, shard_bytes=SHARD_BYTES, seed=seed)
        assert ((out / "index.json").read_bytes() == (made / "index.json").read_bytes()) is equal


def test_a_stopped_run_is_taken_up(photos, made, tmp_path, monkeypatch):
    """Stopped while the second shard is written; the first is kept, and all ends as if nothing had happened."""
    source, out, began = open_source(photos), tmp_path / "out", []
    whole = write._write

    def stopping(path, split, indices):
        began.append(path.name)
        if len(began) == 2:
            (out / f".{path.name}.1.part").write_bytes(b"half of it")
            raise KeyboardInterrupt
        return whole(path, split, indices)

    def run():
        write.write_shards(source.task, source.splits, out, shard_bytes=SHARD_BYTES, seed=0)

    monkeypatch.setattr(write, "_write", stopping)
    with pytest.raises(KeyboardInterrupt):
        run()
    assert not (out / "index.json").exists()
    run()
    assert began[2:] == [path.name for path in sorted(made.glob("*.tar"))][1:]
    assert {path.name: path.read_bytes() for path in out.iterdir()} == {p.name: p.read_bytes() for p in made.iterdir()}
    with pytest.raises(DataError, match=r"already holds shards; choose another --out$"):
        run()


def test_a_shard_of_another_run_is_written_again(photos, made, tmp_path):
    out = shutil.copytree(made, tmp_path / "out")
    (out / "index.json").unlink()
    (out / "train-000000.tar").write_bytes((out / "train-000001.tar").read_bytes())
    (out / "train-000001.tar").write_bytes((out / "train-000002.tar").read_bytes()[:2000])
    source = open_source(photos)
    write.write_shards(source.task, source.splits, out, shard_bytes=SHARD_BYTES, seed=0)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == {p.name: p.read_bytes() for p in made.iterdir()}


def test_images_that_changed_between_two_runs_are_written_again(tmp_path):
    """Of the same size, as images without compression are."""
    for name in ("ant", "bee"):
        (tmp_path / "set" / name).mkdir(parents=True)
        Image.new("L", (5, 5), 10).save(tmp_path / "set" / name / "x.pgm")

    def run():
        source = open_source(tmp_path / "set")
        write.write_shards(source.task, source.splits, tmp_path / "out", shard_bytes=SHARD_BYTES, seed=0)

    run()
    (tmp_path / "out" / "index.json").unlink()
    Image.new("L", (5, 5), 200).save(tmp_path / "set" / "bee" / "x.pgm")
    run()
    found = open_source(tmp_path / "out").everything()
    pairs = zip(found.names, found.images, strict=True)
    values = {name: decode(image, 1).image.getpixel((0, 0)) for name, image in pairs}
    assert values == {"ant/x.pgm": 10, "bee/x.pgm": 200}


def test_arrays_are_refused(tmp_path):
    np.savez(tmp_path / "set.npz", x=np.zeros((4, 8, 8), np.uint8), y=np.arange(4) % 2)
    result = CliRunner().invoke(command, [str(tmp_path / "set.npz"), "--out", str(tmp_path / "out")])
    assert isinstance(result.exception, DataError)
    assert str(result.exception).startswith("arrays are already in memory and need no shards")


@pytest.mark.parametrize("cut", [0, 5000, 12345])
def test_a_shard_cut_short(shards, cut):
    path = shards / "train-000001.tar"
    size = path.stat().st_size
    os.truncate(path, cut)
    source = open_source(shards)
    line = f"{path}: cut short, {size:,} bytes expected; the images beyond its end are missing"
    assert source.notes == (line,)
    entry = json.loads((shards / "index.json").read_text())["parts"]["train"][1]
    ends = [at + length for at, length in zip(entry["offsets"], entry["sizes"], strict=True)]
    done, failed = loaded(source.splits["train"])
    assert failed == {name: line for name, end in zip(entry["names"], ends, strict=True) if end > cut}
    assert done == 40 - len(failed)
    assert len(failed) > 0


def test_a_missing_shard(shards):
    path = shards / "train-000002.tar"
    path.unlink()
    source = open_source(shards)
    line = f"{path}: no such file; the images in it are missing"
    assert source.notes == (line,)
    done, failed = loaded(source.splits["train"])
    assert set(failed.values()) == {f"{path}: No such file or directory; the images in it are missing"}
    assert 0 < done == 40 - len(failed)


def test_damaged_bytes_are_found_image_by_image(shards):
    path = shards / "train-000000.tar"
    entry = json.loads((shards / "index.json").read_text())["parts"]["train"][0]
    data = bytearray(path.read_bytes())
    data[entry["offsets"][3] + entry["sizes"][3] // 2] ^= 1
    path.write_bytes(data)
    done, failed = loaded(open_source(shards).splits["train"])
    assert done == 39
    assert list(failed) == [entry["names"][3]]
    assert "damaged in storage" in failed[entry["names"][3]]


def test_over_http(photos, shards, cache):
    with served(shards) as server:
        source = open_source(f"{server.url}/index.json")
        assert server.asked == ["/index.json"], "no shard before it is wanted"
        same(source, open_source(photos))
        assert len(server.asked) == 1 + len(list(shards.glob("*.tar"))), "each once"
        asked = len(server.asked)
        assert loaded(source.splits["train"]) == (40, {})
        assert len(server.asked) == asked


def test_over_a_command(photos, shards):
    """`pipe:` runs a command of the user's; for object storage it would be `aws s3 cp ... -`."""
    same(open_source(f"pipe:cat {shards}/index.json"), open_source(photos))
    with pytest.raises(FileError, match=r"^pipe:false index\.json: the command ended with exit code 1$"):
        open_source("pipe:false index.json")


def test_an_index_that_cannot_be_reached():
    with pytest.raises(FileError, match=r"^no connection to localhost: Connection refused$"):
        open_source("https://localhost:1/index.json")


@pytest.mark.parametrize("given", ["much", "-1", "nan"])
def test_the_size_of_the_cache_is_a_number(given, tmp_path, monkeypatch):
    monkeypatch.setenv("SMALLCNN_SHARD_CACHE", given)
    with pytest.raises(DataError, match=f"SMALLCNN_SHARD_CACHE is '{given}'; it must be a number of gigabytes"):
        remote._make_room(tmp_path, tmp_path / "kept")


@pytest.mark.parametrize("damage", ["missing", "short", "other"])
def test_a_remote_shard_that_is_wrong_costs_one_request(shards, damage, monkeypatch):
    monkeypatch.setattr("smallcnn.system.fetch._PAUSE", 0)
    path = shards / "train-000001.tar"
    count = len(json.loads((shards / "index.json").read_text())["parts"]["train"][1]["names"])
    data = bytearray(path.read_bytes())
    data[600] ^= 1
    path.unlink() if damage == "missing" else path.write_bytes(data[: 5000 if damage == "short" else None])
    with served(shards) as server:
        done, failed = loaded(open_source(f"{server.url}/index.json").splits["train"])
        assert server.asked.count("/train-000001.tar") == 1
    assert (done, len(failed)) == (40 - count, count)
    (line,) = set(failed.values())
    assert line.startswith(f"shard {server.url}/train-000001.tar: ")
    assert {"missing": "404", "short": "has 5,000 bytes, expected", "other": "its SHA-256 is"}[damage] in line


def test_the_cache_is_bounded(shards, cache, monkeypatch):
    """Room for two shards: the one not used for longest goes, and comes again when it is wanted."""
    room = sum((shards / f"train-00000{i}.tar").stat().st_size for i in (0, 1))
    monkeypatch.setenv("SMALLCNN_SHARD_CACHE", str(room / 1e9))
    monkeypatch.setattr(remote, "_TOUCH", 0.0)
    with served(shards) as server:
        split = open_source(f"{server.url}/index.json").splits["train"]
        first = {}
        for image in split.images:
            first.setdefault(id(image.store), image)
        one, two, three = first.values()
        for image in (one, two, one, three, one, two):
            image.read()
            time.sleep(0.01)  # their times of use must differ
        names = [name.removeprefix("/train-00000").removesuffix(".tar") for name in server.asked[1:]]
    assert names == ["0", "1", "2", "1"]
    assert sum(path.stat().st_size for path in (cache / "shards").rglob("*.tar")) <= room
    monkeypatch.setenv("SMALLCNN_SHARD_CACHE", "plenty")
    with pytest.raises(DataError, match=r"^SMALLCNN_SHARD_CACHE is 'plenty'; it must be a number of gigabytes$"):
        remote._make_room(cache, cache)


def test_many_threads_fetch_a_shard_once(shards):
    with served(shards) as server:
        split = open_source(f"{server.url}/index.json").splits["train"]
        threads = [threading.Thread(target=split.images[i % 12].read) for i in range(24)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert server.asked.count("/train-000000.tar") == 1


def foreign(path, samples):
    with tarfile.open(path, "w") as tar:
        for name, data in samples:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


@pytest.fixture
def others(tmp_path):
    """Three shards as others write them, without an index."""
    Image.new("RGB", (9, 9)).save(file := io.BytesIO(), "JPEG")
    for shard in range(3):
        samples = []
        for i in range(4):
            samples += [(f"d/{i}.cls", b"%d" % (i % 3)), (f"d/{i}.jpg", file.getvalue()), (f"d/{i}.txt", b"a thing")]
        foreign(tmp_path / f"set-{shard + 8:02d}.tar", samples)
    return f"{tmp_path}/set-{{08..10}}.tar"


def test_a_pattern_without_an_index(others, cache, monkeypatch):
    source = open_source(others)
    assert source.classes == ("0", "1", "2")
    everything = source.everything()
    assert sorted(everything.labels.tolist()) == sorted([0, 1, 2, 0] * 3)
    assert loaded(everything) == (12, {})
    monkeypatch.setattr(tarfile, "open", None)  # it is gone through once
    assert open_source(others).fingerprint == source.fingerprint


def test_a_pattern_over_http(others, tmp_path):
    with served(tmp_path) as server:
        source = open_source(others.replace(str(tmp_path), server.url))
        assert loaded(source.everything()) == (12, {})
        assert len(server.asked) == 3


def test_a_pattern_with_a_shard_cut_short(others, tmp_path):
    os.truncate(tmp_path / "set-09.tar", 5000)
    (tmp_path / "set-10.tar").unlink()
    source = open_source(others)
    short, missing = source.notes
    assert short == f"{tmp_path}/set-09.tar: unexpected end of data; 1 images of this shard are used"
    assert missing == f"{tmp_path}/set-10.tar: No such file or directory; 0 images of this shard are used"
    done, failed = loaded(source.everything())
    assert (done, failed) == (5, {})
    shutil.copy(tmp_path / "set-08.tar", tmp_path / "set-09.tar")
    assert len(open_source(others).everything()) == 8, "it is gone through again"


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ([("a.jpg", b"x")], r"no images with a label .* \(left out 1 file: 1 without a label\)$"),
        ([("a.cls", b"0")], "no images with a label"),
        ([("a.jpg", b"x"), ("a.cls", b"")], r"labels that cannot be used: 1; the first is x-0.tar/a.cls: b''"),
        ([("a.jpg", b"x"), ("a.cls", b"\xff\xfe")], "no images with a label"),
        ([("a.jpg", b"x"), ("a.json", b"[" * 100_000)], "no images with a label"),
    ],
)
def test_patterns_that_are_refused(tmp_path, samples, message):
    foreign(tmp_path / "x-0.tar", samples)
    with pytest.raises(DataError, match=message):
        open_source(f"{tmp_path}/x-{{0..0}}.tar")
    with pytest.raises(DataError, match="matches 10,000,000,000 files; at most 100,000"):
        open_source(f"{tmp_path}/x-{{0..99999}}-{{0..99999}}.tar")
    with pytest.raises(DataError, match="its first number is above its last"):
        open_source(f"{tmp_path}/x-{{1..0}}.tar")


def damages(fields):
    shard = fields["parts"]["train"][0]
    for key, values in {
        "file": ["../x.tar", "a b", "$(touch x)", "", 3, "x;rm", "-x"], "bytes": ["1", -1, None], "sha256": ["x", None],
        "names": [[], None, [3] * len(shard["names"])], "labels": [[0], [9] * len(shard["labels"]), "x"],
        "offsets": [[-1] * len(shard["labels"]), [10**30] * len(shard["labels"]), None],
        "sizes": [[True] * len(shard["labels"]), [shard["bytes"]] * len(shard["labels"])], "crc32": [[0]],
    }.items():  # fmt: skip
        for value in values:
            yield fields | {"parts": {"train": [shard | {key: value}]}}
    yield from ([], 3, {}, fields | {"format": "2"}, fields | {"classes": []}, fields | {"classes": ["a", "a"]})
    yield from (fields | {"parts": parts} for parts in ({}, {"all": [shard]}, {"train": []}, {"train": [{}]}, []))
    yield fields | {"parts": {"train": [shard | {"more": 1}]}}


def test_an_index_is_not_trusted(made):
    text = (made / "index.json").read_text()
    fields = json.loads(text)
    assert Index.from_json(text, "here").to_json() == text
    for damaged in [*map(json.dumps, damages(fields)), text[:-1], "", "null", "[" * 100_000]:
        with pytest.raises(DataError, match=r"^here: not an index of shards \("):
            Index.from_json(damaged, "here")


class TestOrder:
    def test_of_local_images_is_any(self, photos, shards):
        for source in (open_source(photos), open_source(shards)):
            split = source.splits["train"]
            for seed, epoch in ((0, 0), (0, 1), (5, 0)):
                want = np.random.default_rng((seed, epoch)).permutation(40)
                np.testing.assert_array_equal(order(split, seed, epoch), want)

    def test_of_remote_shards_takes_a_few_at_a_time(self):
        class Here(remote.RemoteStore):
            pass

        stores = [Here(f"http://example.com/{i}.tar") for i in range(10)]
        images = [Stored(store, 0, 1, f"{i}") for i, store in enumerate(stores) for _ in range(30)]
        split = type(open_source("digits").splits["train"])(images, np.zeros(300, int), [str(i) for i in range(300)])
        got = order(split, 0, 0)
        assert sorted(got) == list(range(300))
        windows = [{int(i) // 30 for i in got[start : start + 120]} for start in (0, 120, 240)]
        assert [len(window) for window in windows] == [4, 4, 2]
        assert set.union(*windows) == set(range(10)), "each shard in one window"
        inside = [int(i) // 30 for i in got[:120]]
        assert sum(a != b for a, b in pairwise(inside)) > 60, "mixed, not one after the other"
        np.testing.assert_array_equal(order(split, 0, 0), got)
        assert not np.array_equal(order(split, 0, 1), got)
        assert not np.array_equal(order(split, 1, 0), got)


def test_an_image_too_large_to_read_back_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "set" / name).mkdir(parents=True)
        for i in range(2):
            Image.new("RGB", (8, 8)).save(tmp_path / "set" / name / f"{i}.png")
    with (tmp_path / "set/a/huge.png").open("wb") as file:
        file.truncate(1 << 36)
    source = open_source(tmp_path / "set")
    with pytest.raises(DataError, match=r"huge\.png.*not read"):
        write.write_shards(source.task, source.splits, tmp_path / "out", shard_bytes=1 << 20, seed=0)
    assert not list((tmp_path / "out").glob("*"))
