"""The training images of a run in batches, with every augmentation applied except colour.

Small images are preprocessed once and held in memory. Photographs, cropped differently in every epoch, are decoded once
as far as memory allows. Neither changes a pixel.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from smallcnn.data.loader import Batch, Composed, batches, rate
from smallcnn.data.memory import BUDGET, PreparedSplit, Remembered
from smallcnn.data.split import Split
from smallcnn.data.targets import Boxes
from smallcnn.errors import ImageError
from smallcnn.image.crops import shifted
from smallcnn.image.fit import Preprocessing
from smallcnn.image.geometry import Seen
from smallcnn.image.resample import Prepared
from smallcnn.train.augment import Draws, decoded_side, random_crop
from smallcnn.train.mosaic import random_mosaic
from smallcnn.train.recipe import Recipe
from smallcnn.train.views import random_view


class Feed:
    """The images of `split` as training sees them. `failed` holds those found undecodable so far, by name.

    Without `hold` no images are preprocessed ahead, for a caller that needs only a few.
    """

    def __init__(
        self, split: Split, recipe: Recipe, view: Preprocessing, workers: int | None, *, hold: bool = True
    ) -> None:
        self.recipe, self.view, self.workers = recipe, view, workers
        self._crops = recipe.augment in ("photo", "detection")
        budget = BUDGET if hold and not self._crops else 0
        self._prepared = PreparedSplit(split, view, workers, budget)
        self.split, self.failed = self._prepared.split, self._prepared.failed
        self._photo = Remembered(split, view.channels, decoded_side(recipe, view))
        self._objects = split.targets.each() if isinstance(split.targets, Boxes) else []

    def __len__(self) -> int:
        return len(self.split)

    def batches(self, epoch: int, order: np.ndarray, draws: Draws, batch_size: int) -> Iterator[Batch]:
        """The images of `order`, `batch_size` at a time."""
        if self._crops:

            def cropped(index: int) -> Prepared:
                if self.recipe.mosaic and (mosaic := self._mosaic(epoch, index)):
                    return mosaic
                photo = self._photo(index)
                if self.recipe.augment == "photo":
                    return random_crop(self.recipe, self.view, epoch, index, photo)
                return random_view(self.recipe, self.view, epoch, index, photo, self._objects[index])

            yield from batches(self.split, cropped, order.tolist(), batch_size=batch_size, workers=self.workers)
            return
        for batch in self._prepared.batches(order, batch_size):
            if self.recipe.augment == "small" and len(batch.indices):
                yield _shifted(batch, *draws.shifts(batch.indices, self.view.size))
            else:
                yield batch

    def rate(self, order: np.ndarray, batch_size: int) -> float:
        """Images per second of loading alone, measured for about a second."""
        return rate(self.batches(0, order, Draws(self.recipe, 0, len(self)), batch_size), 1.0)

    def _mosaic(self, epoch: int, index: int) -> Composed | None:
        """The mosaic around an image, if it is shown in one and all others can be decoded."""
        try:
            return random_mosaic(self.recipe, self.view, epoch, index, self._photo, self._objects)
        except ImageError:
            return None


def _shifted(batch: Batch, down: np.ndarray, right: np.ndarray, mirrored: np.ndarray) -> Batch:
    def look() -> list[Seen]:
        moves = zip(batch.look(), down.tolist(), right.tolist(), mirrored.tolist(), strict=True)
        return [seen.shifted(dy, dx, mirrored=flip) for seen, dy, dx, flip in moves]

    images = shifted(batch.images, np.arange(len(batch.images)), down, right, mirrored)
    return replace(batch, images=images, look=look)
