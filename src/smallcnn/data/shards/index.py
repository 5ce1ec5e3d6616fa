"""The index of a set of shards, index.json next to them: the images and their places.

    {"format": "smallcnn shards 1", "classes": ["a", "b"], "parts": {"train": [
        {"file": "train-000000.tar", "bytes": 10240, "sha256": "...",
         "names": ["a/1.jpg"], "labels": [0], "offsets": [512], "sizes": [631], "crc32": [3421780262]}]}}

`names` are the images' names before sharding; `offsets` and `sizes` are in bytes within the tar. For boxes the format
is 2, there is "task": "detection", and an image's label is the list of its boxes: left, top, right, bottom, class, area
and flag, as in `data.targets.Boxes`.
"""

import json
import re
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any

from smallcnn.data.targets import BOTTOM, CLASS, CROWD, DIFFICULT, FLAG, LEFT, PLAIN, RIGHT, TOP
from smallcnn.errors import DataError

NAME = "index.json"
_FORMAT, _FORMAT_OF_BOXES = "smallcnn shards 1", "smallcnn shards 2"
_SPLITS = {"train", "val", "test"}
_LARGEST = 1 << 40

Label = int | list[list[float]]
"""A class number, or the boxes of an image."""


@dataclass(frozen=True)
class Shard:
    """One tar and its images. `sha256` and `crc32` are empty for shards made by other programs."""

    file: str
    bytes: int
    sha256: str
    names: list[str]
    labels: list[Label]
    offsets: list[int]
    sizes: list[int]
    crc32: list[int]


@dataclass(frozen=True)
class Index:
    """Class names, and the shards of each split; whether images have boxes in place of one class each."""

    classes: tuple[str, ...]
    parts: dict[str, list[Shard]]
    boxes: bool = False

    def to_json(self) -> str:
        """The text of index.json."""
        parts = {split: [asdict(shard) for shard in shards] for split, shards in self.parts.items()}
        form = {"format": _FORMAT_OF_BOXES, "task": "detection"} if self.boxes else {"format": _FORMAT}
        return json.dumps(form | {"classes": self.classes, "parts": parts}, ensure_ascii=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str | bytes, where: str) -> "Index":
        """The inverse of `to_json`. Raises DataError for an invalid index; nothing in it is trusted."""
        try:
            fields = json.loads(text)
            boxes = fields["format"] == _FORMAT_OF_BOXES
            if not boxes and fields["format"] != _FORMAT:
                raise ValueError(f"format is {fields['format']!r}, not {_FORMAT!r} or {_FORMAT_OF_BOXES!r}")
            _check(not boxes or fields["task"] == "detection", "task must be detection")
            classes = tuple(fields["classes"])
            _check(bool(classes) and all(isinstance(name, str) for name in classes), "classes must be names")
            _check(len(set(classes)) == len(classes), "a class is named twice")
            _check(bool(fields["parts"]) and fields["parts"].keys() <= _SPLITS, "splits must be train, val or test")
            parts = {
                split: [_shard(entry, len(classes), boxes) for entry in shards]
                for split, shards in fields["parts"].items()
            }
            _check(all(parts.values()), "a split without shards")
            return cls(classes, parts, boxes)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            what = f"no {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
            raise DataError(f"{where}: not an index of shards ({what})") from error


def _shard(fields: dict[str, Any], classes: int, boxes: bool) -> Shard:
    shard = Shard(**fields)
    # a plain name, because it replaces the index's name in its address, which may be a command
    _check(bool(re.fullmatch(r"\w[\w.-]*", shard.file, re.ASCII)), f"{shard.file!r} is not a plain file name")
    _check(bool(re.fullmatch(r"[0-9a-f]{64}|", shard.sha256)), f"{shard.file}: not a SHA-256")
    count = len(shard.names)
    _check(all(isinstance(name, str) for name in shard.names), f"{shard.file}: names must be text")
    _check(len(shard.labels) == count, f"{shard.file}: columns of different lengths")
    for column in (shard.offsets, shard.sizes, shard.crc32):
        _check(all(_is_whole(value) for value in column), f"{shard.file}: numbers must be whole")
        _check(len(column) == count or column is shard.crc32 == [], f"{shard.file}: columns of different lengths")
    if boxes:
        _check(all(are_boxes(label) for label in shard.labels), f"{shard.file}: a label that is no list of boxes")
        numbers: list[Any] = [box[CLASS] for label in shard.labels if isinstance(label, list) for box in label]
    else:
        _check(all(_is_whole(label) for label in shard.labels), f"{shard.file}: numbers must be whole")
        numbers = shard.labels
    _check(all(0 <= number < classes for number in numbers), f"{shard.file}: a label without a class")
    _check(type(shard.bytes) is int and shard.bytes >= 0, f"{shard.file}: bytes must be a whole number")
    end = shard.bytes or _LARGEST  # the size of a shard made by another program may be unknown
    inside = all(at + size <= end for at, size in zip(shard.offsets, shard.sizes, strict=True))
    _check(inside, f"{shard.file}: an image beyond the end of the file")
    return shard


def _is_whole(value: object) -> bool:
    return type(value) is int and value >= 0


def are_boxes(label: object) -> bool:
    """Whether a label is a list of rows as `Boxes` has them: numbers, sides in order, a class and a flag."""
    return isinstance(label, list) and all(
        isinstance(box, list)
        and len(box) == FLAG + 1
        and all(type(value) in (int, float) and isfinite(value) for value in box)
        and box[LEFT] < box[RIGHT]
        and box[TOP] < box[BOTTOM]
        and box[CLASS] == int(box[CLASS])
        and box[FLAG] in (PLAIN, CROWD, DIFFICULT)
        for box in label
    )


def _check(good: bool, otherwise: str) -> None:
    if not good:
        raise ValueError(otherwise)
