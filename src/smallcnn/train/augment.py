"""Data augmentation.

Photographs are cropped and mirrored at random as they are decoded, so only the crop has to be resampled. Small images
are shifted and mirrored a batch at a time. Colours are changed on the training device.

Either way an image comes with the part of the original that it shows (`Seen`), so that positions can follow it.

All randomness is a function of (seed, epoch, image), independent of earlier work and of the process that does it. A run
can stop and resume at any step, even on another number of machines, and see the same images.
"""

from math import exp, log, sqrt

import numpy as np
import torch
from torch import Tensor

from smallcnn.image.decode import Decoded
from smallcnn.image.fit import Fit, Preprocessing, centre_box
from smallcnn.image.geometry import Box
from smallcnn.image.resample import Prepared
from smallcnn.train.loss import Mix, mixed
from smallcnn.train.recipe import Recipe

_MAX_STRETCH = 4 / 3  # of a random crop's aspect ratio, as in Szegedy et al. 2014 (arXiv 1409.4842), section 6


class Draws:
    """The random numbers of every image in one epoch: uniform in 0..1, (images, 6)."""

    def __init__(self, recipe: Recipe, epoch: int, count: int) -> None:
        self._recipe = recipe
        self._table = np.random.default_rng((recipe.seed, epoch, 0)).random((count, 6), np.float32)

    def shifts(self, indices: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(down, right, mirrored) for these images of `size`: shifts of up to an eighth of a side either way."""
        drawn = self._table[indices]
        down, right = (
            np.floor(drawn[:, axis] * (2 * (side // 8) + 1)).astype(np.int64) - side // 8
            for axis, side in enumerate(size)
        )
        return down, right, (drawn[:, 2] < 0.5) & bool(self._recipe.mirror)

    def colours(self, indices: np.ndarray) -> np.ndarray:
        """Factors (N, 3) for brightness, contrast and saturation of these images."""
        return 1 + self._recipe.jitter * (2 * self._table[indices, 3:] - 1)


def decoded_side(recipe: Recipe, preprocessing: Preprocessing) -> float:
    """Shorter side to decode photographs to, large enough that the smallest random crop is still scaled down."""
    stretch = 1.0 if recipe.augment == "detection" else _MAX_STRETCH
    return preprocessing.decoded_side(sqrt(recipe.min_area / stretch))


def random_crop(recipe: Recipe, preprocessing: Preprocessing, epoch: int, index: int, image: Decoded) -> Prepared:
    """A photograph, cropped and mirrored at random."""
    rng = np.random.default_rng((recipe.seed, epoch, index))
    left, top, right, bottom = random_box(rng, image.size, preprocessing.size, recipe.min_area, preprocessing.fit)
    mirrored = recipe.mirror and rng.random() < 0.5
    return preprocessing.resample(image, (right, top, left, bottom) if mirrored else (left, top, right, bottom))


def random_box(
    rng: np.random.Generator, image_size: tuple[int, int], size: tuple[int, int], min_area: float, fit: Fit = "crop"
) -> Box:
    """A random box over `min_area` to 1 of the image's area, with the shape that `fit` gives it stretched by up to 4/3.

    For "letterbox" the area is that of the image with its borders. A box wider or higher than the image contains it
    in that direction; all others lie inside.
    """
    width, height = image_size
    aspect = width / height if fit == "stretch" else size[1] / size[0]
    whole_width, whole_height = (
        (max(width, height * aspect), max(height, width / aspect)) if fit == "letterbox" else image_size
    )
    for _ in range(10):
        area = whole_width * whole_height * rng.uniform(min_area, 1)
        shape = aspect * exp(rng.uniform(-log(_MAX_STRETCH), log(_MAX_STRETCH)))
        box_width, box_height = sqrt(area * shape), sqrt(area / shape)
        if box_width <= whole_width and box_height <= whole_height:
            left, top = (
                rng.uniform(min(0, spare), max(0, spare)) for spare in (width - box_width, height - box_height)
            )
            return (left, top, left + box_width, top + box_height)
    return centre_box(image_size, size, 1.0, fit)


def augmented(recipe: Recipe, images: Tensor, colours: np.ndarray, mix: Mix | None) -> tuple[Tensor, Tensor | None]:
    """(images, share): images (N, C, H, W) in 0..1 with colours changed by the factors `colours` (N, 3), then mixed.

    The share (N,) is the fraction of each image that is its own; None without mixing.
    """
    if recipe.augment in ("photo", "detection") and recipe.jitter > 0:
        images = recoloured(images, torch.from_numpy(colours).to(images.device))
    return mixed(images, mix) if mix else (images, None)


def recoloured(images: Tensor, factors: Tensor) -> Tensor:
    """Images (N, C, H, W) in 0..1 with brightness, contrast and saturation changed by `factors` (N, 3)."""
    import kornia.enhance as kornia

    images = kornia.adjust_brightness_accumulative(images, factors[:, 0])
    images = kornia.adjust_contrast_with_mean_subtraction(images, factors[:, 1])
    return kornia.adjust_saturation_with_gray_subtraction(images, factors[:, 2]) if images.shape[1] == 3 else images


def seed_step(recipe: Recipe, step: int) -> None:
    """Seeds torch for the network's own random numbers in one step: dropout."""
    torch.manual_seed(int(np.random.SeedSequence((recipe.seed, step)).generate_state(1, np.uint64)[0] >> 1))
