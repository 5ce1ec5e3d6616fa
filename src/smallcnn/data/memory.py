"""Decoded images kept in memory, so that an image is decoded once and not in every epoch.

Small images are kept as they go into the network, in one array (`prepared`); photographs, of which every epoch takes
another crop, as they come from the decoder (`Remembered`). Either way the pixels are those that decoding gives.
"""

import threading
from dataclasses import replace

import numpy as np

from smallcnn.data.decode import Decoded, decode
from smallcnn.data.loader import batches
from smallcnn.data.preprocessing import Preprocessing
from smallcnn.data.split import Split

BUDGET = 1 << 30
"""Bytes of decoded images that are kept unless said otherwise."""

_BATCH = 256


def prepared_bytes(split: Split, preprocessing: Preprocessing) -> int:
    """What `prepared` would hold."""
    return len(split) * preprocessing.size[0] * preprocessing.size[1] * preprocessing.channels


def prepared(split: Split, preprocessing: Preprocessing, *, workers: int | None) -> tuple[Split, dict[str, str]]:
    """The images as the network takes them, uint8 (N, H, W, C), and what could not be decoded: name -> what is wrong.

    Those are left out. They must not be prepared again: `preprocessing` has been applied.
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
    return replace(split, images=array[: len(kept)], labels=split.labels[kept], names=names), failed


class Remembered:
    """Decodes the images of a split, and remembers the first of them that fit into `budget` bytes.

    `channels` and `shorter` are those of `decode`. Any number of threads may ask.
    """

    def __init__(self, split: Split, channels: int, shorter: float, budget: int = BUDGET) -> None:
        self._split, self._channels, self._shorter = split, channels, shorter
        self._left = budget
        self._kept: dict[int, Decoded] = {}
        self._lock = threading.Lock()

    def __call__(self, index: int) -> Decoded:
        """The image number `index`. Raises ImageError if it cannot be decoded."""
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
        """How many are kept."""
        return len(self._kept)
