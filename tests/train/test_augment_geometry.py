"""Positions follow an image through every augmentation: random crops, shifts, and mirroring by either."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marks import BACKGROUND, MARK, centroid, marked
from smallcnn.data.split import Split
from smallcnn.data.targets import Classes
from smallcnn.image.decode import decode
from smallcnn.image.fit import Preprocessing
from smallcnn.train.augment import Draws, random_box, random_crop
from smallcnn.train.feed import Feed
from smallcnn.train.recipe import Recipe

FITS = ["crop", "stretch", "letterbox"]


@pytest.mark.parametrize("fit", FITS)
def test_a_mark_appears_at_its_mapped_place_after_a_random_crop(fit):
    recipe, preprocessing = (
        Recipe(augment="photo", mirror=True),
        Preprocessing((64, 80), (0.0,) * 3, (1.0,) * 3, fit=fit),
    )
    pixels, centre = marked(300, 180, 150, 90, 18)  # from (141, 81) to (159, 99)
    whole = 0
    for index in range(30):
        shown = random_crop(recipe, preprocessing, 0, index, decode(pixels, 3))
        corners = shown.seen.to_input([(141, 81), (159, 99)])
        if (corners > 1).all() and (corners < [79, 63]).all():
            np.testing.assert_allclose(centroid(shown.pixels), shown.seen.to_input(centre), atol=0.2)
            whole += 1
    assert whole > 15  # most crops show all of a mark in the middle


def test_random_crops_are_mirrored_half_the_time_and_say_so():
    pixels, recipe = np.zeros((30, 40, 3), np.uint8), Recipe(augment="photo", mirror=True)
    boxes = [random_crop(recipe, Preprocessing((8, 8)), 0, i, decode(pixels, 3)).seen.box for i in range(400)]
    assert 150 < sum(left > right for left, _, right, _ in boxes) < 250  # 400 throws of a coin


@given(
    seed=st.integers(0, 1000),
    width=st.integers(1, 300),
    height=st.integers(1, 300),
    size=st.tuples(st.integers(1, 64), st.integers(1, 64)),
    fit=st.sampled_from(FITS),
    min_area=st.floats(0.05, 1),
)
@settings(deadline=None)
def test_random_boxes_lose_no_more_of_the_image_than_they_must(seed, width, height, size, fit, min_area):
    left, top, right, bottom = random_box(np.random.default_rng(seed), (width, height), size, min_area, fit)
    for start, end, length in ((left, right, width), (top, bottom, height)):
        just = 1e-9 * length
        if end - start <= length + just:
            assert -just <= start < end <= length + just
        else:
            assert fit == "letterbox"
            assert start <= just
            assert end >= length - just


def test_shifted_images_carry_marks_to_their_mapped_place():
    """Small images, each with one bright pixel in the middle, which no shift of an eighth moves out of sight."""
    rng = np.random.default_rng(0)
    places = rng.integers(10, 22, (40, 2))  # x, y
    images = np.full((40, 32, 32), BACKGROUND, np.uint8)
    images[np.arange(40), places[:, 1], places[:, 0]] = MARK
    split = Split(images, Classes(np.zeros(40, np.int64)), [str(i) for i in range(40)])
    for preprocessing in (Preprocessing((32, 32), (0.5,), (0.5,), crop=1.0), Preprocessing((64, 64), (0.5,), (0.5,))):
        recipe = Recipe(augment="small", mirror=True)
        feed, draws = Feed(split, recipe, preprocessing, 1), Draws(recipe, 0, 40)
        moved = 0
        for batch in list(feed.batches(0, np.random.default_rng(1).permutation(40), draws, 16)):
            for pixels, seen, index in zip(batch.images, batch.seen, batch.indices, strict=True):
                want = seen.to_input(places[index] + 0.5)
                np.testing.assert_allclose(centroid(pixels), want, atol=0.3)
                np.testing.assert_allclose(seen.to_image(want), places[index] + 0.5, rtol=0, atol=1e-6)
                moved += seen.box[0] != 0
        assert moved > 20
