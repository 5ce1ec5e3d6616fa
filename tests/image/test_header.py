"""Sizes from headers equal those of the decoded images, whatever turns them."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from smallcnn.errors import ImageError
from smallcnn.image.decode import decode
from smallcnn.image.header import Header, read_header, read_headers
from smallcnn.image.stored import Stored

NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 31, 3), np.uint8))


def encoded(form, orientation=None, image=NOISE):
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    image.save(file := io.BytesIO(), form, exif=exif)
    return file.getvalue()


@pytest.mark.parametrize("orientation", [None, *range(1, 9), 77])
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "MPO"])
def test_upright_size_is_that_of_the_decoded_image(form, orientation):
    content = encoded(form, orientation)
    header = read_header(content)
    assert header.upright == decode(content, 3).size
    if form != "TIFF":
        assert header == Header((31, 20), orientation if orientation in range(1, 9) else 1)


class Store:
    """Counts the bytes that are read."""

    def __init__(self, content):
        self.content, self.given = content, 0

    def read(self, at, size):
        self.given += size
        return self.content[at : at + size]


def test_only_the_start_of_a_large_file_is_read():
    content = encoded("JPEG") + bytes(1 << 20)
    store = Store(content)
    assert read_header(Stored(store, 0, len(content), "x")).upright == (31, 20)
    assert store.given == 1 << 16


def test_a_size_behind_a_long_comment_is_found():
    content = encoded("JPEG")
    comments = b"".join(b"\xff\xfe\xff\xff" + bytes(0xFFFD) for _ in range(3))
    content = content[:2] + comments + content[2:]
    assert read_header(Stored(Store(content), 0, len(content), "x")).upright == decode(content, 3).size == (31, 20)


def test_what_is_no_image(tmp_path: Path):
    (tmp_path / "a.jpg").write_bytes(b"text")
    (tmp_path / "b.png").write_bytes(encoded("PNG"))
    with zipfile.ZipFile(tmp_path / "c.zip", "w") as packed:
        packed.writestr("c.png", encoded("PNG", 6))
    with pytest.raises(ImageError, match="not a JPEG"):
        read_header(tmp_path / "a.jpg")
    found = read_headers([tmp_path / "a.jpg", tmp_path / "b.png", tmp_path / "missing.png"])
    assert found == [None, Header((31, 20)), None]
