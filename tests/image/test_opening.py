"""Formats told by content, whatever a file is called; HEIC and AVIF, and what is said where they cannot be read."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features
from test_decode import SQUARES, UPRIGHT, encoded, turned

from shared_files import shared
from smallcnn.errors import ImageError
from smallcnn.image import opening
from smallcnn.image.decode import SUFFIXES, decode

heif = pytest.mark.skipif(not opening._can_read_heif(), reason="needs the 'heif' extra")
avif = pytest.mark.skipif("avif" not in features.get_supported_modules(), reason="this Pillow was built without AVIF")
BOXED = [pytest.param("HEIF", marks=heif), pytest.param("AVIF", marks=avif)]
LOSSY = 12
"""Grey levels: 4:4:4 at the highest quality, colours through YCbCr of eight bits, and ringing at the squares' edges."""


def boxed(kind, source, **options):
    opening._can_read_heif()
    return encoded(
        source, kind, quality=100, **({"chroma": 444} if kind == "HEIF" else {"subsampling": "4:4:4"}), **options
    )


@pytest.mark.parametrize("kind", BOXED)
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_boxed_formats_are_turned_once(kind, orientation):
    """They carry the turn twice: as a property of the image, and in EXIF."""
    data = boxed(kind, SQUARES, exif=turned(orientation).tobytes())
    got = np.asarray(decode(data, 3).image, int)
    np.testing.assert_allclose(got, UPRIGHT[orientation](SQUARES), atol=LOSSY)


@pytest.mark.parametrize("kind", BOXED)
def test_boxed_formats_may_be_transparent(kind):
    rgba = np.dstack([SQUARES, np.full(SQUARES.shape[:2], 128, np.uint8)])
    want = SQUARES * (128 / 255) + 127
    np.testing.assert_allclose(np.asarray(decode(boxed(kind, rgba), 3).image, int), want, atol=LOSSY)


@pytest.mark.parametrize("kind", BOXED)
@pytest.mark.parametrize(("keep", "why"), [(0.02, "not a"), (0.5, "damaged"), (0.95, "damaged")])
def test_a_damaged_boxed_file_is_one_line(kind, keep, why):
    data = boxed(kind, SQUARES)
    with pytest.raises(ImageError, match=why) as caught:
        decode(data[: int(len(data) * keep)], 3)
    assert "\n" not in str(caught.value)


def test_content_decides_and_not_the_name(tmp_path):
    for suffix in SUFFIXES:
        path = tmp_path / f"image{suffix.upper()}"
        path.write_bytes(encoded(SQUARES, "PNG"))
        np.testing.assert_array_equal(decode(path, 3).image, SQUARES)


def test_a_heic_without_the_extra_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    opening._can_read_heif.cache_clear()
    head = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"
    with pytest.raises(ImageError, match=r"a HEIC image needs the 'heif' extra: pip install 'smallcnn\[heif\]'"):
        decode(head + bytes(100), 3)
    opening._can_read_heif.cache_clear()


def test_avif_where_pillow_was_built_without_it(monkeypatch):
    monkeypatch.setattr(features, "check", lambda name: False)
    with pytest.raises(ImageError, match=r"an AVIF image, which the installed Pillow cannot read; Pillow 11\.3"):
        decode(b"\0\0\0\x18ftypavif\0\0\0\0mif1avif" + bytes(100), 3)


def test_a_film_is_no_image():
    with pytest.raises(ImageError, match="image: not a JPEG, PNG"):
        decode(b"\0\0\0\x18ftypisom\0\0\0\0mp42isom" + bytes(100), 3)


@heif
def test_ten_bits_a_sample():
    """libheif's gradient: blue, red, cyan and yellow in its corners."""
    pixels = np.asarray(decode(shared("cases/images/heif_heif_RGB_10__128x128.heif"), 3).image, int)
    corners = [pixels[y, x] for y in (0, -1) for x in (0, -1)]
    np.testing.assert_allclose(corners, [(0, 0, 255), (255, 0, 0), (0, 255, 255), (255, 255, 0)], atol=12)


@pytest.mark.parametrize(
    "name", ["pil_frozenpond.mpo", "pil_hopper_1bit.pbm", pytest.param("pil_avif_hopper.avif", marks=avif)]
)
def test_real_files_of_less_common_suffixes(name):
    path = shared(f"cases/images/{name}")
    assert path.suffix in SUFFIXES
    np.testing.assert_array_equal(decode(path, 3).image, Image.open(path).convert("RGB"))


def test_real_orientations():
    """ImageMagick keeps EXIF in a text chunk of its own; its image stands on its side."""
    path = shared("cases/images/pil_exif_imagemagick_orientation.png")
    stored = Image.open(path)
    turn = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_270, 8: Image.Transpose.ROTATE_90}
    upright = stored.transpose(turn[stored.getexif()[0x0112]])
    np.testing.assert_array_equal(decode(path, 3).image, upright.convert("RGB"))
    damaged = shared("cases/images/pil_hopper_bad_exif.jpg")
    np.testing.assert_array_equal(decode(damaged, 1).image, Image.open(damaged))


def test_a_camera_roll_in_class_folders(smallcnn, tmp_path):
    """Phones and browsers name their files so; every one of them is predicted."""
    kinds = {"a.JFIF": "JPEG", "b.jpe": "JPEG", "c.MPO": "MPO", "d.Tif": "TIFF", "e.PBM": "PPM"}
    for name, kind in kinds.items():
        image = Image.fromarray(SQUARES)
        (tmp_path / name).write_bytes(encoded(image.convert("1") if kind == "PPM" else image, kind))
    code, out, _ = smallcnn("predict", tmp_path)
    assert code == 0
    assert sorted(Path(line.split(": ")[0]).name for line in out.splitlines()) == sorted(kinds)
