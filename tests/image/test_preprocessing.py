"""The image a network sees: against the two-step textbook definition, and against a formula."""

import io
import json

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from smallcnn.errors import FileError, ImageError
from smallcnn.image.decode import decode
from smallcnn.image.fit import Preprocessing, centre_box

RESAMPLING = {name: Image.Resampling[name.upper()] for name in ("bilinear", "bicubic", "lanczos")}
NOISE = np.random.default_rng(0).integers(0, 256, (512, 640, 3), np.uint8)


def ramp(width, height):
    """Red grows to the right, green downwards, both over 0..255."""
    x, y = np.linspace(0, 255, width), np.linspace(0, 255, height)
    red, green = np.broadcast_arrays(x[None], y[:, None])
    return np.stack([red, green, np.zeros((height, width))], 2).round().astype(np.uint8)


@pytest.mark.parametrize("interpolation", RESAMPLING)
@pytest.mark.parametrize("turned", [False, True])
def test_is_resize_then_centre_crop(interpolation, turned):
    """Where whole pixels come out, so that both can do the same: shorter side 512 -> 256, then 224 from the centre."""
    pixels = NOISE.swapaxes(0, 1) if turned else NOISE
    image = Image.fromarray(pixels).resize((256, 320) if turned else (320, 256), RESAMPLING[interpolation])
    left, top = (16, 48) if turned else (48, 16)
    want = image.crop((left, top, left + 224, top + 224))
    got = Preprocessing((224, 224), crop=0.875, interpolation=interpolation).prepare(pixels).pixels
    np.testing.assert_array_equal(got, want)


# from 120: then 255 / 119 grey levels per pixel at most; the filter reaches beyond the image for crop = 1 only
@given(
    width=st.integers(120, 500),
    height=st.integers(120, 500),
    size=st.tuples(st.integers(24, 100), st.integers(24, 100)),
    crop=st.floats(0.5, 0.9),
)
@settings(max_examples=60, deadline=None)
def test_every_output_pixel_shows_its_place_in_the_image(width, height, size, crop):
    got = Preprocessing(size, crop=crop).prepare(ramp(width, height)).pixels.astype(float)
    scale = crop * min(width / size[1], height / size[0])  # input pixels per output pixel
    for channel, (outputs, inputs) in enumerate([(size[1], width), (size[0], height)]):
        centre = inputs / 2 + (np.arange(outputs) + 0.5 - outputs / 2) * scale
        want = (centre - 0.5) * 255 / (inputs - 1)
        # rounded twice, ramp and result; and a filter sampled at few pixels is up to a tenth of a pixel off centre
        np.testing.assert_allclose(got[..., channel].mean(channel), want, atol=1.25)


@given(
    width=st.integers(1, 300),
    height=st.integers(1, 300),
    size=st.tuples(st.integers(1, 64), st.integers(1, 64)),
    crop=st.sampled_from([1.0, 0.875, 0.3]),
)
@example(width=29, height=34, size=(7, 7), crop=1.0)  # 29/7 * 7 is above 29 in floating point
@example(width=300, height=1, size=(64, 64), crop=0.3)
@settings(deadline=None)
def test_any_image_fits(width, height, size, crop):
    left, top, right, bottom = centre_box((width, height), size, crop)
    assert 0 <= left < right <= width + 1e-9
    assert 0 <= top < bottom <= height + 1e-9
    got = Preprocessing(size, crop=crop).prepare(np.full((height, width, 3), 200, np.uint8)).pixels
    assert got.shape == (*size, 3)
    assert (got == 200).all()


def test_an_image_of_the_right_size_is_kept_bit_for_bit():
    np.testing.assert_array_equal(Preprocessing((512, 640), crop=1.0).prepare(NOISE).pixels, NOISE)


def test_grey():
    got = Preprocessing((512, 640), (0.5,), (0.5,), crop=1.0).prepare(NOISE).pixels
    assert got.shape == (512, 640, 1)
    np.testing.assert_allclose(got[..., 0], NOISE @ (0.299, 0.587, 0.114), atol=1)  # ITU-R BT.601


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("size", [(64, 64), (40, 90)])
@pytest.mark.parametrize(("height", "width"), [(900, 1200), (901, 1203)])
def test_decoding_a_photograph_smaller_changes_little(height, width, size, orientation, tmp_path):
    """The file, decoded at a quarter, against the whole image: 4 of its pixels further would be 20 grey levels."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    y, x = np.mgrid[:height, :width] / 1200
    waves = [np.sin(2 * np.pi * (f * x + g * y)) for f, g in ((9, 2), (3, 11), (7, 7))]
    photo = Image.fromarray((127.5 + 120 * np.stack(waves, 2)).astype(np.uint8))
    photo.save(tmp_path / "photo.jpg", quality=95, exif=exif)
    whole = Image.open(tmp_path / "photo.jpg")
    preprocessing = Preprocessing(size)
    got, want = (preprocessing.prepare(source).pixels.astype(int) for source in (tmp_path / "photo.jpg", whole))
    assert abs(got - want).max() <= 3
    np.testing.assert_array_equal(preprocessing.prepare((tmp_path / "photo.jpg").read_bytes()).pixels, got)


@given(
    width=st.integers(1, 600),
    height=st.integers(1, 600),
    size=st.tuples(st.integers(1, 64), st.integers(1, 64)),
    crop=st.floats(0.3, 1),
    fit=st.sampled_from(["crop", "stretch", "letterbox"]),
)
@example(width=255, height=255, size=(64, 64), crop=1.0, fit="crop")  # its half is 127.5 pixels
@settings(deadline=None)
def test_what_was_decoded_smaller_is_still_made_half_as_large(width, height, size, crop, fit):
    """Resizing to the half or less smooths; anything nearer would show how the decoder shrinks."""
    file = io.BytesIO()
    Image.new("L", (width, height)).save(file, "JPEG")
    decoded = decode(file.getvalue(), 1, Preprocessing(size, crop=crop).decoded_side(crop))
    left, top, right, bottom = (edge / decoded.factor for edge in centre_box(decoded.size, size, crop, fit))
    just = 1 + 1e-9  # rounding
    assert decoded.factor == 1 or (just * (right - left) >= 2 * size[1] and just * (bottom - top) >= 2 * size[0])


def test_normalise():
    preprocessing = Preprocessing((1, 256), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    batch = np.repeat(np.arange(256, dtype=np.uint8), 3).reshape(1, 1, 256, 3)
    want = (batch / 255 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    got = preprocessing.normalise(batch)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, want, rtol=0, atol=4 * 2**-22)  # scale, shift, product, sum: values below 4


@given(
    st.builds(
        Preprocessing,
        size=st.tuples(st.integers(1, 1000), st.integers(1, 1000)),
        mean=st.tuples(*[st.floats(-1, 1)] * 3),
        std=st.tuples(*[st.floats(1e-3, 2)] * 3),
        crop=st.floats(0.1, 1),
        interpolation=st.sampled_from(list(RESAMPLING)),
        order=st.sampled_from(["rgb", "bgr"]),
        fit=st.sampled_from(["crop", "stretch", "letterbox"]),
    )
)
def test_json_round_trip(preprocessing):
    assert Preprocessing.from_json(preprocessing.to_json()) == preprocessing


def test_json_of_format_1_is_read_and_written():
    assert Preprocessing.from_json(json.dumps(GOOD)) == Preprocessing(
        (8, 8), (0.5,), (0.5,), 1.0, "bilinear", "rgb", "crop"
    )
    assert json.loads(Preprocessing.from_json(json.dumps(GOOD)).to_json()) == GOOD
    other = GOOD | {"mean": [0.5] * 3, "std": [0.5] * 3, "order": "bgr", "fit": "letterbox"}
    assert json.loads(Preprocessing.from_json(json.dumps(other)).to_json()) == other


GOOD = {"size": [8, 8], "mean": [0.5], "std": [0.5], "crop": 1.0, "interpolation": "bilinear"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": [8]}, "size must be (height, width)"),
        ({"size": [8, 0]}, "size must be (height, width)"),
        ({"size": [8, 8.5]}, "size must be (height, width)"),
        ({"mean": [0.5, 0.5]}, "mean must be one finite number or three, not (0.5, 0.5)"),
        ({"mean": [float("nan")]}, "mean must be one finite number"),
        ({"mean": "grey"}, "not a description"),
        ({"std": [0.5] * 3}, "std must be as many numbers as the mean"),
        ({"std": [0.0]}, "std must be as many numbers as the mean, above 0"),
        ({"crop": 1.5}, "crop must be above 0 and at most 1, not 1.5"),
        ({"crop": "all"}, "not a description"),
        ({"interpolation": "nearest"}, "interpolation must be bilinear, bicubic, lanczos, not nearest"),
        ({"fit": "pad"}, "fit must be crop, stretch, letterbox, not pad"),
        ({"fit": ["crop"]}, "fit must be crop, stretch, letterbox"),
        ({"gamma": 2.2}, "gamma"),
    ],
    ids=str,
)
def test_nonsense_is_refused(change, message):
    with pytest.raises(FileError) as caught:
        Preprocessing.from_json(json.dumps(GOOD | change))
    assert message in str(caught.value)


NOT_DESCRIPTIONS = [
    "",
    "[]",
    "3",
    "null",
    '{"size": [8, 8]}',
    '"size"',
    "[" * 100_000,
    json.dumps(GOOD | {"mean": [10**400]}),
]


@pytest.mark.parametrize("text", NOT_DESCRIPTIONS, ids=lambda text: text[:20])
def test_what_is_no_description_is_refused(text):
    with pytest.raises(FileError, match="not a description of preprocessing"):
        Preprocessing.from_json(text)


def test_errors_name_the_image():
    with pytest.raises(ImageError, match=r"^nowhere\.jpg: no such file"):
        Preprocessing((8, 8)).prepare("nowhere.jpg")
    with pytest.raises(ImageError, match=r"^image: "):
        Preprocessing((8, 8)).prepare(io.BytesIO(b"GIF89a").getvalue())
