"""Where labelled pictures come from: a folder with one sub-folder per class, an .npz, or a named set.

    open_source("photos")           photos/<class>/*.jpg, or photos/train/<class> and photos/val/<class> (and test/)
    open_source("arrays.npz")       x_train, y_train (x_val, y_val) (x_test, y_test), or x, y; `classes` optional: names
    open_source("digits")           scikit-learn's handwritten digits, offline

Where no validation part is given, one is cut from the training part: per class, chosen by a hash of seed and file name,
so that it is the same on every machine and adding pictures hardly changes it. Without a training part a source is good
for evaluation only.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from smallcnn.data.arrays import NAMED, read_npz
from smallcnn.data.folder import read_folder
from smallcnn.data.split import Split
from smallcnn.errors import DataError, closest

__all__ = ["NAMED", "Source", "Split", "open_source"]

_PARTS = ("train", "val", "test")


@dataclass(frozen=True)
class Source:
    """A data set: class names, and parts called train, val and test, in this order; where train is, val is too.

    `val_is_cut` says that the validation part was cut from the training part here (it is empty if no class has two
    pictures); `mirror` that a picture keeps its class when mirrored; `fingerprint` identifies the pictures: files by
    name, arrays by content, both with their labels; `ignored` lists files in class folders that are not pictures.
    """

    classes: tuple[str, ...]
    splits: dict[str, Split]
    val_is_cut: bool
    mirror: bool
    fingerprint: str
    ignored: tuple[Path, ...] = ()

    def everything(self) -> Split:
        """All parts together."""
        parts = list(self.splits.values())
        images: Sequence[Path] | np.ndarray
        if isinstance(parts[0].images, np.ndarray):
            images = np.concatenate([np.asarray(part.images) for part in parts])
        else:
            images = [image for part in parts for image in part.images]
        names = [name for part in parts for name in part.names]
        return Split(images, np.concatenate([part.labels for part in parts]), names)


def open_source(source: str | Path, *, seed: int = 0, val_fraction: float = 0.2) -> Source:
    """Finds the pictures of a folder, an .npz file or a named set; decodes none of them.

    Raises DataError if there is nothing to learn from: no pictures, labels that do not fit.
    """
    if not 0 < val_fraction < 1:
        raise DataError(f"the validation fraction must be between 0 and 1, not {val_fraction}")
    path = Path(source)
    mirror = True
    ignored: list[Path] = []
    try:
        if str(source) in NAMED and not path.exists():
            classes, splits = NAMED[str(source)]()
            mirror = False
        elif path.is_dir():
            classes, splits, ignored = read_folder(path)
        elif path.suffix.lower() == ".npz" and path.is_file():
            classes, splits = read_npz(path)
        else:
            raise DataError(f"no folder, .npz file or named set {str(source)!r}; {closest(str(source), NAMED)}")
    except OSError as error:
        raise DataError(f"{error.filename or source}: {error.strerror or error}") from error
    fingerprint = _fingerprint(splits)
    cut = "val" not in splits and "train" in splits
    if cut:
        splits["train"], splits["val"] = _cut(splits["train"], len(classes), seed, val_fraction)
    ordered = dict(sorted(splits.items(), key=lambda item: _PARTS.index(item[0])))
    return Source(classes, ordered, cut, mirror, fingerprint, tuple(ignored))


def _cut(split: Split, classes: int, seed: int, fraction: float) -> tuple[Split, Split]:
    """(what stays, the part cut off): per class, at least one picture each if there are two."""
    taken: set[int] = set()
    for label in range(classes):
        members = np.flatnonzero(split.labels == label).tolist()
        members.sort(key=lambda i: hashlib.sha256(_bytes(f"{seed}/{split.names[i]}")).digest())
        taken.update(members[: min(max(round(len(members) * fraction), 1), max(len(members) - 1, 0))])
    rest = [i for i in range(len(split)) if i not in taken]
    return split.subset(rest), split.subset(sorted(taken))


def _fingerprint(splits: dict[str, Split]) -> str:
    digest = hashlib.sha256()
    for part, split in sorted(splits.items()):
        lines = (f"{part} {name} {label}\n" for name, label in zip(split.names, split.labels, strict=True))
        digest.update(_bytes("".join(lines)))
        if isinstance(split.images, np.ndarray):
            digest.update(np.ascontiguousarray(split.images).data)
    return digest.hexdigest()[:16]


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")  # a file name on Linux may hold bytes that are no text
