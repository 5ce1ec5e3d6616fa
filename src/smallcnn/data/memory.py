"""Decoded images kept in memory, so that an image is decoded once instead of in every epoch.

Small images are kept as network input, in one array (`prepared`). Photographs, cropped differently in every epoch, are
kept as decoded (`Remembered`). Either way the pixels are exactly those that decoding gives.
"""

import threading
from dataclasses import replace

import numpy as np

from smallcnn.data.loader import batches
from smallcnn.data.split import Split
from smallcnn.image.decode import Decoded, decode
from smallcnn.image.fit import Preprocessing

BUDGET = 1 << 30
"""Default limit on the bytes of decoded images."""

_BATCH = 256


def prepared_bytes(split: Split, preprocessing: Preprocessing) -> int:
    """Bytes that `prepared` would hold."""
    return len(split) * preprocessing.size[0] * preprocessing.size[1] * preprocessing.channels


def prepared(split: Split, preprocessing: Preprocessing, *, workers: int | None) -> tuple[Split, dict[str, str]]:
    """The split with images as network input, uint8 (N, H, W, C), and decoding failures as name -> message.

    Images that fail are dropped. The rest must not be preprocessed again.
    """
    array = np.empty((len(split), *preprocessing.size, preprocessing.channels), np.uint8)
    kept: list[int] = []
    failed: dict[str, str] = {}
    loader = batches(
        split,
        lambda index: preprocessing.prepare(split.images[index]),
        range(len(split)),
        batch_size=_BATCH,
        workers=workers,
    )
    for batch in loader:
        if len(batch.labels):
            array[len(kept) : len(kept) + len(batch.labels)] = batch.images
        kept += batch.indices.tolist()
        failed |= batch.failed
    names = [split.names[index] for index in kept]
    return replace(split, images=array[: len(kept)], targets=split.targets.take(kept), names=names), failed


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
