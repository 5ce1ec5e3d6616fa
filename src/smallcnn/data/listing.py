"""Lists data sets as they are stored: see `smallcnn.data.sources` for what may be one."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from smallcnn.data.archive import is_archive
from smallcnn.data.arrays import read_npz
from smallcnn.data.folder import read_archive, read_folder, read_table
from smallcnn.data.left_out import LeftOut
from smallcnn.data.named import NAMED, read_named
from smallcnn.data.shards.read import is_shards, read_shards
from smallcnn.data.split import Split
from smallcnn.data.table import is_table
from smallcnn.errors import DataError, closest
from smallcnn.tasks.classification import Classification
from smallcnn.tasks.kinds import to_json
from smallcnn.tasks.task import Task


@dataclass(frozen=True)
class Listing:
    """A data set as it is stored: the task it is labelled for, and the splits it comes with.

    `place` and `root` are where it is, as given. `mirror`: an image keeps its labels when mirrored. `left_out` lists
    files and folders that are not used. `notes` are lines on defects of a usable set, such as a truncated shard, with
    one on `left_out`. `untrainable` is the reason why the set is for evaluation only, such as a class folder without
    images.
    """

    place: str
    root: Path | None
    task: Task
    splits: dict[str, Split]
    mirror: bool = True
    left_out: LeftOut = field(default_factory=LeftOut)
    notes: tuple[str, ...] = ()
    untrainable: str = ""

    @cached_property
    def fingerprint(self) -> str:
        """Identifies the images, files by name and arrays by content, both with their labels."""
        digest = hashlib.sha256()
        if not isinstance(self.task, Classification):  # classes are folders: their names are in the files' names
            digest.update(_bytes(to_json(self.task)))
        for key, split in sorted(self.splits.items()):
            lines = (f"{key} {name} {label}\n" for name, label in zip(split.names, split.targets.lines(), strict=True))
            digest.update(_bytes("".join(lines)))
            if isinstance(split.images, np.ndarray):
                digest.update(np.ascontiguousarray(split.images).data)
        return digest.hexdigest()[:16]


def listed(source: str | Path, *, root: str | Path | None = None, columns: Sequence[str] | None = None) -> Listing:
    """Lists a data set with its stored splits; the arguments are those of `open_source`. Raises DataError."""
    name, path, root = str(source), Path(source), None if root is None else Path(root)
    make = partial(Listing, name, root)
    try:
        if name in NAMED and (root is not None or not path.exists()):
            classes, splits = read_named(name, root)
            return make(_classes(classes, columns), splits, NAMED[name].mirror)
        if root is not None:
            raise DataError(f"a root is for named sets ({', '.join(NAMED)}); {name!r} is not one")
        if is_shards(name):
            classes, splits, problems, left_out = read_shards(name)
            notes = (*problems, *filter(None, [left_out.line()]))
            return make(_classes(classes, columns), splits, left_out=left_out, notes=notes)
        if path.is_dir() or is_archive(path) or (is_table(path) and path.is_file()):
            read = read_folder if path.is_dir() else read_table if is_table(path) else read_archive
            found = read(path, columns)
            notes = (*found.notes, *filter(None, [found.left_out.line()]))
            return make(found.task, found.splits, left_out=found.left_out, notes=notes, untrainable=found.untrainable)
        if path.suffix.lower() == ".npz" and path.is_file():
            classes, splits = read_npz(path)
            return make(_classes(classes, columns), splits)
    except OSError as error:
        raise DataError(f"{error.filename or source}: {error.strerror or error}") from error
    raise DataError(f"no folder, archive, .npz file or named set {name!r}; {closest(name, NAMED)}")


def _classes(names: tuple[str, ...], columns: Sequence[str] | None) -> Classification:
    if columns is not None:
        raise DataError("columns are those of a table next to images in a folder or archive")
    return Classification(names)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")  # file names on Linux may contain bytes that are not valid text
