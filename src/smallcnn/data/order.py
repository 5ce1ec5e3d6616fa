"""The order in which an epoch goes through the images."""

import numpy as np

from smallcnn.data.shards.remote import RemoteStore
from smallcnn.data.split import Split
from smallcnn.data.stored import Stored

_WINDOW = 4  # shards mixed with each other; the cache must have room for so many


def order(split: Split, seed: int, epoch: int) -> np.ndarray:
    """A permutation of the split's images, a function of (seed, epoch).

    Images in memory or on disk come in any order. Images in remote shards are mixed within a few shards at a time,
    so that each shard is fetched once: the shards in any order, and within each window of four any order.
    """
    rng = np.random.default_rng((seed, epoch))
    shard_of = _remote_shards(split)
    if shard_of is None:
        return rng.permutation(len(split))
    place = rng.permutation(shard_of.max() + 1)[shard_of] // _WINDOW  # each image's window
    return np.lexsort((rng.permutation(len(split)), place))


def _remote_shards(split: Split) -> np.ndarray | None:
    """The number of each image's shard, counted from 0 in the split's order; None unless all are in remote ones."""
    if isinstance(split.images, np.ndarray):
        return None
    numbers: dict[RemoteStore, int] = {}
    shard_of = []
    for image in split.images:
        if not isinstance(image, Stored) or not isinstance(image.store, RemoteStore):
            return None
        shard_of.append(numbers.setdefault(image.store, len(numbers)))
    return np.array(shard_of) if shard_of else None
