"""The training images of a run in batches, with every augmentation applied except colour.

Small images are preprocessed once and held in memory. Photographs, cropped differently in every epoch, are decoded once
as far as memory allows. Neither changes a pixel.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from smallcnn.data.loader import Batch, batches, rate
from smallcnn.data.memory import BUDGET, Remembered, prepared, prepared_bytes
from smallcnn.data.split import Split
from smallcnn.image.crops import shifted
from smallcnn.image.fit import Preprocessing
from smallcnn.train.augment import Draws, decoded_side, random_crop
from smallcnn.train.recipe import Recipe


class Feed:
    """The images of `split` as training sees them. `failed` holds those found undecodable so far, by name.

    Without `hold` no images are preprocessed ahead, for a caller that needs only a few.
    """

    def __init__(
        self, split: Split, recipe: Recipe, view: Preprocessing, workers: int | None, *, hold: bool = True
    ) -> None:
        self.recipe, self.view, self.workers = recipe, view, workers
        self._crops = recipe.augment == "photo"
        hold = hold and not self._crops
        self.split, self.failed, self._held = held(split, view, workers) if hold else (split, {}, None)
        self._photo = Remembered(split, view.channels, decoded_side(recipe, view))

    def __len__(self) -> int:
        return len(self.split)

    def batches(self, epoch: int, order: np.ndarray, draws: Draws, batch_size: int) -> Iterator[Batch]:
        """The images of `order`, `batch_size` at a time."""
        for batch in self._prepared(epoch, order, batch_size):
            if self.recipe.augment == "small" and len(batch.labels):
                shifts = draws.shifts(batch.indices, self.view.size)
                yield replace(batch, images=shifted(batch.images, np.arange(len(batch.labels)), *shifts))
            else:
                yield batch

    def rate(self, order: np.ndarray, batch_size: int, seconds: float = 1.0) -> float:
        """Images per second of loading alone, measured for at most about `seconds`."""
        return rate(self.batches(0, order, Draws(self.recipe, 0, len(self)), batch_size), seconds)

    def _prepared(self, epoch: int, order: np.ndarray, batch_size: int) -> Iterator[Batch]:
        split = self.split
        if self._held is not None:
            for start in range(0, len(order), batch_size):
                chunk = order[start : start + batch_size]
                yield Batch(self._held[chunk], split.targets.take(chunk).array, chunk, {})
            return

        def prepare(index: int) -> np.ndarray:
            if self._crops:
                return random_crop(self.recipe, self.view, epoch, index, self._photo(index))
            return self.view.prepare(split.images[index])

        yield from batches(split, prepare, order.tolist(), batch_size=batch_size, workers=self.workers)


def held(split: Split, view: Preprocessing, workers: int | None) -> tuple[Split, dict[str, str], np.ndarray | None]:
    """(split, decoding failures as name -> message, the preprocessed images).

    The images are uint8 (N, H, W, C), or None if they would take too much memory; the split then still contains images
    that cannot be decoded.
    """
    images = split.images
    if isinstance(images, np.ndarray) and images.shape[1:3] == view.size and view.crop == 1:
        array = images.reshape(*images.shape[:3], -1)
        if array.shape[3] == view.channels:
            return split, {}, array
    if prepared_bytes(split, view) > BUDGET:
        return split, {}, None
    try:
        kept, failed = prepared(split, view, workers=workers)
    except MemoryError:
        return split, {}, None
    return kept, failed, np.asarray(kept.images)
