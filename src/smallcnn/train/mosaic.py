"""Mosaics: the network's input in four parts, each with a view of another image.

Bochkovskiy et al. 2020, "YOLOv4" (arXiv 2004.10934), section 3.4. Objects appear smaller, and next to others. Each part
is a crop as in `views`, without the larger canvas.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from smallcnn.data.loader import Composed
from smallcnn.data.targets import AREA, BOTTOM, LEFT, RIGHT, TOP, Boxes
from smallcnn.image.decode import Decoded
from smallcnn.image.fit import Preprocessing
from smallcnn.image.geometry import Seen
from smallcnn.train.recipe import Recipe
from smallcnn.train.views import drawn_view

_STREAM = 1  # keeps these random numbers apart from those of the view of a single image
_CUT = (0.3, 0.7)  # range of the share of a side that the left or upper parts take


def random_mosaic(
    recipe: Recipe,
    preprocessing: Preprocessing,
    epoch: int,
    index: int,
    photo: Callable[[int], Decoded],
    objects: Sequence[np.ndarray],
) -> Composed | None:
    """Image `index` and three others, drawn from those with `objects`; None for the images that are shown alone.

    Raises ImageError if one of the four cannot be decoded.
    """
    rng = np.random.default_rng((recipe.seed, epoch, index, _STREAM))
    height, width = preprocessing.size
    if rng.random() >= recipe.mosaic or min(height, width) < 2:
        return None
    (x, y), others = rng.uniform(*_CUT, 2), rng.integers(len(objects), size=3)
    column, row = (min(max(round(share * side), 1), side - 1) for share, side in ((x, width), (y, height)))
    parts = [(0, 0, column, row), (column, 0, width, row), (0, row, column, height), (column, row, width, height)]
    pixels = np.empty((height, width, preprocessing.channels), np.uint8)
    found = []
    for (left, top, right, bottom), one in zip(parts, rng.permutation([index, *others]).tolist(), strict=True):
        part = replace(preprocessing, size=(bottom - top, right - left))
        view = drawn_view(rng, recipe, part, photo(one), objects[one], 1.0)
        pixels[top:bottom, left:right] = view.pixels
        found.append(_moved(objects[one], view.seen, left, top))
    return Composed(pixels, Seen((height, width), (height, width), (0, 0, width, height)), np.concatenate(found))


def _moved(objects: np.ndarray, seen: Seen, left: int, top: int) -> np.ndarray:
    """The objects (n, 7) that a part shows, in pixels of the whole input, of which it begins at `left` and `top`."""
    shown = Boxes.of([objects]).as_shown([seen])[0].astype(np.float64)
    height, width = seen.size
    shown = shown[shown[:, AREA] > 0]
    shown[:, [LEFT, RIGHT]] = shown[:, [LEFT, RIGHT]] * width + left
    shown[:, [TOP, BOTTOM]] = shown[:, [TOP, BOTTOM]] * height + top
    shown[:, AREA] *= width * height
    return shown
