"""Sources of labelled images: a folder or archive with one folder per class, an .npz file, shards, or a named set.

    open_source("photos")           photos/<class>/*.jpg, or photos/train/<class> and photos/val/<class> (and test/)
    open_source("photos.tar")       the same in an archive (.tar, .tar.gz, .zip), read in place
    open_source("arrays.npz")       x_train, y_train (x_val, y_val) (x_test, y_test), or x, y; optionally `classes`
    open_source("shards")           output of `smallcnn shard`; the address of its index.json; train-{0000..0099}.tar
    open_source("cifar10")          a named set (`smallcnn.data.named`), downloaded or found in `root`

If there is no validation split, one is cut from the training split, per class, by a hash of seed and file name. So it
is the same on every machine, and adding images hardly changes it. With `groups` (see `smallcnn.data.groups`) the images
of one group stay on one side. A source without a training split is for evaluation only.
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
from smallcnn.tasks.classification import Classification
from smallcnn.tasks.task import Task

__all__ = ["NAMED", "Source", "Split", "open_source"]

_PARTS = ("train", "val", "test")


@dataclass(frozen=True)
class Source:
    """A data set: the task it is labelled for, and the splits train, val and test in this order; with train always val.

    `val_is_cut`: the validation split was cut from the training split (it is empty if no class has two images).
    `mirror`: an image keeps its class when mirrored. `fingerprint` identifies the images, files by name and arrays by
    content, both with labels. `left_out` lists files and folders that are not used. `notes` are lines on defects of a
    usable set, such as a truncated shard, with one on `left_out`. `untrainable` is the reason why the set is for
    evaluation only, such as a class folder without images. `cut` records the validation images chosen with groups, so
    that the same cut works without them; empty if there were no groups.
    """

    task: Task
    splits: dict[str, Split]
    val_is_cut: bool
    mirror: bool
    fingerprint: str
    left_out: LeftOut = field(default_factory=LeftOut)
    notes: tuple[str, ...] = ()
    untrainable: str = ""
    cut: str = ""

    @property
    def classes(self) -> tuple[str, ...]:
        """The task's labels."""
        return self.task.labels

    def everything(self) -> Split:
        """All splits combined."""
        splits = list(self.splits.values())
        images: Sequence[File] | np.ndarray
        if isinstance(splits[0].images, np.ndarray):
            images = np.concatenate([np.asarray(split.images) for split in splits])
        else:
            images = [image for split in splits for image in split.images]
        names = [name for split in splits for name in split.names]
        return Split(images, splits[0].targets.followed_by(*(split.targets for split in splits[1:])), names)


@dataclass(frozen=True)
class _Given:
    """A data set with the splits it is stored with."""

    task: Task
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
    """Lists the images of a folder, an archive, an .npz file, shards or a named set, without decoding them.

    `root` is the folder with a copy of a named set: the official files, packed or unpacked, or images. `groups` is a
    table or a pattern that says which images belong together. `cut` is that of an earlier Source; it applies if the
    images are the same and no groups are given.

    Raises DataError if the data is unusable, such as no images or invalid labels, and FileError if a named set or an
    index cannot be downloaded.
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
            held_out = holdout.by_groups(train.targets.strata(), train.names, group_of, seed, val_fraction)
            kept = holdout.as_text(held_out, len(train), fingerprint)
        else:
            again = holdout.from_text(cut, len(train), fingerprint)
            kept = cut if again is not None else ""
            held_out = (
                holdout.by_hash(train.targets.strata(), train.names, seed, val_fraction) if again is None else again
            )
        out = set(held_out)
        splits["train"] = train.subset([i for i in range(len(train)) if i not in out])
        splits["val"] = train.subset(held_out)
    elif groups is not None:
        notes.append(_on_both_sides(splits, groups, source))
    ordered = dict(sorted(splits.items(), key=lambda item: _PARTS.index(item[0])))
    return Source(
        given.task, ordered, is_cut, given.mirror, fingerprint, given.left_out, tuple(notes), given.untrainable, kept
    )


def read_source(source: str | Path, *, root: str | Path | None = None) -> _Given:
    """Reads a data set with its stored splits; otherwise like `open_source`."""
    name, path = str(source), Path(source)
    try:
        if name in NAMED and (root is not None or not path.exists()):
            classes, splits = read_named(name, None if root is None else Path(root))
            return _Given(Classification(classes), splits, NAMED[name].mirror)
        if root is not None:
            raise DataError(f"a root is for named sets ({', '.join(NAMED)}); {name!r} is not one")
        if is_shards(name):
            classes, splits, problems, left_out = read_shards(name)
            return _Given(
                Classification(classes), splits, left_out=left_out, notes=(*problems, *filter(None, [left_out.line()]))
            )
        if path.is_dir() or is_archive(path):
            read = read_folder(path) if path.is_dir() else read_archive(path)
            return _Given(
                Classification(read.classes), read.splits, left_out=read.left_out, untrainable=read.untrainable,
                notes=(*read.notes, *filter(None, [read.left_out.line()])),
            )  # fmt: skip
        if path.suffix.lower() == ".npz" and path.is_file():
            classes, splits = read_npz(path)
            return _Given(Classification(classes), splits)
    except OSError as error:
        raise DataError(f"{error.filename or source}: {error.strerror or error}") from error
    raise DataError(f"no folder, archive, .npz file or named set {name!r}; {closest(name, NAMED)}")


def _about(group_of: dict[str, str], images: int) -> str:
    """A note on the groups."""
    count = len(set(group_of.values()))
    alone = images - len(group_of)
    rest = f"; {alone:,} images without a group are treated one by one" if alone else ""
    return f"{len(group_of):,} images are in {count:,} groups, each on one side of the split{rest}"


def _on_both_sides(splits: dict[str, Split], groups: str | Path, source: str | Path) -> str:
    """A note on a set with its own val split, which groups cannot change."""
    if not {"train", "val"} <= splits.keys():
        raise DataError(f"{source} has no training images to split by groups; drop --groups")
    names = [name for key in ("train", "val") for name in splits[key].names]
    group_of = read_groups(groups, names)
    train, val = ({group_of[name] for name in splits[key].names if name in group_of} for key in ("train", "val"))
    both = sorted(train & val)
    some = f" ({', '.join(both[:3])})" if both else ""
    return f"the set has its own val split, which groups do not change; {len(both)} groups are on both sides{some}"


def _fingerprint(splits: dict[str, Split]) -> str:
    digest = hashlib.sha256()
    for key, split in sorted(splits.items()):
        lines = (f"{key} {name} {label}\n" for name, label in zip(split.names, split.targets.lines(), strict=True))
        digest.update(_bytes("".join(lines)))
        if isinstance(split.images, np.ndarray):
            digest.update(np.ascontiguousarray(split.images).data)
    return digest.hexdigest()[:16]


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")  # file names on Linux may contain bytes that are not valid text
