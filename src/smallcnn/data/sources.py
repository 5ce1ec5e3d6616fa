"""Where labelled pictures come from: a folder or tar with one folder per class, an .npz, shards, or a named set.

    open_source("photos")           photos/<class>/*.jpg, or photos/train/<class> and photos/val/<class> (and test/)
    open_source("photos.tar")       the same in an archive (.tar, .tar.gz, .zip), read in place
    open_source("arrays.npz")       x_train, y_train (x_val, y_val) (x_test, y_test), or x, y; `classes` optional: names
    open_source("shards")           what `smallcnn shard` wrote; the address of its index.json; train-{0000..0099}.tar
    open_source("cifar10")          a set known by name (`smallcnn.data.named`), downloaded, or found in `root`

Where no validation part is given, one is cut from the training part: per class, chosen by a hash of seed and file name,
so that it is the same on every machine and adding pictures hardly changes it. Without a training part a source is good
for evaluation only.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from smallcnn.data.archive import File, is_archive
from smallcnn.data.arrays import read_npz
from smallcnn.data.folder import read_archive, read_folder
from smallcnn.data.left_out import LeftOut
from smallcnn.data.named import NAMED, read_named
from smallcnn.data.shards.read import is_shards, read_shards
from smallcnn.data.split import Split
from smallcnn.errors import DataError, closest

__all__ = ["NAMED", "Source", "Split", "open_source"]

_PARTS = ("train", "val", "test")


@dataclass(frozen=True)
class Source:
    """A data set: class names, and parts called train, val and test, in this order; where train is, val is too.

    `val_is_cut` says that the validation part was cut from the training part here (it is empty if no class has two
    pictures); `mirror` that a picture keeps its class when mirrored; `fingerprint` identifies the pictures: files by
    name, arrays by content, both with their labels; `left_out` is what was found and is not used, also said in a line
    of `notes`, which tell what is wrong with the set though it can be used, such as a shard that is cut short;
    `untrainable` says why it is good for evaluation only, such as a class folder without images.
    """

    classes: tuple[str, ...]
    splits: dict[str, Split]
    val_is_cut: bool
    mirror: bool
    fingerprint: str
    left_out: LeftOut = field(default_factory=LeftOut)
    notes: tuple[str, ...] = ()
    untrainable: str = ""

    def everything(self) -> Split:
        """All parts together."""
        parts = list(self.splits.values())
        images: Sequence[File] | np.ndarray
        if isinstance(parts[0].images, np.ndarray):
            images = np.concatenate([np.asarray(part.images) for part in parts])
        else:
            images = [image for part in parts for image in part.images]
        names = [name for part in parts for name in part.names]
        return Split(images, np.concatenate([part.labels for part in parts]), names)


@dataclass(frozen=True)
class _Given:
    """A set as it is stored: `splits` are the parts it has."""

    classes: tuple[str, ...]
    splits: dict[str, Split]
    mirror: bool = True
    left_out: LeftOut = field(default_factory=LeftOut)
    notes: tuple[str, ...] = ()
    untrainable: str = ""


def open_source(
    source: str | Path, *, root: str | Path | None = None, seed: int = 0, val_fraction: float = 0.2
) -> Source:
    """Finds the pictures of a folder, an archive, an .npz file, shards or a named set; decodes none of them.

    `root` is where a copy of a named set lies: a folder with the official files, packed or unpacked, or with pictures.

    Raises DataError if there is nothing to learn from: no pictures, labels that do not fit; FileError if a named set or
    an index cannot be downloaded.
    """
    if not 0 < val_fraction < 1:
        raise DataError(f"the validation fraction must be between 0 and 1, not {val_fraction}")
    given = read_source(source, root=root)
    splits = dict(given.splits)
    fingerprint = _fingerprint(splits)
    cut = "val" not in splits and "train" in splits
    if cut:
        splits["train"], splits["val"] = _cut(splits["train"], len(given.classes), seed, val_fraction)
    ordered = dict(sorted(splits.items(), key=lambda item: _PARTS.index(item[0])))
    return Source(
        given.classes, ordered, cut, given.mirror, fingerprint, given.left_out, given.notes, given.untrainable
    )


def read_source(source: str | Path, *, root: str | Path | None = None) -> _Given:
    """A set with the parts it is stored with; `open_source` otherwise."""
    name, path = str(source), Path(source)
    try:
        if name in NAMED and (root is not None or not path.exists()):
            classes, splits = read_named(name, None if root is None else Path(root))
            return _Given(classes, splits, NAMED[name].mirror)
        if root is not None:
            raise DataError(f"a root holds a copy of a named set ({', '.join(NAMED)}); {name!r} is none")
        if is_shards(name):
            classes, splits, problems = read_shards(name)
            return _Given(classes, splits, notes=tuple(problems))
        if path.is_dir() or is_archive(path):
            read = read_folder(path) if path.is_dir() else read_archive(path)
            line = read.left_out.line()
            notes = (*read.notes, line) if line else read.notes
            return _Given(read.classes, read.splits, left_out=read.left_out, notes=notes, untrainable=read.untrainable)
        if path.suffix.lower() == ".npz" and path.is_file():
            return _Given(*read_npz(path))
    except OSError as error:
        raise DataError(f"{error.filename or source}: {error.strerror or error}") from error
    raise DataError(f"no folder, archive, .npz file or named set {name!r}; {closest(name, NAMED)}")


def _cut(split: Split, classes: int, seed: int, fraction: float) -> tuple[Split, Split]:
    """(what stays, the part cut off): per class, at least one picture each if there are two."""
    taken: set[int] = set()
    by_class = np.argsort(split.labels, kind="stable")
    for part in np.split(by_class, np.cumsum(np.bincount(split.labels, minlength=classes))[:-1]):
        members = part.tolist()
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
