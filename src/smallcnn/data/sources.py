"""Sources of labelled images: a folder or archive with one folder per class, a table of attributes (see
`smallcnn.data.attributes`) or boxes of objects (`smallcnn.data.boxes`), an .npz file, shards, or a named set.

    open_source("photos")           photos/<class>/*.jpg, or photos/train/<class> and photos/val/<class> (and test/)
    open_source("photos.tar")       the same in an archive (.tar, .tar.gz, .zip), read in place
    open_source("photos/attributes.csv")  this table, even if there are class folders next to it
    open_source("photos/annotations")     boxes of objects in COCO, Pascal VOC, YOLO or CSV form next to the images
    open_source("photos/annotations.json")  these COCO annotations, with the images in the folders around them
    open_source("arrays.npz")       x_train, y_train (x_val, y_val) (x_test, y_test), or x, y; optionally `classes`
    open_source("shards")           output of `smallcnn shard`; the address of its index.json; train-{0000..0099}.tar
    open_source("cifar10")          a named set (`smallcnn.data.named`), downloaded or found in `root`

If there is no validation split, one is cut from the training split, per class, by a hash of seed and file name. So it
is the same on every machine, and adding images hardly changes it. With `groups` (see `smallcnn.data.groups`) the images
of one group stay on one side. A source without a training split is for evaluation only.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from smallcnn.data import holdout
from smallcnn.data.archive import File, is_archive
from smallcnn.data.arrays import read_npz
from smallcnn.data.folder import is_json, is_table, read_images
from smallcnn.data.groups import read_groups
from smallcnn.data.left_out import LeftOut
from smallcnn.data.listing import Listing
from smallcnn.data.named import NAMED, read_named
from smallcnn.data.questions import Columns
from smallcnn.data.shards.read import is_shards, read_shards
from smallcnn.data.split import Split
from smallcnn.errors import DataError, closest
from smallcnn.tasks.classification import Classification
from smallcnn.tasks.task import Task

__all__ = ["NAMED", "Data", "Source", "Split", "open_source"]

_SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Source:
    """A data set for use: the splits train, val and test, in this order; with train there is always val.

    `val_is_cut`: the validation split was cut from the training split (it is empty if no class has two images). `notes`
    are those of the `listing` and of the cut. `cut` records the validation images chosen with groups, so that the same
    cut works without them; empty if there were no groups.
    """

    listing: Listing
    splits: dict[str, Split]
    val_is_cut: bool
    notes: tuple[str, ...] = ()
    cut: str = ""

    @property
    def task(self) -> Task:
        """What the images are labelled for."""
        return self.listing.task

    @property
    def classes(self) -> tuple[str, ...]:
        """The task's labels."""
        return self.task.labels

    @property
    def mirror(self) -> bool:
        """Whether an image keeps its labels when mirrored."""
        return self.listing.mirror

    @property
    def fingerprint(self) -> str:
        """Identifies the images and their labels."""
        return self.listing.fingerprint

    @property
    def left_out(self) -> LeftOut:
        """The files and folders that are not used."""
        return self.listing.left_out

    @property
    def untrainable(self) -> str:
        """The reason why the set is for evaluation only; empty if it is not."""
        return self.listing.untrainable

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


Data = str | Path | Source
"""A data set, or where it is."""


def open_source(
    source: Data,
    *,
    root: str | Path | None = None,
    columns: Columns = None,
    seed: int = 0,
    val_fraction: float = 0.2,
    groups: str | Path | None = None,
    cut: str = "",
) -> Source:
    """Lists the images of a folder, an archive, an .npz file, shards or a named set, without decoding them.

    A Source is not listed again, only cut anew. `root` is the folder with a copy of a named set: the official files,
    packed or unpacked, or images. `columns` are those to use of a table of attributes: their titles, or a task whose
    questions to use as far as the table has them; by default all that can be used. `groups` is a table or a pattern
    that says which images belong together. `cut` is that of an earlier Source; it applies if the images are the same
    and no groups are given.

    Raises DataError if the data is unusable, such as no images or invalid labels, and FileError if a named set or an
    index cannot be downloaded.
    """
    if not 0 < val_fraction < 1:
        raise DataError(f"the validation fraction must be between 0 and 1, not {val_fraction}")
    given = source.listing if isinstance(source, Source) else listed(source, root=root, columns=columns)
    splits, fingerprint = dict(given.splits), given.fingerprint
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
        notes.append(_on_both_sides(splits, groups, given.place))
    ordered = dict(sorted(splits.items(), key=lambda item: _SPLITS.index(item[0])))
    return Source(given, ordered, is_cut, tuple(notes), kept)


def listed(source: str | Path, *, root: str | Path | None = None, columns: Columns = None) -> Listing:
    """Lists a data set with its stored splits; the arguments are those of `open_source`. Raises DataError."""
    name, path, root = str(source), Path(source), None if root is None else Path(root)
    try:
        if name in NAMED and (root is not None or not path.exists()):
            found = read_named(name, root)
        elif root is not None:
            raise DataError(f"a root is for named sets ({', '.join(NAMED)}); {name!r} is not one")
        elif is_shards(name):
            found = read_shards(name)
        elif path.is_dir() or is_archive(path) or is_table(path) or is_json(path):
            found = read_images(path, columns)
        elif path.suffix.lower() == ".npz" and path.is_file():
            found = read_npz(path)
        else:
            raise DataError(f"no folder, archive, .npz file or named set {name!r}; {closest(name, NAMED)}")
    except OSError as error:
        raise DataError(f"{error.filename or source}: {error.strerror or error}") from error
    if isinstance(columns, Sequence) and isinstance(found.task, Classification):
        raise DataError("columns are those of a table next to images in a folder or archive")
    left_out = filter(None, [found.left_out.line()])
    return replace(found, notes=(*found.notes, *left_out), place=name, root=root)


def _about(group_of: dict[str, str], images: int) -> str:
    """A note on the groups."""
    count = len(set(group_of.values()))
    alone = images - len(group_of)
    rest = f"; {alone:,} images without a group are treated one by one" if alone else ""
    return f"{len(group_of):,} images are in {count:,} groups, each on one side of the split{rest}"


def _on_both_sides(splits: dict[str, Split], groups: str | Path, place: str) -> str:
    """A note on a set with its own val split, which groups cannot change."""
    if not {"train", "val"} <= splits.keys():
        raise DataError(f"{place} has no training images to split by groups; drop --groups")
    names = [name for key in ("train", "val") for name in splits[key].names]
    group_of = read_groups(groups, names)
    train, val = ({group_of[name] for name in splits[key].names if name in group_of} for key in ("train", "val"))
    both = sorted(train & val)
    some = f" ({', '.join(both[:3])})" if both else ""
    return f"the set has its own val split, which groups do not change; {len(both)} groups are on both sides{some}"
