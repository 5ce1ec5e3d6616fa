"""Data augmentation.

Photographs are cropped and mirrored at random as they are decoded, so only the crop has to be resampled. Small images
are shifted and mirrored a batch at a time. Colours are changed on the training device.

All randomness is a function of (seed, epoch, image), independent of earlier work and of the process that does it. A run
can stop and resume at any step, even on another number of machines, and see the same images.
"""

from math import exp, log, sqrt

import numpy as np
import torch
from torch import Tensor

from smallcnn.image.decode import Decoded
from smallcnn.image.fit import Box, Preprocessing, centre_box
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
    return preprocessing.decoded_side(sqrt(recipe.min_area / _MAX_STRETCH))


def random_crop(recipe: Recipe, preprocessing: Preprocessing, epoch: int, index: int, image: Decoded) -> np.ndarray:
    """A photograph, cropped and mirrored at random: uint8 (H, W, C)."""
    rng = np.random.default_rng((recipe.seed, epoch, index))
    pixels = preprocessing.resample(image, random_box(rng, image.size, preprocessing.size, recipe.min_area))
    return pixels[:, ::-1] if recipe.mirror and rng.random() < 0.5 else pixels


def random_box(rng: np.random.Generator, image_size: tuple[int, int], size: tuple[int, int], min_area: float) -> Box:
    """A random box over `min_area` to 1 of the image's area, with the aspect ratio of `size` stretched by up to 4/3."""
    width, height = image_size
    for _ in range(10):
        area = width * height * rng.uniform(min_area, 1)
        aspect = size[1] / size[0] * exp(rng.uniform(-log(_MAX_STRETCH), log(_MAX_STRETCH)))
        box_width, box_height = sqrt(area * aspect), sqrt(area / aspect)
        if box_width <= width and box_height <= height:
            left, top = rng.uniform(0, width - box_width), rng.uniform(0, height - box_height)
            return (left, top, left + box_width, top + box_height)
    return centre_box(image_size, size, 1.0)


def augmented(recipe: Recipe, images: Tensor, colours: np.ndarray, mix: Mix | None) -> tuple[Tensor, Tensor | None]:
    """(images, share): images (N, C, H, W) in 0..1 with colours changed by the factors `colours` (N, 3), then mixed.

    The share (N,) is the fraction of each image that is its own; None without mixing.
    """
    if recipe.augment == "photo" and recipe.jitter > 0:
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
