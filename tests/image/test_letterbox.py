"""Stretching and letterboxing: against Pillow's own steps, and against the definition of the borders."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from smallcnn.image.decode import Decoded, decode
from smallcnn.image.fit import Preprocessing
from smallcnn.image.resample import resample

FILTERS = {name: Image.Resampling[name.upper()] for name in ("bilinear", "bicubic", "lanczos")}
NOISE = np.random.default_rng(0).integers(0, 256, (120, 200, 3), np.uint8)


@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize("size", [(30, 30), (64, 20), (300, 250)])
def test_stretching_is_resizing(interpolation, size):
    want = Image.fromarray(NOISE).resize(size[::-1], FILTERS[interpolation])
    got = Preprocessing(size, fit="stretch", crop=1.0, interpolation=interpolation).prepare(NOISE)
    np.testing.assert_array_equal(got.pixels, want)


@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize(
    ("size", "inside", "at"),  # (height, width): of the input, of the resized image, and its upper left corner
    [
        ((100, 100), (60, 100), (20, 0)),
        ((60, 150), (60, 100), (0, 25)),
        ((60, 151), (60, 100), (0, 26)),  # 25.5 pixels on both sides: both edges move half a pixel right
        ((50, 55), (33, 55), (9, 0)),  # 8.5 above and below
        ((400, 400), (240, 400), (80, 0)),
        ((60, 100), (60, 100), (0, 0)),
    ],
)
def test_letterboxing_is_resizing_and_pasting(interpolation, size, inside, at):
    want = np.full((*size, 3), (26, 128, 230), np.uint8)  # 0.1, 0.5, 0.9 of 255: 25.5, 127.5, 229.5 rounded up
    resized = Image.fromarray(NOISE).resize(inside[::-1], FILTERS[interpolation])
    want[at[0] : at[0] + inside[0], at[1] : at[1] + inside[1]] = resized
    preprocessing = Preprocessing(
        size, (0.1, 0.5, 0.9), (0.2,) * 3, fit="letterbox", crop=1.0, interpolation=interpolation
    )
    np.testing.assert_array_equal(preprocessing.prepare(NOISE).pixels, want)


@given(
    width=st.integers(1, 300),
    height=st.integers(1, 300),
    size=st.tuples(st.integers(1, 64), st.integers(1, 64)),
    crop=st.sampled_from([1.0, 0.6]),
)
@settings(deadline=None)
def test_borders_are_where_the_image_is_not(width, height, size, crop):
    """Each edge of the image lies on a whole pixel, at most half a pixel from where the same scale would put it."""
    got = Preprocessing(size, (0.0,), (1.0,), fit="letterbox", crop=crop).prepare(
        np.full((height, width), 200, np.uint8)
    )
    (left, top), (right, bottom) = got.seen.to_input([(0, 0), (width, height)])
    scale = min(size[1] / width, size[0] / height) / crop
    for start, end, length, pixels in ((left, right, width, size[1]), (top, bottom, height, size[0])):
        exact = (pixels - length * scale) / 2
        if length * scale >= 1:
            assert max(abs(start - exact), abs(end - (pixels - exact))) <= (0.5 + 1e-5 if exact > 0 else 1e-6 * pixels)
    rows, columns = np.arange(size[0]) + 0.5, np.arange(size[1]) + 0.5
    shown = ((top < rows) & (rows < bottom))[:, None] & ((left < columns) & (columns < right))
    np.testing.assert_array_equal(got.pixels[..., 0], np.where(shown, 200, 0))


def test_half_a_pixel_goes_up_at_every_size():
    """A 64 x 96 image at width w has height 1.5 w: with one pixel more, half is above. float64 often finds less."""
    for width in range(2, 200, 2):
        preprocessing = Preprocessing((3 * width // 2 + 1, width), (0.0,), (1.0,), fit="letterbox", crop=1.0)
        shown = preprocessing.prepare(np.full((96, 64), 200, np.uint8)).pixels
        assert (shown[0] == 0).all()
        assert (shown[1:] == 200).all()


def test_the_border_is_what_the_network_reads_as_nothing():
    for order, mean in (("rgb", (0.485, 0.456, 0.406)), ("bgr", (0.406, 0.456, 0.485))):
        preprocessing = Preprocessing((8, 8), mean, (0.25,) * 3, order=order, fit="letterbox")
        assert preprocessing.border == (124, 116, 104)  # red first: 123.675, 116.28, 103.53
        corner = preprocessing.normalise(preprocessing.prepare(np.zeros((2, 30, 3), np.uint8)).pixels[None])[0, 0, 0]
        np.testing.assert_allclose(corner, 0, atol=0.5 / 255 / 0.25)
    assert Preprocessing((8, 8), (-0.5, 0.5, 1.5), (1.0,) * 3).border == (0, 128, 255)


def test_a_photograph_decoded_smaller_has_the_same_borders(tmp_path):
    y, x = np.mgrid[:900, :1203] / 1200
    waves = [np.sin(2 * np.pi * (f * x + g * y)) for f, g in ((9, 2), (3, 11), (7, 7))]
    Image.fromarray((127.5 + 120 * np.stack(waves, 2)).astype(np.uint8)).save(tmp_path / "photo.jpg", quality=95)
    whole = Image.open(tmp_path / "photo.jpg")
    for fit in ("stretch", "letterbox"):
        preprocessing = Preprocessing((64, 64), fit=fit, crop=1.0)
        assert decode(tmp_path / "photo.jpg", 3, preprocessing.decoded_side(1.0)).factor > 1
        got, want = (preprocessing.prepare(image) for image in (tmp_path / "photo.jpg", whole))
        assert got.seen == want.seen
        assert abs(got.pixels.astype(int) - want.pixels).max() <= 3


@pytest.mark.parametrize(
    "box", [(-30, -10, 50, 40), (100, 20, 260, 170), (-50, -50, 250, 170), (10.5, -3.25, 20.75, 80)]
)
def test_a_mirrored_box_is_the_box_mirrored(box):
    left, top, right, bottom = box
    decoded = Decoded(Image.fromarray(NOISE), (200, 120), 1)
    plain, flipped = (
        resample(decoded, one, (32, 48), "bilinear", (1, 2, 3)) for one in (box, (right, top, left, bottom))
    )
    np.testing.assert_array_equal(flipped.pixels, plain.pixels[:, ::-1])
    points = [(20, 30), (150, 90)]
    np.testing.assert_allclose(flipped.seen.to_input(points), [48, 0] + plain.seen.to_input(points) * [-1, 1])
