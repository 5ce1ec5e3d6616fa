"""Random views of a photograph with objects: on a larger canvas, and cropped around objects.

Both are those of SSD (Liu et al. 2016, arXiv 1512.02325, sections 2.2 and 3.6), and only choose the box that fills the
network's input; positions follow it. `augment` explains the random numbers.
"""

from math import sqrt

import numpy as np

from smallcnn.data.targets import FLAG, PLAIN
from smallcnn.image.decode import Decoded
from smallcnn.image.fit import Preprocessing
from smallcnn.image.geometry import Box
from smallcnn.image.resample import Prepared
from smallcnn.tasks.matching import overlap
from smallcnn.train.recipe import Recipe

_OVERLAPS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9)
"""Least overlap (intersection over union) of a crop with some object, drawn at random; as often, nothing is cut."""

_MAX_STRETCH = 2.0  # of a crop's aspect ratio, relative to that of the canvas
_TRIES = 40  # crops for each overlap that is drawn
_ROUNDS = 10  # overlaps drawn, until one of these crops has it


def random_view(
    recipe: Recipe, preprocessing: Preprocessing, epoch: int, index: int, image: Decoded, objects: np.ndarray
) -> Prepared:
    """A photograph with these `objects`, rows of `data.targets.Boxes`, shrunk, cropped and mirrored at random.

    Every view shows the centre of an object, unless there is none.
    """
    rng = np.random.default_rng((recipe.seed, epoch, index))
    return drawn_view(rng, recipe, preprocessing, image, objects, recipe.zoom_out)


def drawn_view(
    rng: np.random.Generator,
    recipe: Recipe,
    preprocessing: Preprocessing,
    image: Decoded,
    objects: np.ndarray,
    zoom_out: float,
) -> Prepared:
    """The next view that `rng` draws, shrunk by at most `zoom_out`."""
    view = random_view_box(rng, image.size, objects, zoom_out, recipe.min_area)
    left, top, right, bottom = view if preprocessing.fit == "stretch" else _of_shape(view, preprocessing.size)
    mirrored = recipe.mirror and rng.random() < 0.5
    return preprocessing.resample(image, (right, top, left, bottom) if mirrored else (left, top, right, bottom))


def random_view_box(
    rng: np.random.Generator, image_size: tuple[int, int], objects: np.ndarray, zoom_out: float, min_area: float
) -> Box:
    """The part of an image (width, height) to show: a random crop of it, or of a canvas up to `zoom_out` times larger.

    A crop has at least `min_area` of the area of the image or canvas.
    """
    width, height = map(float, image_size)
    plain = objects[objects[:, FLAG] == PLAIN, :4]
    canvas = (0.0, 0.0, width, height)
    if len(plain) and zoom_out > 1 and rng.random() < 0.5:
        factor = rng.uniform(1, zoom_out)
        left, top = -rng.random() * (factor - 1) * width, -rng.random() * (factor - 1) * height
        canvas = (left, top, left + factor * width, top + factor * height)
    for _ in range(_ROUNDS):
        choice = rng.integers(len(_OVERLAPS) + 1)
        if choice == len(_OVERLAPS):
            break
        crops = _random_crops(rng, canvas, sqrt(min_area))
        if len(plain):
            crops = crops[_overlaps(crops, plain) >= _OVERLAPS[choice]]
        if len(crops):
            left, top, right, bottom = crops[0].tolist()
            return (left, top, right, bottom)
    return canvas


def _random_crops(rng: np.random.Generator, canvas: Box, least: float) -> np.ndarray:
    """Boxes (n, 4) inside the canvas whose sides are at least this share of its sides."""
    share = rng.uniform(least, 1, (_TRIES, 2))
    place = rng.random((_TRIES, 2)) * (1 - share)
    stretch = share[:, 0] / share[:, 1]
    kept = (stretch >= 1 / _MAX_STRETCH) & (stretch <= _MAX_STRETCH)
    corner, extent = np.array(canvas[:2]), np.array(canvas[2:]) - canvas[:2]
    return np.concatenate([corner + place * extent, corner + (place + share) * extent], 1)[kept]


def _overlaps(crops: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """Of each crop (n, 4), the highest overlap with an object (M, 4) whose centre it shows; -1 if it shows none."""
    each = crops[:, None]
    centres = (objects[:, :2] + objects[:, 2:]) / 2
    shown = ((centres > each[..., :2]) & (centres < each[..., 2:])).all(2)
    return np.where(shown, overlap(each, objects), -1.0).max(1)


def _of_shape(box: Box, size: tuple[int, int]) -> Box:
    """The smallest box with the shape of `size` (height, width) around another, about the same centre."""
    left, top, right, bottom = box
    scale = max((right - left) / size[1], (bottom - top) / size[0])
    half_width, half_height = size[1] * scale / 2, size[0] * scale / 2
    x, y = (left + right) / 2, (top + bottom) / 2
    return (x - half_width, y - half_height, x + half_width, y + half_height)
