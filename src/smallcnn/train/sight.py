"""The network's view of its first training images: cropped, mirrored, recoloured and mixed."""

from dataclasses import dataclass

import numpy as np
import torch

from smallcnn.data.order import order
from smallcnn.data.split import Split
from smallcnn.image.fit import Preprocessing
from smallcnn.train.augment import Draws, augmented
from smallcnn.train.feed import Feed
from smallcnn.train.loss import draw_mix
from smallcnn.train.pixels import Pixels
from smallcnn.train.recipe import Recipe


@dataclass(frozen=True)
class Sight:
    """uint8 `images` (N, H, W, C) and their `targets` (N, ...), `labels_shown` of the batch.

    For mixed images `own` (N,) is the share of the image itself and `partners` (N, ...) are the targets of the rest.
    """

    images: np.ndarray
    targets: np.ndarray
    own: np.ndarray
    partners: np.ndarray


def first_images(split: Split, recipe: Recipe, preprocessing: Preprocessing, most: int) -> Sight:
    """Up to `most` images of the first training step on `split`, augmented with the run's own random numbers."""
    count = min(recipe.batch_size, len(split))
    wanted = order(split, recipe.seed, 0)[: min(most, count)]
    draws = Draws(recipe, 0, len(split))
    feed = Feed(split, recipe, preprocessing.trained_at(recipe.train_scale), 1, hold=False)
    (batch,) = feed.batches(0, wanted, draws, len(wanted))
    mix, places = draw_mix(recipe, 0, count), np.flatnonzero(np.isin(wanted, batch.indices))
    rows = np.arange(len(places))
    if mix:
        rows, mix = mix.among(places)
    loaded = Pixels(preprocessing, torch.device("cpu")).load(batch.images[rows])
    seen, own = augmented(recipe, loaded, draws.colours(batch.indices[rows]), mix)
    images = (seen * 255).round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
    share = np.ones(len(rows), np.float32) if own is None else own.numpy()
    labels = batch.labels_shown[rows]
    return Sight(images, labels, share, labels[np.minimum(np.arange(len(rows)) ^ 1, len(rows) - 1)])
