"""Archives and images that say they are far more than their size: one line, before the work."""

import bz2
import gzip
import io
import lzma
import resource
import struct
import subprocess
import sys
import tarfile
import threading
import time
import zipfile

import numpy as np
import pytest
from PIL import Image

from smallcnn.data import archive
from smallcnn.data.loader import batches
from smallcnn.data.sources import open_source
from smallcnn.errors import DataError, ImageError
from smallcnn.image import bounds
from smallcnn.image.bounds import _Room
from smallcnn.image.decode import decode
from smallcnn.image.fit import Preprocessing

MB = 1 << 20


def png(side=8, seed=0):
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)).save(file, "PNG")
    return file.getvalue()


def zipped(path, members, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as made:
        for name, data in members:
            made.writestr(name, data)
    return path


def problem(source):
    with pytest.raises(DataError) as caught:
        open_source(source)
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(f"{source}: ")


def failures(source):
    """(images that are decoded, what is said of the others)."""
    split = open_source(source).everything()
    prepare = Preprocessing((8, 8)).prepare
    found = list(batches(split, lambda i: prepare(split.images[i]), range(len(split)), batch_size=16, workers=2))
    return sum(len(batch.labels) for batch in found), [text for batch in found for text in batch.failed.values()]


class TestZip:
    def test_many_small_files_that_unpack_to_much(self, tmp_path, monkeypatch):
        monkeypatch.setattr(archive, "_FREELY", 16 * MB)
        path = zipped(tmp_path / "x.zip", [(f"{c}/{i}.png", png()[:40] + bytes(MB)) for c in "ab" for i in range(20)])
        assert problem(path).startswith("its 0.1 MB unpack to 42 MB or more, unlike images")

    def test_a_file_larger_than_an_image(self, tmp_path, monkeypatch):
        monkeypatch.setattr(archive, "LARGEST", 2 * MB)
        path = zipped(tmp_path / "x.zip", [("a/1.png", png()), ("b/1.png", png()), ("b/2.png", bytes(3 * MB))])
        source = open_source(path)
        assert len(source.everything()) == 2
        assert source.notes == ("left out 1 file: 1 larger than 2 MB",)

    def test_what_is_no_image_is_not_unpacked(self, tmp_path):
        path = zipped(tmp_path / "x.zip", [("a/1.png", png()), ("b/1.png", png()), ("b/inner.zip", bytes(160 * MB))])
        assert failures(path) == (2, [])
        assert open_source(path).notes == ("left out 1 file: 1 .zip",)

    def test_overlapping_files(self, tmp_path):
        """One local file that a hundred entries of the directory mean."""
        data = zipped(tmp_path / "x.zip", [("a/1.png", png())]).read_bytes()
        at, end = data.rindex(b"PK\1\2"), data.rindex(b"PK\5\6")
        directory = data[at:end] * 100
        tail = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 100, 100, len(directory), at, 0)
        path = tmp_path / "y.zip"
        path.write_bytes(data[:at] + directory + tail)
        assert problem(path) == "not a whole, readable archive (its files overlap); get it again"

    def test_sizes_that_are_lies(self, tmp_path):
        path = zipped(tmp_path / "x.zip", [("a/1.png", bytes(100 * MB)), ("b/1.png", png())])
        path.write_bytes(path.read_bytes().replace(struct.pack("<I", 100 * MB), struct.pack("<I", 1000)))
        started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        done, (text,) = failures(path)
        assert (done, "Bad CRC-32" in text) == (1, True)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - started < 50_000, "kB, half of what it holds"

    @pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
    def test_other_methods_are_counted(self, tmp_path, method):
        path = zipped(tmp_path / "x.zip", [("a/1.png", png())], method)
        assert problem(path) == "no usable file in it (left out 1 file: 1 compressed in another way than deflate)"

    def test_encrypted_ones_are_counted(self, tmp_path):
        path = zipped(tmp_path / "x.zip", [(f"{c}/{i}.png", png()) for c in "ab" for i in range(3)])
        data = bytearray(path.read_bytes())
        data[data.find(b"PK\1\2") + 8] |= 1  # the flag of the first
        path.write_bytes(data)
        assert open_source(path).notes == ("left out 1 file: 1 encrypted",)
        assert failures(path) == (5, [])

    def test_names_that_lead_out_are_only_names(self, tmp_path):
        names = ["../../a/1.png", "/a/2.png", "./a//3.png", "b/../a/4.png", "b/1.png"]
        source = open_source(zipped(tmp_path / "x.zip", [(name, png()) for name in names]))
        assert sorted(source.everything().names) == ["a/1.png", "a/2.png", "a/3.png", "a/4.png", "b/1.png"]

    def test_backslashes_of_windows(self, tmp_path):
        info = [zipfile.ZipInfo(name) for name in ("a\\1.png", "b\\1.png")]
        for one in info:
            one.create_system = 0
        assert open_source(zipped(tmp_path / "x.zip", [(one, png()) for one in info])).classes == ("a", "b")

    @pytest.mark.filterwarnings("ignore:Duplicate name")
    def test_of_two_of_a_name_the_later_counts(self, tmp_path):
        path = zipped(tmp_path / "x.zip", [("a/1.png", png(8)), ("b/1.png", png(8)), ("a/1.png", png(9))])
        source = open_source(path)
        (image,) = (image for image, name in zip(*_pairs(source), strict=True) if name == "a/1.png")
        assert decode(image, 3).size == (9, 9)
        assert source.notes == ("left out 1 file: 1 replaced by another of the same name",)

    def test_links(self, tmp_path):
        link = zipfile.ZipInfo("b/link.png")
        link.create_system, link.external_attr = 3, 0o120777 << 16
        gone = zipfile.ZipInfo("b/gone.png")
        gone.create_system, gone.external_attr = 3, 0o120777 << 16
        path = zipped(tmp_path / "x.zip", [("a/1.png", png()), (link, "../a/1.png"), (gone, "../../etc/passwd")])
        source = open_source(path)
        assert sorted(source.everything().names) == ["a/1.png", "b/link.png"]
        assert source.notes == ("left out 1 file: 1 linking out of the archive",)
        assert failures(path) == (2, [])


def _pairs(source):
    split = source.everything()
    return split.images, split.names


class TestTar:
    @pytest.mark.parametrize("opener", [gzip.open, bz2.open, lzma.open])
    def test_a_compressed_bomb(self, tmp_path, opener, monkeypatch):
        monkeypatch.setattr(archive, "_FREELY", 16 * MB)  # a real one of 300 MB takes a minute to make
        path = tmp_path / "x.tar.gz"
        with opener(path, "wb") as raw:
            member = tarfile.TarInfo("a/notes.txt")
            member.size = 30 * MB
            raw.write(member.tobuf())
            for _ in range(30):
                raw.write(bytes(MB))
        started = time.perf_counter()
        assert "MB unpack to 17 MB or more" in problem(path)
        assert time.perf_counter() - started < 5

    def test_links_devices_and_the_rest(self, tmp_path):
        path = tmp_path / "x.tar"
        with tarfile.open(path, "w") as tar:
            for name in ("a/1.png", "b/1.png"):
                info = tarfile.TarInfo(name)
                info.size = len(png())
                tar.addfile(info, io.BytesIO(png()))
            for name, kind, to in (
                ("a/hard.png", tarfile.LNKTYPE, "a/1.png"), ("a/soft.png", tarfile.SYMTYPE, "../b/1.png"),
                ("a/twice.png", tarfile.SYMTYPE, "soft.png"), ("a/round.png", tarfile.SYMTYPE, "round.png"),
                ("a/out.png", tarfile.SYMTYPE, "/etc/passwd"), ("a/pipe.png", tarfile.FIFOTYPE, ""),
                ("a/null.png", tarfile.CHRTYPE, ""),
            ):  # fmt: skip
                info = tarfile.TarInfo(name)
                info.type, info.linkname = kind, to
                tar.addfile(info)
        source = open_source(path)
        names = ["a/1.png", "a/hard.png", "a/soft.png", "a/twice.png", "b/1.png"]
        assert sorted(source.everything().names) == names
        assert source.notes == ("left out 4 files: 2 linking out of the archive, 2 special (pipe, socket or device)",)
        assert failures(path) == (5, [])


class TestArrays:
    def test_zeros(self, tmp_path, monkeypatch):
        monkeypatch.setattr(archive, "_FREELY", 16 * MB)
        path = tmp_path / "x.npz"
        np.savez_compressed(path, x=np.zeros((3_000, 100, 100), np.uint8), y=np.arange(3_000) % 2)
        assert "MB unpack to 30 MB or more" in problem(path)

    def test_other_arrays_are_not_read(self, tmp_path, monkeypatch):
        monkeypatch.setattr(archive, "_FREELY", 16 * MB)
        path = tmp_path / "x.npz"
        np.savez_compressed(path, x=np.zeros((4, 8, 8), np.uint8), y=np.arange(4) % 2, more=np.zeros(30 * MB, np.uint8))
        assert len(open_source(path).everything()) == 4

    def test_claims(self, tmp_path):
        header = "{'descr': '|u1', 'fortran_order': False, 'shape': (1099511627776,), }".ljust(117) + "\n"
        npy = b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header.encode() + bytes(100)
        path = zipped(tmp_path / "x.npz", [("x.npy", npy), ("y.npy", npy)])
        assert problem(path).startswith("not a readable .npz file without pickled objects (")


class TestPixels:
    def test_a_flat_image_of_many_pixels(self):
        file = io.BytesIO()
        Image.new("L", (7000, 7000)).save(file, "PNG")
        with pytest.raises(ImageError, match=r"^image: 7000 x 7000 pixels in .* refused as a decompression bomb$"):
            decode(file.getvalue(), 3)

    @pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
    def test_more_than_the_memory_allowed(self):
        file = io.BytesIO()
        Image.new("RGB", (12_000, 10_000)).save(file, "BMP")
        with pytest.raises(ImageError, match=r"12000 x 10000 pixels would take 960 MB of memory to decode, more than"):
            decode(file.getvalue(), 3)

    def test_a_progressive_jpeg_needs_its_full_size(self):
        """Loaded at an eighth of its size it took 563 MB."""
        file = io.BytesIO()
        Image.fromarray(np.tile(np.random.default_rng(0).integers(0, 256, (500, 500), np.uint8), (16, 20))).convert(
            "RGB"
        ).save(file, "JPEG", progressive=True, quality=10)
        assert decode(file.getvalue(), 3, shorter=8).size == (10_000, 8_000)
        room = bounds._pixels
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(bounds, "_MOST", 400_000_000)
            with pytest.raises(ImageError, match=r"10000 x 8000 pixels would take 490 MB of memory to decode"):
                decode(file.getvalue(), 3, shorter=8)
        assert not room._used

    def test_a_large_one_is_made_smaller_where_that_is_enough(self):
        pixels = np.zeros((6000, 6000), np.uint8)
        pixels[:3000] = 200
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "BMP")
        decoded = decode(file.getvalue(), 3, shorter=500)
        assert (decoded.size, decoded.factor, decoded.image.size) == ((6000, 6000), 8, (750, 750))
        seen = np.asarray(decoded.image)
        assert (seen[0, 0].tolist(), seen[-1, -1].tolist()) == ([200] * 3, [0] * 3)
        assert decode(file.getvalue(), 3).factor == 1

    def test_room_is_never_exceeded_and_nobody_waits_for_ever(self):
        room, inside, most = _Room(100), [], []

        def work(needed):
            with room.of(needed):
                inside.append(needed)
                most.append(sum(inside))
                time.sleep(0.001)
                inside.remove(needed)

        threads = [threading.Thread(target=work, args=(needed,)) for needed in [60, 30, 10, 100, 1, 99, 50, 51] * 5]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=20)
            assert not thread.is_alive()
        assert max(most) <= 100
        with room.of(1000):  # alone
            pass


@pytest.mark.skipif(sys.platform != "linux", reason="another system counts otherwise")
def test_memory_of_a_process(tmp_path):
    """Eight images at a time would be 1.8 GB, files and pixels; without returning what is freed it took 0.9 GB."""
    pixels = np.random.default_rng(0).integers(0, 256, (500, 500, 3), np.uint8)
    Image.fromarray(np.tile(pixels, (9, 9, 1))).save(tmp_path / "large.bmp")
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as made:
        for i in range(8):
            made.write(tmp_path / "large.bmp", f"{'ab'[i % 2]}/{i}.bmp")
    code = """
import re, sys
from concurrent.futures import ThreadPoolExecutor
from smallcnn.image.fit import Preprocessing
from smallcnn.data.sources import open_source
images = open_source(sys.argv[1]).everything().images
print(len(list(ThreadPoolExecutor(8).map(Preprocessing((8, 8)).prepare, images))))
print(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])
"""
    command = [sys.executable, "-c", code, str(path)]
    done, kilobytes = map(
        int, subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout.split()
    )
    assert done == 8
    assert kilobytes < 750_000
