"""What training does to pictures that evaluation does not.

Two places: crop and mirroring happen while decoding (numpy and Pillow, in the loader's threads), because only the part
that is kept then has to be resampled; shifts and colours are kornia's, on the whole batch.

All randomness is a function of (seed, epoch, picture) or (seed, step), never of what ran before: a run can stop and go
on at any step and see the same pictures.
"""

from collections.abc import Callable
from math import exp, log, sqrt

import numpy as np
import torch
from torch import Tensor, nn

from smallcnn.data.decode import Picture, decode
from smallcnn.data.preprocessing import Box, Preprocessing, centre_box
from smallcnn.train.recipe import Recipe

_MAX_STRETCH = 4 / 3  # of a random crop's proportions, as in Szegedy et al. 2014 (arXiv 1409.4842), section 6


def order(recipe: Recipe, epoch: int, count: int) -> np.ndarray:
    """The order of the training pictures in this epoch."""
    return np.random.default_rng((recipe.seed, epoch)).permutation(count)


def prepare(recipe: Recipe, preprocessing: Preprocessing, epoch: int, index: int, picture: Picture) -> np.ndarray:
    """Decodes one training picture, cropped and mirrored at random: uint8 (H, W, C)."""
    rng = np.random.default_rng((recipe.seed, epoch, index))
    if recipe.augment == "photo":
        shorter = preprocessing.decoded_side(sqrt(recipe.min_area / _MAX_STRETCH))
        image = decode(picture, preprocessing.channels, shorter)
        pixels = preprocessing.resample(image, random_box(rng, image.size, preprocessing.size, recipe.min_area))
    else:
        pixels = preprocessing.prepare(picture)
    mirrored = recipe.mirror and recipe.augment != "none" and rng.random() < 0.5
    return pixels[:, ::-1] if mirrored else pixels


def random_box(rng: np.random.Generator, image_size: tuple[int, int], size: tuple[int, int], min_area: float) -> Box:
    """A box of min_area to all of the picture's area, its proportions those of `size` stretched by up to 4/3."""
    width, height = image_size
    for _ in range(10):
        area = width * height * rng.uniform(min_area, 1)
        aspect = size[1] / size[0] * exp(rng.uniform(-log(_MAX_STRETCH), log(_MAX_STRETCH)))
        box_width, box_height = sqrt(area * aspect), sqrt(area / aspect)
        if box_width <= width and box_height <= height:
            left, top = rng.uniform(0, width - box_width), rng.uniform(0, height - box_height)
            return (left, top, left + box_width, top + box_height)
    return centre_box(image_size, size, 1.0)


def batch_augmentation(recipe: Recipe, preprocessing: Preprocessing) -> Callable[[Tensor], Tensor]:
    """Random changes of a float batch (N, C, H, W) in 0..1; draws from torch's global generator."""
    import kornia.augmentation as kornia

    if recipe.augment == "small":
        height, width = preprocessing.size
        crop: nn.Module = kornia.RandomCrop((height, width), padding=(height // 8, width // 8), padding_mode="reflect")
        return crop
    if recipe.augment == "photo" and recipe.jitter > 0:
        saturation = recipe.jitter if preprocessing.channels == 3 else 0.0
        jitter: nn.Module = kornia.ColorJitter(recipe.jitter, recipe.jitter, saturation, 0.0)
        return jitter
    return nn.Identity()


def seed_step(recipe: Recipe, step: int) -> None:
    """Seeds torch for everything random in one step: kornia's changes, dropout."""
    torch.manual_seed(int(np.random.SeedSequence((recipe.seed, step)).generate_state(1, np.uint64)[0] >> 1))
