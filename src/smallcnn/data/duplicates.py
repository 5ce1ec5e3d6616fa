"""Near duplicates: held-out images that look like training images, as copies or frames of one recording do.

Two images look alike if their 16x16 thumbnails, with each channel's mean removed, correlate by more than 0.97. Measured
on 160-pixel photographs:

    JPEG quality 30, half the size, less light    at least 0.97, mostly 0.999
    frames of a fixed camera                      0.998
    3 % cropped off two sides                     0.97 (median)

Images above the threshold, by data set:

    flowers                                       2 of 369, both the same photograph
    garments                                      1 of 341
    CIFAR-10                                      none of 502
    products photographed alike on white          55 of 199

Digits look alike too, so below 32 pixels only exact copies count.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from smallcnn.data.archive import File
from smallcnn.data.loader import in_threads
from smallcnn.data.shards.remote import RemoteStore
from smallcnn.data.split import Split
from smallcnn.image.decode import decode
from smallcnn.image.stored import Stored

_ALIKE = 0.97
_SIDE = 16
_SMALLEST = 32
_FLATTEST = 2.0  # standard deviation in grey levels below which a thumbnail is noise
_HELD_OUT, _TRAINING = 600, 6000
"""Maximum number of images to compare; takes three seconds on two cores if they are small."""

_BYTES = 800e6  # of files to read: 200 camera photographs, at 40 ms each even when decoded at an eighth of their size


@dataclass(frozen=True)
class Duplicates:
    """Pairs (held-out image, similar training image) among `checked` of `images` held-out images."""

    pairs: tuple[tuple[str, str], ...]
    checked: int
    images: int

    def line(self) -> str:
        """One line for the user; empty if there are none."""
        if not self.pairs:
            return ""
        some = ", ".join(f"{one} like {other}" for one, other in self.pairs[:3])
        count = f"{self.checked:,}" + (f" checked of {self.images:,}" if self.checked < self.images else "")
        return (
            f"{len(self.pairs):,} of {count} held-out images look like training images ({some}); if they are copies or "
            "frames of one recording, accuracy on new images will be lower: --groups keeps them on one side"
        )

    def as_dict(self) -> dict[str, int]:
        """The counts, for facts and JSON."""
        return {"alike": len(self.pairs), "checked": self.checked}


def between(train: Split, held_out: Split, *, workers: int | None = None) -> Duplicates | None:
    """Compares held-out with training images: all of them, or in a large set a sample with its neighbours by name.

    None if the images are remote and would have to be fetched.
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
    """The held-out images to compare, spread evenly over their names, and the training images to compare them with."""
    fraction = min(1.0, _BYTES / (_mean_bytes(train) * (_HELD_OUT + _TRAINING)))
    most, training = max(1, round(_HELD_OUT * fraction)), max(10, round(_TRAINING * fraction))
    by_name = sorted(range(len(held_out)), key=held_out.names.__getitem__)
    chosen = by_name[:: -(-len(by_name) // most)] if by_name else []
    if len(train) <= training or not chosen:
        return chosen, list(range(len(train)))
    near = training // len(chosen)
    order = sorted(range(len(train)), key=lambda i: _below(train.names[i]))
    names = np.array([_below(train.names[i]) for i in order])
    found: set[int] = set()
    for i in chosen:
        at = int(np.searchsorted(names, _below(held_out.names[i])))
        first = min(max(at - near // 2, 0), len(order) - near)
        found.update(order[first : first + near])
    return chosen, sorted(found)


def _mean_bytes(split: Split) -> float:
    """Mean file size over a sample of images, at least 1."""
    sizes = [_bytes(split.images[i]) for i in range(0, len(split), max(1, len(split) // 100))]
    return max(1.0, sum(sizes) / max(1, len(sizes)))


def _bytes(image: File | np.ndarray) -> int:
    if isinstance(image, Path):
        return image.stat().st_size if image.is_file() else 0
    return image.size if isinstance(image, Stored | np.ndarray) else len(image)


def _below(name: str) -> str:
    """A name without the folder of its split, so that train/cat/1.jpg comes next to val/cat/2.jpg."""
    first, slash, rest = name.partition("/")
    return rest if "/" in rest else first + slash + rest


@dataclass(frozen=True)
class _Looks:
    """Features, float32 (N, F), zero where only exact copies count, and for those a hash of the pixels."""

    features: np.ndarray
    digests: list[bytes]


def _looks(split: Split, workers: int | None) -> _Looks:
    features = np.zeros((len(split), 3 * _SIDE * _SIDE), np.float32)
    digests = [b""] * len(split)

    def look(index: int) -> None:
        image = decode(split.images[index], 3, 2 * _SMALLEST).image
        small = image.resize((_SIDE, _SIDE), Image.Resampling.BOX)
        if min(image.size) < _SMALLEST:
            digests[index] = hashlib.sha256(f"{image.size}".encode() + image.tobytes()).digest()
        else:
            features[index] = _feature(np.asarray(small, np.float32))

    for _ in in_threads(look, range(len(split)), batch_size=64, workers=workers):
        pass  # decoding failures are reported where the images are used
    return _Looks(features, digests)


def _feature(thumbnail: np.ndarray) -> np.ndarray:
    """A feature vector of length one; zeros for a flat thumbnail."""
    centred = (thumbnail - thumbnail.mean((0, 1))).reshape(-1)
    length = float(np.linalg.norm(centred))
    return centred / length if length > _FLATTEST * np.sqrt(centred.size) else np.zeros_like(centred)


def _alike(looks: _Looks, known: _Looks) -> list[tuple[int, int]]:
    """(held-out image, most similar training image) for each pair that looks alike."""
    copies = {digest: j for j, digest in enumerate(known.digests) if digest}
    pairs = {i: copies[digest] for i, digest in enumerate(looks.digests) if digest in copies}
    if len(known.features):
        similarity = looks.features @ known.features.T
        best = similarity.argmax(1)
        pairs |= {int(i): int(best[i]) for i in np.flatnonzero(similarity.max(1) > _ALIKE)}
    return sorted(pairs.items())
