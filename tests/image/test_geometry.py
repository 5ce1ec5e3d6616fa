"""Positions follow an image into the network's input and back, through every fit."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from marks import centroid, marked
from smallcnn.data.loader import batches
from smallcnn.data.memory import PreparedSplit
from smallcnn.data.split import Split
from smallcnn.data.targets import Classes
from smallcnn.image.fit import Preprocessing, centre_box
from smallcnn.image.geometry import Seen

FITS = ["crop", "stretch", "letterbox"]
SIZES = st.tuples(st.integers(1, 64), st.integers(1, 64))
SIDES = st.integers(1, 300)


@given(
    width=SIDES,
    height=SIDES,
    size=SIZES,
    fit=st.sampled_from(FITS),
    crop=st.sampled_from([1.0, 0.875, 0.3]),
    points=st.lists(st.tuples(st.floats(-500, 500), st.floats(-500, 500)), min_size=1, max_size=5),
)
@example(width=29, height=34, size=(7, 7), fit="letterbox", crop=1.0, points=[(0.0, 0.0)])
@example(width=300, height=1, size=(64, 3), fit="letterbox", crop=0.3, points=[(299.0, 1.0)])
@settings(deadline=None)
def test_a_point_maps_into_the_input_and_back(width, height, size, fit, crop, points):
    seen = Preprocessing(size, fit=fit, crop=crop).prepare(np.zeros((height, width, 3), np.uint8)).seen
    assert (seen.image, seen.size) == ((height, width), size)
    scale = max(1.0, np.abs(np.array(seen.to_input(points))).max() / 500)  # of float64's error, where it enlarges
    np.testing.assert_allclose(seen.to_image(seen.to_input(points)), points, rtol=0, atol=1e-6)
    np.testing.assert_allclose(seen.to_input(seen.to_image(points)), points, rtol=0, atol=1e-6 * scale)


@pytest.mark.parametrize(
    ("fit", "crop", "corners"),
    [
        ("crop", 1.0, [(100, 0), (300, 200)]),  # the middle square of 400 x 200
        ("crop", 0.5, [(150, 50), (250, 150)]),
        ("stretch", 1.0, [(0, 0), (400, 200)]),
        ("stretch", 0.5, [(100, 50), (300, 150)]),
        ("letterbox", 1.0, [(0, -100), (400, 300)]),  # a square around it, 100 above and below
        ("letterbox", 0.5, [(100, 0), (300, 200)]),
    ],
)
def test_the_corners_of_the_input_are_those_of_the_box(fit, crop, corners):
    seen = Preprocessing((40, 40), fit=fit, crop=crop).prepare(np.zeros((200, 400, 3), np.uint8)).seen
    np.testing.assert_allclose(seen.to_image([(0, 0), (40, 40)]), corners, atol=1e-9)


@given(
    width=st.integers(80, 400),
    height=st.integers(80, 400),
    size=st.tuples(st.integers(40, 120), st.integers(40, 120)),
    fit=st.sampled_from(FITS),
    crop=st.sampled_from([1.0, 0.875]),
    at=st.tuples(st.floats(-1, 1), st.floats(-1, 1)),
)
@settings(max_examples=150, deadline=None)
def test_a_mark_appears_at_its_mapped_place(width, height, size, fit, crop, at):
    preprocessing = Preprocessing(size, (0.0,) * 3, (1.0,) * 3, fit=fit, crop=crop)  # black borders
    left, top, right, bottom = centre_box((width, height), size, crop, fit)
    middle, reach = (width / 2, height / 2), (min(width, right - left) / 4, min(height, bottom - top) / 4)
    x, y = (m + place * r for m, place, r in zip(middle, at, reach, strict=True))
    pixels, centre = marked(width, height, x, y, 2 + min(width, height) // 10)
    got = preprocessing.prepare(pixels)
    # a filter sampled at few pixels is up to a tenth of a pixel off centre; levels are rounded
    np.testing.assert_allclose(centroid(got.pixels), got.seen.to_input(centre), atol=0.2)


@given(
    down=st.integers(-9, 9),
    right=st.integers(-9, 9),
    mirrored=st.booleans(),
    box=st.tuples(st.floats(-50, 50), st.floats(-50, 50), st.floats(60, 200), st.floats(60, 200)),
    point=st.tuples(st.floats(-100, 300), st.floats(-100, 300)),
)
def test_a_shift_moves_every_position_of_the_input_alike(down, right, mirrored, box, point):
    seen = Seen((150, 100), (20, 30), box)
    x, y = seen.to_input(point)
    want = (30 - (x - right) if mirrored else x - right, y - down)
    np.testing.assert_allclose(seen.shifted(down, right, mirrored=mirrored).to_input(point), want, atol=1e-6)


@pytest.mark.parametrize("fit", FITS)
def test_batches_say_what_each_image_shows(fit):
    preprocessing = Preprocessing((16, 24), fit=fit)
    images = [np.zeros((40 + i, 60 - i, 3), np.uint8) for i in range(9)]
    split = Split(images, Classes(np.arange(9)), list("abcdefghi"))
    wanted = [preprocessing.prepare(image).seen for image in images]
    decoded = batches(split, lambda i: preprocessing.prepare(images[i]), range(9), batch_size=4, workers=2)
    held = PreparedSplit(split, preprocessing, 1).batches(range(9), 4)
    for found in (list(decoded), list(held)):  # asked only after all batches were made
        assert [seen for batch in found for seen in batch.seen] == wanted
