"""The order of the images in an epoch."""

import numpy as np

from smallcnn.data.shards.remote import RemoteStore
from smallcnn.data.split import Split
from smallcnn.image.stored import Stored

_WINDOW = 4  # shards mixed with each other; the cache must have room for them


def order(split: Split, seed: int, epoch: int) -> np.ndarray:
    """A permutation of the split's images, a function of (seed, epoch).

    Images in memory or on disk are fully shuffled. So that each remote shard is fetched once, remote images are
    shuffled within windows of four shards, and the shards themselves are shuffled.
    """
    rng = np.random.default_rng((seed, epoch))
    shard_of = _remote_shards(split)
    if shard_of is None:
        return rng.permutation(len(split))
    place = rng.permutation(shard_of.max() + 1)[shard_of] // _WINDOW  # each image's window
    return np.lexsort((rng.permutation(len(split)), place))


def _remote_shards(split: Split) -> np.ndarray | None:
    """Each image's shard number, from 0 in the split's order; None unless all images are in remote shards."""
    if isinstance(split.images, np.ndarray):
        return None
    numbers: dict[RemoteStore, int] = {}
    shard_of = []
    for image in split.images:
        if not isinstance(image, Stored) or not isinstance(image.store, RemoteStore):
            return None
        shard_of.append(numbers.setdefault(image.store, len(numbers)))
    return np.array(shard_of) if shard_of else None
