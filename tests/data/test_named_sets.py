"""Named sets from small stand-ins of their official files: downloaded, packed, unpacked, damaged."""

import errno
import gzip
import hashlib
import io
import os
import pickle
import re
import struct
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from served import served
from shared_files import SHARED, shared
from smallcnn.data.named import NAMED
from smallcnn.data.sources import open_source
from smallcnn.errors import DataError, FileError
from smallcnn.image.decode import decode

RNG = np.random.default_rng(0)


def image_file(value, kind="JPEG", side=9):
    Image.new("RGB", (side, side), (value, 100, 200)).save(file := io.BytesIO(), kind)
    return file.getvalue()


def tar(path, files):
    with tarfile.open(path, "w:gz" if path.suffix in (".gz", ".tgz") else "w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def put(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def cifar_records(count, classes, coarse=False):
    """(file content, pixels (N, 32, 32, 3), labels)"""
    pixels = RNG.integers(0, 256, (count, 3, 32, 32), np.uint8)
    labels = np.arange(count) % classes
    head = [labels[:, None] // 5, labels[:, None]] if coarse else [labels[:, None]]
    return (
        np.hstack([*head, pixels.reshape(count, -1)]).astype(np.uint8).tobytes(),
        pixels.transpose(0, 2, 3, 1),
        labels,
    )


def cifar10(folder, unpacked):
    made = {f"data_batch_{i}.bin": cifar_records(8, 10) for i in range(1, 6)} | {"test_batch.bin": cifar_records(4, 10)}
    files = {f"cifar-10-batches-bin/{name}": content for name, (content, _, _) in made.items()}
    tar(folder / "cifar-10-binary.tar.gz", files)
    put(unpacked, files)
    pixels = [pixels for _, pixels, _ in made.values()]
    labels = [labels for _, _, labels in made.values()]
    return {
        "train": (np.concatenate(pixels[:5]), np.concatenate(labels[:5])), "test": (pixels[5], labels[5])
    }  # fmt: skip


def cifar100(folder, unpacked):
    made = {"train.bin": cifar_records(30, 100, coarse=True), "test.bin": cifar_records(9, 100, coarse=True)}
    files = {f"cifar-100-binary/{name}": content for name, (content, _, _) in made.items()}
    tar(folder / "cifar-100-binary.tar.gz", files)
    put(unpacked, files)
    return {name.removesuffix(".bin"): (pixels, labels) for name, (_, pixels, labels) in made.items()}


def fashion_mnist(folder, unpacked):
    want = {}
    for part, prefix, count in (("train", "train", 20), ("test", "t10k", 5)):
        pixels, labels = RNG.integers(0, 256, (count, 28, 28), np.uint8), np.arange(count) % 10
        images = struct.pack(">4i", 0x803, count, 28, 28) + pixels.tobytes()
        numbers = struct.pack(">2i", 0x801, count) + labels.astype(np.uint8).tobytes()
        for name, content in ((f"{prefix}-images-idx3-ubyte", images), (f"{prefix}-labels-idx1-ubyte", numbers)):
            put(folder, {f"{name}.gz": gzip.compress(content)})
            put(unpacked, {f"FashionMNIST/raw/{name}": content})
        want[part] = pixels, labels
    return want


def svhn(folder, unpacked):
    savemat = pytest.importorskip("scipy.io").savemat
    want = {}
    for part, count in (("train", 20), ("test", 11)):
        pixels, labels = RNG.integers(0, 256, (32, 32, 3, count), np.uint8), np.arange(count)[:, None] % 10 + 1
        for where in (folder, unpacked):
            savemat(where / f"{part}_32x32.mat", {"X": pixels, "y": labels.astype(np.uint8)})
        want[part] = np.stack([pixels[..., i] for i in range(count)]), labels[:, 0] % 10
    return want


def gtsrb(folder, unpacked):
    files, train, val = {}, [], []
    for label in (0, 42):
        for sign in range(7):
            for frame in range(2):
                name = f"{label:05d}/{sign:05d}_{frame:05d}.ppm"
                files[f"GTSRB/Final_Training/Images/{name}"] = content = image_file(10 * sign, "PPM")
                (val if sign == 4 else train).append((content, label))
        files[f"GTSRB/Final_Training/Images/{label:05d}/GT-{label:05d}.csv"] = b"Filename;ClassId\n"
    test = [(image_file(i, "PPM"), (i * 7) % 43) for i in range(6)]
    tests = {f"GTSRB/Final_Test/Images/{i:05d}.ppm": content for i, (content, _) in enumerate(test)}
    rows = ["Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId"]
    rows += [f"{i:05d}.ppm;9;9;1;1;8;8;{label}" for i, (_, label) in enumerate(test)]
    table = {"GT-final_test.csv": "\r\n".join(rows).encode()}
    for name, content in (("Training_Images", files), ("Test_Images", tests), ("Test_GT", table)):
        with zipfile.ZipFile(folder / f"GTSRB_Final_{name}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for member, data in content.items():
                archive.writestr(member, data)
        put(unpacked, content)
    return {part: tuple(zip(*pairs, strict=True)) for part, pairs in (("train", train), ("val", val), ("test", test))}


def flowers102(folder, unpacked):
    savemat = pytest.importorskip("scipy.io").savemat
    labels = RNG.integers(1, 103, 12)
    files = {f"jpg/image_{i:05d}.jpg": image_file(20 * i) for i in range(1, 13)}
    tar(folder / "102flowers.tgz", files)
    put(unpacked, files)
    numbers = {"trnid": [3, 1, 12], "valid": [2, 5], "tstid": [4, 6, 7, 8, 9, 10, 11]}
    for where in (folder, unpacked):
        savemat(where / "imagelabels.mat", {"labels": labels})
        savemat(where / "setid.mat", numbers)
    return {
        part: ([files[f"jpg/image_{i:05d}.jpg"] for i in numbers[key]], [labels[i - 1] - 1 for i in numbers[key]])
        for part, key in (("train", "trnid"), ("val", "valid"), ("test", "tstid"))
    }


def imagenette(folder, unpacked):
    files, want = {}, {}
    for part in ("train", "val"):
        found = []
        for label, wnid in enumerate(("n01440764", "n02102040")):
            for i in range(3):
                files[f"imagenette2-320/{part}/{wnid}/{i}.JPEG"] = content = image_file(30 * i + label)
                found.append((content, label))
        want[part] = tuple(zip(*found, strict=True))
    files["imagenette2-320/noisy_imagenette.csv"] = b"path\n"
    tar(folder / "imagenette2-320.tgz", files)
    put(unpacked, files)
    return want


MAKERS = {
    "cifar10": cifar10, "cifar100": cifar100, "fashion_mnist": fashion_mnist, "svhn": svhn, "gtsrb": gtsrb,
    "flowers102": flowers102, "imagenette": imagenette,
}  # fmt: skip


@pytest.fixture
def official(tmp_path, monkeypatch):
    """Makes the stand-ins of a set and puts their hashes into the table: (folder, unpacked folder, what is in them)."""
    monkeypatch.setenv("SMALLCNN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "*")

    def make(name, url="http://127.0.0.1:9"):
        packed, unpacked = tmp_path / "packed", tmp_path / "unpacked"
        packed.mkdir()
        unpacked.mkdir()
        want = MAKERS[name](packed, unpacked)
        files = []
        for file in NAMED[name].files:
            data = (packed / file.name).read_bytes() if (packed / file.name).exists() else b""
            hashes = {kind: getattr(file, kind) and hashlib.new(kind, data).hexdigest() for kind in ("sha256", "md5")}
            files.append(replace(file, url=f"{url}/{file.name}", size=file.size and len(data), **hashes))
        monkeypatch.setitem(NAMED, name, replace(NAMED[name], files=tuple(files)))
        return packed, unpacked, want

    return make


def check(source, want):
    """The stored parts are `want`: part -> (pixels or file contents, labels)."""
    for part, (images, labels) in want.items():
        names = {"train", "val"} if part == "train" and source.val_is_cut else {part}
        found = [(image, label) for name in names for image, label in zip(
            source.splits[name].images, source.splits[name].labels, strict=True)]  # fmt: skip
        assert len(found) == len(images)
        wanted = [(decode(image, 3).image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True)]
        assert sorted((decode(image, 3).image.tobytes(), int(label)) for image, label in found) == sorted(wanted)


@pytest.mark.parametrize("name", MAKERS)
def test_downloaded_packed_and_unpacked_are_the_same(official, tmp_path, name):
    tmp_path.joinpath("packed").mkdir()
    with served(tmp_path / "packed") as server:
        tmp_path.joinpath("packed").rmdir()
        packed, unpacked, want = official(name, server.url)
        downloaded = open_source(name)
        asked = list(server.asked)
        assert open_source(name).fingerprint == downloaded.fingerprint
        assert server.asked == asked, "nothing is asked a second time"
    check(downloaded, want)
    assert len(downloaded.classes) == {"cifar100": 100, "gtsrb": 43, "flowers102": 102, "imagenette": 2}.get(name, 10)
    assert len(list((tmp_path / "cache" / "data" / name).rglob("*"))) > len(asked)
    for root in (packed, unpacked):
        offline = open_source(name, root=root)
        assert offline.fingerprint == downloaded.fingerprint
        assert offline.classes == downloaded.classes
        check(offline, want)


def test_what_a_class_is_called():
    """A few from the sets' own descriptions."""
    from smallcnn.data.named import cifar, fashion_mnist, flowers102, gtsrb

    assert [cifar._CLASSES_10[i] for i in (0, 3, 9)] == ["airplane", "cat", "truck"]
    assert [cifar._CLASSES_100[i] for i in (0, 1, 99)] == ["apple", "aquarium_fish", "worm"]
    assert tuple(sorted(cifar._CLASSES_100)) == cifar._CLASSES_100
    assert [fashion_mnist._CLASSES[i] for i in (0, 6, 9)] == ["T-shirt/top", "Shirt", "Ankle boot"]
    assert [flowers102._CLASSES[i - 1] for i in (1, 54, 102)] == ["pink primrose", "sunflower", "blackberry lily"]
    assert [gtsrb._CLASSES[i] for i in (13, 14, 17, 40)] == ["yield", "stop", "no entry", "roundabout"]
    for known in (cifar._CLASSES_100, flowers102._CLASSES, gtsrb._CLASSES):
        assert len(set(known)) == len(known)


def test_the_table_is_complete():
    assert set(NAMED) == {*MAKERS, "digits", "imagenet"}
    assert {name for name, known in NAMED.items() if not known.mirror} == {"digits", "svhn", "gtsrb"}
    for known in NAMED.values():
        assert known.licence
        assert re.search(r"(19|20)\d\d", known.citation)
        for file in known.files:
            assert re.fullmatch("[0-9a-f]{64}", file.sha256 or "") or re.fullmatch("[0-9a-f]{32}", file.md5 or "")
            assert file.url.startswith("https://") or file.sha256


@pytest.mark.parametrize("name", ["cifar10", "gtsrb"])
def test_a_wrong_checksum_is_one_line_and_not_kept(official, tmp_path, name):
    tmp_path.joinpath("packed").mkdir()
    with served(tmp_path / "packed") as server:
        tmp_path.joinpath("packed").rmdir()
        packed, _, _ = official(name, server.url)
        path = packed / NAMED[name].files[0].name
        data = bytearray(path.read_bytes())
        data[50] ^= 1
        path.write_bytes(data)
        with pytest.raises(
            FileError, match=r"is not the expected file: its (SHA-256|MD5) is \w+, expected \w+"
        ) as caught:
            open_source(name)
    assert "\n" not in str(caught.value)
    assert not [p for p in (tmp_path / "cache").rglob("*") if p.is_file() and p.suffix in (".gz", ".zip")]
    with pytest.raises(DataError, match=r"not the official file: its (SHA-256|MD5) is \w+, expected \w+"):
        open_source(name, root=packed)


def test_a_full_disk_while_downloading_is_one_line(official, tmp_path, monkeypatch):
    tmp_path.joinpath("packed").mkdir()
    with served(tmp_path / "packed") as server:
        tmp_path.joinpath("packed").rmdir()
        official("cifar10", server.url)

        def full(*_):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(FileError, match=r"^cannot write .*cifar-10-binary\.tar\.gz: No space left on device$"):
                open_source("cifar10")
        assert open_source("cifar10").classes[0] == "airplane"


def test_offline_says_where_to_put_the_file(official):
    official("cifar10")  # nobody listens at that address
    with pytest.raises(
        FileError, match=r"^no connection to .*; if you can get \S+cifar-10-binary\.tar\.gz elsewhere, put"
    ):
        open_source("cifar10")


class Trap:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_cifar_pickles_run_no_code(tmp_path):
    pixels, labels = RNG.integers(0, 256, (6, 3072), np.uint8), [3, 1, 4, 1, 5, 9]
    batch = {b"batch_label": b"a batch", b"data": pixels, b"labels": labels, b"filenames": [b"a.png"] * 6}
    folder = tmp_path / "cifar-10-batches-py"
    files = {name: pickle.dumps(batch) for name in ("test_batch", *(f"data_batch_{i}" for i in range(1, 6)))}
    put(folder, files | {"batches.meta": b"", "readme.html": b""})
    test = open_source("cifar10", root=tmp_path).splits["test"]
    np.testing.assert_array_equal(test.images, pixels.reshape(6, 3, 32, 32).transpose(0, 2, 3, 1))
    assert test.labels.tolist() == labels
    made = tmp_path / "made"
    (folder / "data_batch_3").write_bytes(pickle.dumps(batch | {b"labels": Trap(made)}))
    with pytest.raises(DataError, match=r"data_batch_3: not a batch of CIFAR images \(it asks for "):
        open_source("cifar10", root=tmp_path)
    assert not made.exists()


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: b"\x0a" + data[1:], lambda data: b""])
def test_damaged_cifar(official, damage):
    _, unpacked, _ = official("cifar10")
    path = unpacked / "cifar-10-batches-bin" / "data_batch_2.bin"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=r"data_batch_2\.bin: not a batch of CIFAR images"):
        open_source("cifar10", root=unpacked)
    path.unlink()
    with pytest.raises(DataError, match=r"has no file data_batch_2\.bin"):
        open_source("cifar10", root=unpacked)


def test_images_in_place_of_the_official_files(tmp_path):
    classes = NAMED["cifar10"].read.keywords["classes"]
    for part in ("train", "test"):
        files = {f"cifar10_{part}/{name}/{i}.jpg": image_file(i) for name in classes for i in range(5)}
        tar(tmp_path / f"cifar10-jpeg-{part}.tar.gz", files)
        tar(tmp_path / f"cifar100-jpeg-{part}.tar.gz", {"cifar100/apple/0.jpg": image_file(0)})  # another set
        put(tmp_path / "folders", files)
        put(tmp_path / "plain" / part, {name.partition("/")[2]: content for name, content in files.items()})
    prints = set()
    for root in (tmp_path, tmp_path / "folders", tmp_path / "plain"):
        source = open_source("cifar10", root=root)
        assert source.classes == classes
        assert [len(split) for split in source.splits.values()] == [40, 10, 50]
        prints.add(source.fingerprint)
    assert len(prints) == 1


def test_images_of_another_set(tmp_path):
    put(tmp_path, {f"{name}/{i}.jpg": image_file(i) for name in ("daisy", "rose") for i in range(3)})
    with pytest.raises(DataError, match="2 classes of images, cifar10 has 10"):
        open_source("cifar10", root=tmp_path)


@pytest.mark.long  # ten seconds for 55,000 files in compressed tars
def test_the_real_jpeg_copy():
    shared("data/cifar10_jpeg_train.tar.gz")
    source = open_source("cifar10", root=SHARED / "data")
    assert source.classes == NAMED["cifar10"].read.keywords["classes"]
    assert {part: np.bincount(split.labels).tolist() for part, split in source.splits.items()} == {
        "train": [4000] * 10, "val": [1000] * 10, "test": [500] * 10
    }  # fmt: skip
    assert decode(source.splits["test"].images[0], 3).size == (32, 32)


def test_imagenet_is_a_folder(tmp_path):
    with pytest.raises(
        DataError, match=r"^imagenet cannot be downloaded here: .*https://image-net\.org; give the folder"
    ):
        open_source("imagenet")
    put(tmp_path, {f"{part}/{wnid}/x.JPEG": b"" for part in ("train", "val") for wnid in ("n02102040", "n01440764")})
    assert open_source("imagenet", root=tmp_path).classes == ("tench", "English springer")
    put(tmp_path, {"train/cat/x.JPEG": b""})
    with pytest.raises(DataError, match=r"the folder cat is not one of ImageNet's 1,000 classes"):
        open_source("imagenet", root=tmp_path)


def test_roots_that_hold_nothing(tmp_path):
    with pytest.raises(DataError, match=r"no such folder$"):
        open_source("cifar10", root=tmp_path / "none")
    with pytest.raises(
        DataError,
        match=r"has no train_32x32\.mat, and no images of svhn in class folders either \(.*no class folders",
    ):
        open_source("svhn", root=tmp_path)
    with pytest.raises(DataError, match=r"a root is for named sets \(digits, .*'photos' is not one"):
        open_source("photos", root=tmp_path)
