"""Images of a held-out split that look like training images: copies, and frames of the same recording.

Two images look alike if their thumbnails of 16x16 pixels, each channel without its mean, correlate by more than 0.97.
Measured on 160-pixel photographs: JPEG of quality 30, half the size or less light leave at least 0.97, mostly 0.999;
frames of a fixed camera have 0.998; a cut of 3 % along two sides 0.97 in the median. Of 369 flowers two are above, both
the same photograph; of 341 garments one, of 502 CIFAR-10 images none. Products photographed alike on white are alike:
55 of 199. So are digits, and for images smaller than 32 pixels only copies count.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
from PIL import Image

from smallcnn.data.decode import decode
from smallcnn.data.loader import batches
from smallcnn.data.shards.remote import RemoteStore
from smallcnn.data.split import Split
from smallcnn.data.stored import Stored

_ALIKE = 0.97
_SIDE = 16
_SMALLEST = 32
_FLATTEST = 2.0  # standard deviation in grey levels, below which a thumbnail is noise
_HELD_OUT, _TRAINING = 600, 6000
"""Images that are compared at most; about three seconds on two cores."""


@dataclass(frozen=True)
class Duplicates:
    """Pairs (held-out image, a training image like it) among `checked` held-out images, out of `images`."""

    pairs: tuple[tuple[str, str], ...]
    checked: int
    images: int

    def line(self) -> str:
        """One line for the user; empty if there are none."""
        if not self.pairs:
            return ""
        some = ", ".join(f"{one} like {other}" for one, other in self.pairs[:3])
        of = f"{self.checked:,}" + (f" checked of {self.images:,}" if self.checked < self.images else "")
        return (
            f"{len(self.pairs):,} of {of} held-out images look like training images ({some}); if they are copies, or "
            "frames of one recording, accuracy on new images will be lower: --groups keeps them on one side"
        )

    def as_dict(self) -> dict[str, int]:
        """Counts, for facts and JSON."""
        return {"alike": len(self.pairs), "checked": self.checked}


def between(train: Split, held_out: Split, *, workers: int | None = None) -> Duplicates | None:
    """Compares every image with every other, or in a large set some with those next to them by name.

    None if the images lie elsewhere and would have to be fetched for it.
    """
    if _is_remote(train) or _is_remote(held_out):
        return None
    chosen, others = _chosen(train, held_out)
    looks = _looks(held_out.subset(chosen), workers)
    known = _looks(train.subset(others), workers)
    pairs = _alike(looks, known)
    names = tuple((held_out.names[chosen[i]], train.names[others[j]]) for i, j in pairs)
    return Duplicates(names, len(chosen), len(held_out))


def _is_remote(split: Split) -> bool:
    return any(isinstance(image, Stored) and isinstance(image.store, RemoteStore) for image in split.images[:1])


def _chosen(train: Split, held_out: Split) -> tuple[list[int], list[int]]:
    """The held-out images that are compared, evenly over their names, and the training images to compare them with."""
    by_name = sorted(range(len(held_out)), key=held_out.names.__getitem__)
    step = -(-len(by_name) // _HELD_OUT)
    chosen = by_name[::step] if by_name else []
    if len(train) <= _TRAINING or not chosen:
        return chosen, list(range(len(train)))
    near = _TRAINING // len(chosen)
    order = sorted(range(len(train)), key=lambda i: _below(train.names[i]))
    names = np.array([_below(train.names[i]) for i in order])
    found: set[int] = set()
    for i in chosen:
        at = int(np.searchsorted(names, _below(held_out.names[i])))
        first = min(max(at - near // 2, 0), len(order) - near)
        found.update(order[first : first + near])
    return chosen, sorted(found)


def _below(name: str) -> str:
    """A name without the folder of its split, so that train/cat/1.jpg comes next to val/cat/2.jpg."""
    first, slash, rest = name.partition("/")
    return rest if "/" in rest else first + slash + rest


@dataclass(frozen=True)
class _Looks:
    """float32 (N, features), a row of zeros where only a copy counts, and what identifies the pixels of each image."""

    features: np.ndarray
    digests: list[bytes]


def _looks(split: Split, workers: int | None) -> _Looks:
    features = np.zeros((len(split), 3 * _SIDE * _SIDE), np.float32)
    digests = [b""] * len(split)

    def look(index: int) -> np.ndarray:
        image = decode(split.images[index], 3, 2 * _SMALLEST).image
        small = image.resize((_SIDE, _SIDE), Image.Resampling.BOX)
        if min(image.size) < _SMALLEST:
            digests[index] = hashlib.sha256(f"{image.size}".encode() + image.tobytes()).digest()
        else:
            features[index] = _feature(np.asarray(small, np.float32))
        return np.zeros((1, 1, 1), np.uint8)

    for _ in batches(split, look, range(len(split)), batch_size=64, workers=workers):
        pass  # what cannot be decoded is said where it is used
    return _Looks(features, digests)


def _feature(thumbnail: np.ndarray) -> np.ndarray:
    """Of length one; zeros if there is nothing to see."""
    centred = (thumbnail - thumbnail.mean((0, 1))).reshape(-1)
    length = float(np.linalg.norm(centred))
    return centred / length if length > _FLATTEST * np.sqrt(centred.size) else np.zeros_like(centred)


def _alike(looks: _Looks, known: _Looks) -> list[tuple[int, int]]:
    """(held-out image, the training image most like it) for those that are alike."""
    copies = {digest: j for j, digest in enumerate(known.digests) if digest}
    pairs = {i: copies[digest] for i, digest in enumerate(looks.digests) if digest in copies}
    if len(known.features):
        similarity = looks.features @ known.features.T
        best = similarity.argmax(1)
        pairs |= {int(i): int(best[i]) for i in np.flatnonzero(similarity.max(1) > _ALIKE)}
    return sorted(pairs.items())
