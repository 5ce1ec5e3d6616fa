"""Colours by ICC profiles, against published primaries and formulas; profiles that are damaged or do not fit."""

import io
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms
from test_opening import BOXED

from profiles import (
    ADOBE_RGB,
    ADOBE_TO_XYZ,
    DISPLAY_P3,
    P3_TO_XYZ,
    grey_profile,
    ink_profile,
    linear,
    matrix_profile,
    srgb,
    srgb_of,
    srgb_of_lab,
)
from shared_files import shared
from smallcnn.errors import ImageNote
from smallcnn.image import colour
from smallcnn.image.decode import decode

P3, ADOBE = matrix_profile(*DISPLAY_P3), matrix_profile(*ADOBE_RGB)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
LEVELS = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
ROUNDING = 2
"""Grey levels: Little CMS computes a matrix of 8-bit samples in fixed point and rounds curve, matrix and curve."""


def encoded(pixels, kind="PNG", **options):
    file = io.BytesIO()
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(file, kind, **options)
    return file.getvalue()


def read(data, channels=3):
    """(pixels, notes)."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        pixels = np.asarray(decode(data, channels).image, int)
    assert all(isinstance(one.message, ImageNote) for one in told)
    return pixels, [str(one.message) for one in told]


@pytest.mark.parametrize(("profile", "to_xyz", "gamma"), [(P3, P3_TO_XYZ, None), (ADOBE, ADOBE_TO_XYZ, 563 / 256)])
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", *BOXED])
def test_wide_gamuts_become_srgb(kind, profile, to_xyz, gamma):
    lossless = {"WEBP": {"lossless": True}, "AVIF": {"quality": 100}, "HEIF": {"quality": 100}}.get(kind, {})
    data = encoded(LEVELS, kind, icc_profile=profile, **lossless)
    stored = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    pixels, notes = read(data)
    np.testing.assert_allclose(pixels, srgb_of(stored, to_xyz, gamma), atol=ROUNDING)
    assert not notes


@given(st.tuples(*[st.integers(0, 255)] * 3))
@settings(max_examples=100, deadline=None)
def test_any_display_p3_colour(levels):
    pixels, _ = read(encoded(Image.new("RGB", (1, 1), levels), icc_profile=P3))
    np.testing.assert_allclose(pixels[0, 0], srgb_of(levels, P3_TO_XYZ, None), atol=ROUNDING)


def test_a_phones_photograph_decoded_smaller_and_turned():
    """Squares of 32 pixels, which a JPEG of full quality keeps at any size."""
    squares = np.kron(LEVELS[:4, :4], np.ones((32, 32, 1), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(squares, "JPEG", quality=100, subsampling=0, icc_profile=P3, exif=exif)
    got = decode(data, 3, shorter=30)
    assert (got.factor, got.image.size) == (4, (32, 32))
    want = np.rot90(srgb_of(LEVELS[:4, :4], P3_TO_XYZ, None), -1)
    # two levels of JPEG, which the matrix (rows of at most 1.5 in absolute sum) and the curve near black make more of
    np.testing.assert_allclose(np.asarray(got.image)[4::8, 4::8], want, atol=8)


def test_srgb_by_any_name_is_left_as_it_is():
    srgb_again = matrix_profile(
        (0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.7141), None
    )
    for profile in (SRGB, srgb_again):
        image = Image.fromarray(LEVELS)
        assert colour.to_srgb(image, profile) is image
        np.testing.assert_array_equal(read(encoded(LEVELS, icc_profile=profile))[0], LEVELS)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "1", "RGBA"])
def test_profiles_of_other_modes(mode):
    image = Image.fromarray(LEVELS).convert(mode)
    profile, to_xyz, gamma = (
        (ADOBE, ADOBE_TO_XYZ, 563 / 256) if mode in ("P", "RGBA") else (grey_profile(1.8), None, 1.8)
    )
    stored = np.asarray(image.convert("RGB"))
    want = srgb(linear(stored, gamma)) if to_xyz is None else srgb_of(stored, to_xyz, gamma)
    pixels, notes = read(encoded(image, icc_profile=profile))
    np.testing.assert_allclose(pixels, want, atol=ROUNDING)
    assert not notes


def test_transparent_colours_are_converted_before_they_lie_over_white():
    rgba = np.dstack([LEVELS, np.full(LEVELS.shape[:2], 128, np.uint8)])
    pixels, _ = read(encoded(rgba, icc_profile=P3))
    want = srgb_of(LEVELS, P3_TO_XYZ, None) * 128 / 255 + 127
    np.testing.assert_allclose(pixels, want, atol=ROUNDING)


def test_grey_with_a_profile_of_colours():
    """Pillow keeps the profile of the colours that a grey image was made from."""
    grey = LEVELS[..., 0]
    np.testing.assert_array_equal(read(encoded(grey, icc_profile=P3))[0][..., 0], grey)  # its curve is sRGB's
    want = srgb(linear(grey, 563 / 256))
    pixels, notes = read(encoded(grey, icc_profile=ADOBE), channels=1)
    np.testing.assert_allclose(pixels, want, atol=ROUNDING)
    assert not notes


@pytest.mark.parametrize("kind", ["TIFF", "JPEG"])
def test_inks(kind):
    """Sixteen corners of four inks; what lies between is the table's to say."""

    def lab_of(c, m, y, k):  # paper is white, as it is in the profiles of presses
        lightness = 0 if k else 100 - 25 * c - 30 * m - 5 * y - 35 * (c and m and y)
        return (lightness, 0, 0) if k else (lightness, -30 * c + 50 * m, 70 * y - 40 * c)

    profile = ink_profile(lab_of)
    for c, m, y, k in np.ndindex(2, 2, 2, 2):
        inks = Image.new("CMYK", (8, 8), (255 * c, 255 * m, 255 * y, 255 * k))
        pixels, notes = read(encoded(inks, kind, icc_profile=profile, **({"quality": 100} if kind == "JPEG" else {})))
        np.testing.assert_allclose(pixels[4, 4], srgb_of_lab(*lab_of(c, m, y, k)), atol=4)  # the table holds whole L*
        assert not notes


DAMAGED = {
    "nonsense": (b"nonsense", "it is damaged"),
    "cut short": (P3[:200], "it is damaged"),
    "no curves": (P3.replace(b"rTRC", b"xxxx"), "it is damaged"),
    "for inks": (ink_profile(lambda c, m, y, k: (50, 0, 0)), "it is for CMYK, and the image is RGB"),
    "for grey": (grey_profile(1.8), "it is for L, and the image is RGB"),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_profile_that_cannot_be_used_costs_a_note_and_no_image(kind):
    profile, why = DAMAGED[kind]
    pixels, notes = read(encoded(LEVELS, icc_profile=profile))
    np.testing.assert_array_equal(pixels, LEVELS)
    assert notes == [f"an image has an ICC profile that cannot be used: {why}; its colours are read as sRGB"]


@given(st.binary(max_size=40), st.integers(0, len(P3) - 1))
@settings(max_examples=100, deadline=None)
def test_damaged_bytes_in_a_profile_never_cost_the_image(noise, at):
    profile = P3[:at] + noise + P3[at + len(noise) :]
    assert read(encoded(LEVELS, icc_profile=profile))[0].shape == LEVELS.shape


def test_any_number_of_threads_may_convert():
    files = [encoded(LEVELS, icc_profile=profile) for profile in (P3, ADOBE, SRGB)] * 40
    colour._opened.cache_clear()
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda data: np.asarray(decode(data, 3).image), files))
    for data, got in zip(files, together, strict=True):
        np.testing.assert_array_equal(got, read(data)[0])


def test_a_jpeg_that_stores_another_space_of_colours():
    """libjxl's XYB in a JPEG: without its profile, the field is green."""
    pixels, notes = read(shared("cases/images/vips_sample-xyb.jpg"))
    red, green, blue = pixels[50:120, 20:100].reshape(-1, 3).mean(0)
    assert red > green > blue  # a field of stubble
    assert not notes


def test_commands_show_a_note_once(smallcnn, tmp_path):
    for i in range(3):
        (tmp_path / f"{i}.png").write_bytes(encoded(LEVELS, icc_profile=b"nonsense"))
    code, out, err = smallcnn("predict", tmp_path)
    assert code == 0
    assert err.count("cannot be used: it is damaged") == 1
    assert err.count(str(tmp_path / "0.png")) == 1
    assert out.count(".png") == 3
