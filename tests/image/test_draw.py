"""Boxes drawn on images: where the lines are, what stays, and captions on any image."""

import numpy as np
import pytest
from PIL import Image

from smallcnn.image.draw import WRONG, colour, draw


def plain(size=(200, 100), fill=(10, 20, 30)):
    return Image.new("RGB", size, fill)


def test_the_frame_is_inside_the_box_with_a_white_line_around():
    box = np.array([[50.0, 40, 120, 90]])
    drawn = np.asarray(draw(plain(), box, [""], [(255, 0, 0)], line=2))
    red = (drawn == (255, 0, 0)).all(-1)
    rows, columns = np.nonzero(red)
    assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (50, 40, 120, 90)
    assert red.sum() == 2 * 2 * (70 + 50) - 4 * 4
    assert drawn[39, 80].tolist() == drawn[42, 80].tolist() == [255, 255, 255]
    untouched = np.ones_like(red)
    untouched[39:91, 49:121] = False
    untouched[43:87, 53:117] = True
    assert (drawn[untouched] == (10, 20, 30)).all()


def test_the_image_is_not_changed():
    image = plain()
    draw(image, np.array([[0.0, 0, 200, 100]]), ["all of it"], [WRONG])
    assert image.getcolors() == [(200 * 100, (10, 20, 30))]


def test_the_first_is_on_top():
    box = np.array([[20.0, 20, 80, 80]])
    drawn = draw(plain(), np.repeat(box, 2, 0), ["", ""], [(255, 0, 0), (0, 255, 0)])
    assert drawn.getpixel((20, 50)) == (255, 0, 0)


@pytest.mark.parametrize("size", [(1, 1), (1, 1000), (1000, 1), (16, 16), (3000, 2000)])
@pytest.mark.parametrize("box", [[0, 0, 0, 0], [-5, -5, 9999, 9999], [5, 5, 5.2, 5.2], [8, 8, 16, 16]])
@pytest.mark.parametrize("caption", ["", "person 93%", "x" * 300, "müsli\u202e\n日本"])
def test_any_image_box_and_caption(size, box, caption):
    drawn = draw(plain(size), np.array([box], float), [caption], [colour(3)])
    assert (drawn.size, drawn.mode) == (size, "RGB")


def test_grey_images_become_colour():
    drawn = draw(Image.new("L", (50, 50), 128), np.array([[5.0, 5, 40, 40]]), [""], [(255, 0, 0)])
    assert drawn.getpixel((5, 20)) == (255, 0, 0)
    assert drawn.getpixel((49, 49)) == (128, 128, 128)


def test_colours_of_neighbours_differ():
    """Any two of eight classes in a row differ by at least 50 of 255 in some channel, and stay the same."""
    for first in range(80):
        inks = np.array([colour(number) for number in range(first, first + 8)])
        apart = abs(inks[:, None] - inks[None]).max(-1) + 999 * np.eye(8, dtype=int)
        assert apart.min() >= 50
    assert colour(5) == colour(5)


def test_captions_stay_inside_and_above_the_box():
    drawn = np.asarray(draw(plain(), np.array([[150.0, 50, 190, 90]]), ["a long caption"], [(200, 0, 0)]))
    ground = (drawn == (200, 0, 0)).all(-1)
    assert ground[:50].any()
    assert ground[30:49, :150].any()  # moved left, so that it ends in the image
