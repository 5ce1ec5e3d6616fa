"""Decoded images kept in memory, so that an image is decoded once instead of in every epoch.

Small images are kept as network input, in one array (`PreparedSplit`). Photographs, cropped differently in every epoch,
are kept as decoded (`Remembered`). Either way the pixels are exactly those that decoding gives.
"""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import prod

import numpy as np

from smallcnn.data.loader import Batch, prepared_batches
from smallcnn.data.split import Split
from smallcnn.image.decode import Decoded, decode
from smallcnn.image.fit import Preprocessing
from smallcnn.image.geometry import Seen

BUDGET = 1 << 30
"""Default limit on the bytes of decoded images."""

_BATCH = 256


class PreparedSplit:
    """The images of a split as network input: held in memory if they take at most `budget` bytes, else decoded anew.

    If they are held, `split` lacks the images that cannot be decoded, and `failed` has their names and messages.
    """

    def __init__(self, split: Split, preprocessing: Preprocessing, workers: int | None, budget: int = BUDGET) -> None:
        self.split, self.failed = split, dict[str, str]()
        self._preprocessing, self._workers = preprocessing, workers
        self._images: np.ndarray | None = None
        self._seen: list[Seen] = []
        if (ready := _ready(split, preprocessing)) is not None:
            (height, width), self._images = preprocessing.size, ready
            self._seen = [Seen((height, width), (height, width), (0, 0, width, height))] * len(split)
        elif len(split) * prod(preprocessing.size) * preprocessing.channels <= budget:
            self._hold()

    def __len__(self) -> int:
        return len(self.split)

    @property
    def held(self) -> bool:
        """Whether the images are in memory."""
        return self._images is not None

    def batches(self, order: Sequence[int] | np.ndarray, batch_size: int) -> Iterator[Batch]:
        """The images with these indices in `split`, `batch_size` at a time."""
        if self._images is None:
            yield from prepared_batches(
                self.split, self._preprocessing, list(order), batch_size=batch_size, workers=self._workers
            )
            return
        for start in range(0, len(order), batch_size):
            yield self._batch(self._images, np.asarray(order[start : start + batch_size]))

    def _batch(self, images: np.ndarray, chunk: np.ndarray) -> Batch:
        targets = self.split.targets.take(chunk)
        return Batch(images[chunk], targets, chunk, {}, lambda: [self._seen[index] for index in chunk])

    def _hold(self) -> None:
        split = self.split
        try:
            images = np.empty((len(split), *self._preprocessing.size, self._preprocessing.channels), np.uint8)
        except MemoryError:
            return
        kept: list[int] = []
        for batch in prepared_batches(split, self._preprocessing, batch_size=_BATCH, workers=self._workers):
            if len(batch.indices):
                images[len(kept) : len(kept) + len(batch.indices)] = batch.images
            kept += batch.indices.tolist()
            self._seen += batch.seen
            self.failed |= batch.failed
        self._images = images[: len(kept)]
        names = [split.names[index] for index in kept]
        self.split = replace(split, images=self._images, targets=split.targets.take(kept), names=names)


def _ready(split: Split, preprocessing: Preprocessing) -> np.ndarray | None:
    """The split's own array, if preparing it would change nothing."""
    images = split.images
    if not isinstance(images, np.ndarray) or images.shape[1:3] != preprocessing.size or preprocessing.crop != 1:
        return None
    array = images.reshape(*images.shape[:3], -1)
    return array if array.shape[3] == preprocessing.channels else None


class Remembered:
    """Decodes the images of a split and keeps them in memory until `budget` bytes are used.

    `channels` and `shorter` are passed to `decode`. Safe to call from any number of threads.
    """

    def __init__(self, split: Split, channels: int, shorter: float, budget: int = BUDGET) -> None:
        self._split, self._channels, self._shorter = split, channels, shorter
        self._left = budget
        self._kept: dict[int, Decoded] = {}
        self._lock = threading.Lock()

    def __call__(self, index: int) -> Decoded:
        """The decoded image `index`. Raises ImageError if it cannot be decoded."""
        if found := self._kept.get(index):
            return found
        decoded = decode(self._split.images[index], self._channels, self._shorter)
        width, height = decoded.image.size
        needed = width * height * (1 if self._channels == 1 else 4)  # Pillow pads RGB to four bytes
        with self._lock:
            if index not in self._kept and needed <= self._left:
                self._left -= needed
                self._kept[index] = decoded
        return decoded

    def __len__(self) -> int:
        """Number of images kept."""
        return len(self._kept)
