"""Where labelled images come from: a folder or tar with one folder per class, an .npz, shards, or a named set.

    open_source("photos")           photos/<class>/*.jpg, or photos/train/<class> and photos/val/<class> (and test/)
    open_source("photos.tar")       the same in an archive (.tar, .tar.gz, .zip), read in place
    open_source("arrays.npz")       x_train, y_train (x_val, y_val) (x_test, y_test), or x, y; `classes` optional: names
    open_source("shards")           what `smallcnn shard` wrote; the address of its index.json; train-{0000..0099}.tar
    open_source("cifar10")          a set known by name (`smallcnn.data.named`), downloaded, or found in `root`

Where no validation part is given, one is cut from the training part: per class, chosen by a hash of seed and file name,
so that it is the same on every machine and adding images hardly changes it. Given `groups` (see
`smallcnn.data.groups`), images of one group stay on one side. Without a training part a source is good for evaluation
only.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from smallcnn.data import holdout
from smallcnn.data.archive import File, is_archive
from smallcnn.data.arrays import read_npz
from smallcnn.data.folder import read_archive, read_folder
from smallcnn.data.groups import read_groups
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
    images); `mirror` that an image keeps its class when mirrored; `fingerprint` identifies the images: files by
    name, arrays by content, both with their labels; `left_out` is what was found and is not used, also said in a line
    of `notes`, which tell what is wrong with the set though it can be used, such as a shard that is cut short;
    `untrainable` says why it is good for evaluation only, such as a class folder without images. `cut` is which images
    groups have put into the validation part, so that it can be cut again without them; empty if there were none.
    """

    classes: tuple[str, ...]
    splits: dict[str, Split]
    val_is_cut: bool
    mirror: bool
    fingerprint: str
    left_out: LeftOut = field(default_factory=LeftOut)
    notes: tuple[str, ...] = ()
    untrainable: str = ""
    cut: str = ""

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
    source: str | Path,
    *,
    root: str | Path | None = None,
    seed: int = 0,
    val_fraction: float = 0.2,
    groups: str | Path | None = None,
    cut: str = "",
) -> Source:
    """Finds the images of a folder, an archive, an .npz file, shards or a named set; decodes none of them.

    `root` is where a copy of a named set lies: a folder with the official files, packed or unpacked, or with images.
    `groups` is a table or a pattern that says which images belong together; `cut` is that of an earlier Source, and
    used if the images are the same and no groups are given.

    Raises DataError if there is nothing to learn from: no images, labels that do not fit; FileError if a named set or
    an index cannot be downloaded.
    """
    if not 0 < val_fraction < 1:
        raise DataError(f"the validation fraction must be between 0 and 1, not {val_fraction}")
    given = read_source(source, root=root)
    splits = dict(given.splits)
    fingerprint = _fingerprint(splits)
    notes, kept, is_cut = list(given.notes), "", "val" not in splits and "train" in splits
    if is_cut:
        train = splits["train"]
        if groups is not None:
            group_of = read_groups(groups, train.names)
            notes.append(_about(group_of, len(train)))
            held_out = holdout.by_groups(train.labels, train.names, group_of, seed, val_fraction)
            kept = holdout.as_text(held_out, len(train), fingerprint)
        else:
            again = holdout.from_text(cut, len(train), fingerprint)
            kept = cut if again is not None else ""
            held_out = holdout.by_hash(train.labels, train.names, seed, val_fraction) if again is None else again
        out = set(held_out)
        splits["train"] = train.subset([i for i in range(len(train)) if i not in out])
        splits["val"] = train.subset(held_out)
    elif groups is not None:
        notes.append(_on_both_sides(splits, groups, source))
    ordered = dict(sorted(splits.items(), key=lambda item: _PARTS.index(item[0])))
    return Source(
        given.classes, ordered, is_cut, given.mirror, fingerprint, given.left_out, tuple(notes), given.untrainable, kept
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
            classes, splits, problems, left_out = read_shards(name)
            return _Given(classes, splits, left_out=left_out, notes=(*problems, *filter(None, [left_out.line()])))
        if path.is_dir() or is_archive(path):
            read = read_folder(path) if path.is_dir() else read_archive(path)
            return _Given(
                read.classes, read.splits, left_out=read.left_out, untrainable=read.untrainable,
                notes=(*read.notes, *filter(None, [read.left_out.line()])),
            )  # fmt: skip
        if path.suffix.lower() == ".npz" and path.is_file():
            return _Given(*read_npz(path))
    except OSError as error:
        raise DataError(f"{error.filename or source}: {error.strerror or error}") from error
    raise DataError(f"no folder, archive, .npz file or named set {name!r}; {closest(name, NAMED)}")


def _about(group_of: dict[str, str], images: int) -> str:
    """One line on groups."""
    count = len(set(group_of.values()))
    alone = images - len(group_of)
    rest = f"; {alone:,} images are in none, and each is a group of its own" if alone else ""
    return f"{len(group_of):,} images are in {count:,} groups, each on one side of the split{rest}"


def _on_both_sides(splits: dict[str, Split], groups: str | Path, source: str | Path) -> str:
    """One line on a split that the set brings with it, which groups cannot change."""
    if not {"train", "val"} <= splits.keys():
        raise DataError(f"{source} has no training images to split by groups; leave --groups out")
    names = [name for part in ("train", "val") for name in splits[part].names]
    group_of = read_groups(groups, names)
    train, val = ({group_of[name] for name in splits[part].names if name in group_of} for part in ("train", "val"))
    both = sorted(train & val)
    some = f" ({', '.join(both[:3])})" if both else ""
    return f"the set has a val split of its own, which groups do not change; {len(both)} groups are on both sides{some}"


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
