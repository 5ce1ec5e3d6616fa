"""Every kind of image a user may have, and every way one may be broken."""

import io
import os
import struct
import sys
import zlib
from math import ceil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from smallcnn.errors import ImageError
from smallcnn.image.decode import decode

# 3 x 4 squares of 16 pixels, each of one colour: a JPEG keeps them, even at an eighth of its size
_COLOURS = np.random.default_rng(0).integers(0, 256, (3, 4, 3), np.uint8)
SQUARES = np.kron(_COLOURS, np.ones((16, 16, 1), np.uint8))
BEST = {"JPEG": {"quality": 100, "subsampling": 0}, "PNG": {}, "TIFF": {}, "WEBP": {"lossless": True}}
JPEG_ERROR = 2  # grey levels: colours to YCbCr and back, both rounded

# EXIF 2.32, tag 0x0112: the sides of the scene that row 0 and column 0 of the stored pixels are
UPRIGHT = {
    1: lambda a: a,  # top, left
    2: lambda a: a[:, ::-1],  # top, right
    3: lambda a: a[::-1, ::-1],  # bottom, right
    4: lambda a: a[::-1],  # bottom, left
    5: lambda a: a.swapaxes(0, 1),  # left, top
    6: lambda a: np.rot90(a, -1),  # right, top
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),  # right, bottom
    8: np.rot90,  # left, bottom
}


def encoded(source, kind, **options):
    image = source if isinstance(source, Image.Image) else Image.fromarray(source)
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def turned(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def flat(mode, colour):
    return Image.new(mode, (5, 3), colour)


def problem(source):
    with pytest.raises(ImageError) as caught:
        decode(source, 3)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("kind", BEST)
def test_exif_orientation(kind, orientation):
    data = encoded(SQUARES, kind, exif=turned(orientation), **BEST[kind])
    for source in (data, Image.open(io.BytesIO(data))):
        got = np.asarray(decode(source, 3).image, int)
        np.testing.assert_allclose(got, UPRIGHT[orientation](SQUARES), atol=JPEG_ERROR if kind == "JPEG" else 0)


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("factor", [1, 2, 4, 8])
def test_a_turned_jpeg_decoded_smaller(orientation, factor):
    data = encoded(SQUARES, "JPEG", exif=turned(orientation), **BEST["JPEG"])
    got = decode(data, 3, shorter=min(SQUARES.shape[:2]) / factor)
    want = UPRIGHT[orientation](SQUARES[::factor, ::factor])
    np.testing.assert_allclose(np.asarray(got.image, int), want, atol=JPEG_ERROR)
    assert got.factor == factor
    assert got.size == UPRIGHT[orientation](SQUARES).shape[1::-1]


def test_a_telephones_multi_picture_jpeg_is_decoded_smaller():
    data = encoded(SQUARES, "MPO", save_all=True, append_images=[Image.new("RGB", (9, 9))], quality=100)
    got = decode(data, 3, shorter=24)
    assert (got.image.size, got.size, got.factor) == ((32, 24), (64, 48), 2)


@pytest.mark.parametrize(("orientation", "factor"), [(1, 2), (3, 1), (6, 1)])
def test_a_turned_jpeg_is_decoded_smaller_where_that_divides_it(orientation, factor):
    """47 pixels at a half are 23.5: half a pixel more at the end, but turned it would be at the start."""
    got = decode(encoded(SQUARES[:47], "JPEG", exif=turned(orientation)), 3, shorter=23)
    assert got.factor == factor
    assert got.size == UPRIGHT[orientation](SQUARES[:47]).shape[1::-1]


@given(width=st.integers(1, 400), height=st.integers(1, 400), shorter=st.floats(1, 200))
@example(width=127, height=300, shorter=64)  # one pixel too few for a half
@settings(deadline=None)
def test_a_jpeg_is_decoded_as_small_as_allowed_and_no_smaller(width, height, shorter):
    got = decode(encoded(Image.new("RGB", (width, height)), "JPEG"), 3, shorter)
    factor = max(f for f in (1, 2, 4, 8) if f == 1 or min(width, height) >= f * shorter)
    assert (got.size, got.factor) == ((width, height), factor)
    assert got.image.size == (ceil(width / factor), ceil(height / factor))


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "GIF", "BMP", "PPM"])
def test_only_jpegs_are_decoded_smaller(kind):
    got = decode(encoded(SQUARES, kind), 3, shorter=1)
    assert (got.image.size, got.size, got.factor) == ((64, 48), (64, 48), 1)


KINDS = {
    "1 bit": (encoded(flat("1", 1), "PNG"), (255, 255, 255)),
    "grey": (encoded(flat("L", 77), "PNG"), (77, 77, 77)),
    "palette": (encoded(flat("RGB", (9, 50, 200)).quantize(2), "PNG"), (9, 50, 200)),
    # over white: 100 * 128/255 + 255 * 127/255 = 177.2
    "grey, half transparent": (encoded(flat("LA", (100, 128)), "PNG"), (177, 177, 177)),
    "RGB, half transparent": (encoded(flat("RGBA", (100, 100, 100, 128)), "WEBP", lossless=True), (177, 177, 177)),
    "palette, transparent": (encoded(flat("P", 0), "PNG", transparency=b"\0"), (255, 255, 255)),
    "GIF, transparent": (encoded(flat("P", 0), "GIF", transparency=0), (255, 255, 255)),
    "1 bit, transparent": (encoded(flat("1", 0), "PNG", transparency=0), (255, 255, 255)),
    "grey, transparent": (encoded(flat("L", 9), "PNG", transparency=9), (255, 255, 255)),
    "16 bit, transparent": (encoded(flat("I;16", 9), "PNG", transparency=9), (255, 255, 255)),
    "RGB, transparent": (encoded(flat("RGB", (9, 8, 7)), "PNG", transparency=(9, 8, 7)), (255, 255, 255)),
    "RGB, another colour transparent": (encoded(flat("RGB", (9, 8, 7)), "PNG", transparency=(9, 8, 6)), (9, 8, 7)),
    "16 bit": (encoded(flat("I;16", 0xABCD), "PNG"), (0xAB, 0xAB, 0xAB)),
    "16 bit, high byte first": (encoded(flat("I;16B", 0xABCD), "TIFF"), (0xAB, 0xAB, 0xAB)),
    "16 bit, portable greymap": (b"P5 1 1 65535 \xab\xcd", (0xAB, 0xAB, 0xAB)),
    "CMYK": (encoded(flat("CMYK", (0, 255, 255, 0)), "TIFF"), (255, 0, 0)),
    "CMYK, inverted by Adobe": (encoded(flat("CMYK", (255, 0, 255, 0)), "JPEG", quality=100), (0, 255, 0)),
    "CIE L*a*b*": (encoded(flat("LAB", (255, 128, 128)), "TIFF"), (255, 255, 255)),
    "BMP": (encoded(flat("RGB", (9, 50, 200)), "BMP"), (9, 50, 200)),
    "array (H, W)": (np.full((2, 3), 7, np.uint8), (7, 7, 7)),
    "array (H, W, 1)": (np.full((2, 3, 1), 7, np.uint8), (7, 7, 7)),
    "array (H, W, 3), a view": (np.full((4, 3, 9), (9, 50, 200) * 3, np.uint8)[::2, :, 3:6], (9, 50, 200)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_pixels(kind):
    source, rgb = KINDS[kind]
    colour, grey = decode(source, 3).image, decode(source, 1).image
    assert (colour.mode, grey.mode) == ("RGB", "L")
    np.testing.assert_allclose(colour.getpixel((0, 0)), rgb, atol=1)  # alpha blending rounds twice
    luma = np.dot(rgb, (0.299, 0.587, 0.114))  # ITU-R BT.601
    np.testing.assert_allclose(grey.getpixel((0, 0)), luma, atol=1.5)  # that, and its own rounding


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "TIFF"])
def test_the_first_frame_counts(kind):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    np.testing.assert_allclose(decode(data, 3).image.getpixel((4, 4)), (255, 0, 0), atol=4)  # WebP is lossy


@pytest.mark.parametrize("name", ["PHOTO.JPG", "Blüte 花.jpeg", "no_suffix"])
def test_a_path_and_its_bytes_are_the_same_image(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(encoded(SQUARES, "JPEG"))
    for file in (path, str(path), path.read_bytes()):
        np.testing.assert_array_equal(decode(file, 3).image, decode(Image.open(path), 3).image)


def test_a_pillow_image_is_left_alone():
    image = Image.open(io.BytesIO(encoded(SQUARES, "JPEG", exif=turned(6))))
    decode(image, 1, shorter=1)
    assert (image.mode, image.size, image.getexif()[0x0112]) == ("RGB", (64, 48), 6)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("exif", [b"nonsense", b"MM\0*", b"II*\0\x08\0", b"II*\0\xff\xff\xff\xff"])
def test_damaged_exif_does_not_cost_the_image(exif):
    data = encoded(SQUARES, "PNG", exif=b"Exif\0\0" + exif)
    assert exif in data
    np.testing.assert_array_equal(decode(data, 3).image, SQUARES)


@pytest.mark.filterwarnings("ignore:Truncated File Read")
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM"])
def test_a_truncated_file_is_refused_and_never_half_a_image(kind):
    data = encoded(SQUARES, kind)
    whole = np.asarray(decode(data, 3).image)
    for cut in np.linspace(0, len(data) - 1, 200, dtype=int):
        try:
            np.testing.assert_array_equal(decode(data[:cut], 3).image, whole)
        except ImageError:
            continue
        assert cut > len(data) - 24, "only the checksums and the mark at the end may be missing"


def _png(width, height):
    """A PNG that says it is this large and holds nothing."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


REFUSED = {
    "empty file": (b"", "an empty file"),
    "text": (b"<html>404 not found</html>\n", "not a JPEG, PNG, GIF, BMP, PPM, WEBP, TIFF, AVIF or HEIC image"),
    "PostScript, which Pillow would run": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a JPEG, "),
    "PNG bomb": (_png(60_000, 60_000), "too many pixels"),
    "PNG without pixels": (_png(0, 5), "a damaged PNG image ("),
    "PNG without data": (_png(50, 50), "damaged image (image file is truncated"),
    "float TIFF": (encoded(flat("F", 0.5), "TIFF"), "store 8 or 16 bits"),
    "32-bit TIFF": (encoded(flat("I", 70_000), "TIFF"), "store 8 or 16 bits"),
    "signed TIFF": (encoded(flat("I", -1), "TIFF"), "store 8 or 16 bits"),
    "float array": (np.zeros((4, 4, 3)), "must be uint8, not float64"),
    "array, channels first": (np.zeros((3, 4, 4), np.uint8), "(H, W, 3), not (3, 4, 4)"),
    "array, no pixels": (np.zeros((0, 4, 3), np.uint8), "(H, W, 3), not (0, 4, 3)"),
    "image, no pixels": (Image.new("RGB", (0, 4)), "without pixels"),
    "image, truncated": (Image.open(io.BytesIO(encoded(SQUARES, "JPEG")[:-50])), "truncated"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_refused(kind):
    source, message = REFUSED[kind]
    assert problem(source).startswith("image: ")
    assert message in problem(source)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "text.jpg").write_text("hello")
    for name in ("folder.jpg", "text.jpg", "missing.jpg", "sub/missing.jpg", "x" * 999 + ".jpg"):
        assert problem(tmp_path / name).startswith(f"{tmp_path / name}: ")
    assert problem(tmp_path / "missing.jpg") == f"{tmp_path / 'missing.jpg'}: no such file"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no such files there")
def test_a_pipe_is_refused_and_never_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "link.jpg").symlink_to("pipe.jpg")
    for name in ("pipe.jpg", "link.jpg", Path("/dev/zero"), "/dev/tty"):
        path = tmp_path / name  # an absolute name replaces the folder
        if path.exists():
            assert problem(path) == f"{path}: a pipe, a socket or a device, not a regular file"


@pytest.mark.skipif(sys.platform == "win32", reason="making links needs rights there")
def test_a_link_to_itself_is_named(tmp_path):
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    assert problem(tmp_path / "loop.jpg").startswith(f"{tmp_path / 'loop.jpg'}: ")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_forbidden_file_is_named(tmp_path):
    path = tmp_path / "mine.png"
    path.write_bytes(encoded(SQUARES, "PNG"))
    path.chmod(0)
    assert problem(path) == f"{path}: Permission denied"
