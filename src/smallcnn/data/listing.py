"""A data set as it is stored: see `smallcnn.data.sources` for what may be one."""

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from smallcnn.data.left_out import LeftOut
from smallcnn.data.split import Split
from smallcnn.tasks.classification import Classification
from smallcnn.tasks.kinds import to_json
from smallcnn.tasks.task import Task


@dataclass(frozen=True)
class Listing:
    """The task a data set is labelled for, and the splits it comes with.

    `left_out` lists files and folders that are not used. `notes` are lines on defects of a usable set, such as a
    truncated shard. `untrainable` is the reason why the set is for evaluation only, such as a class folder without
    images. `mirror`: an image keeps its labels when mirrored. `place` and `root` are where the set is, as given.
    """

    task: Task
    splits: dict[str, Split]
    left_out: LeftOut = field(default_factory=LeftOut)
    notes: tuple[str, ...] = ()
    untrainable: str = ""
    mirror: bool = True
    place: str = ""
    root: Path | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """The task's labels."""
        return self.task.labels

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


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")  # file names on Linux may contain bytes that are not valid text
