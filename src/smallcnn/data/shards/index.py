"""The index of a set of shards, index.json next to them: the images and their places.

    {"format": "smallcnn shards 1", "classes": ["a", "b"], "parts": {"train": [
        {"file": "train-000000.tar", "bytes": 10240, "sha256": "...",
         "names": ["a/1.jpg"], "labels": [0], "offsets": [512], "sizes": [631], "crc32": [3421780262]}]}}

`names` are the images' names before sharding; `offsets` and `sizes` are in bytes within the tar.
"""

import json
import re
from dataclasses import asdict, dataclass
from typing import Any

from smallcnn.errors import DataError

NAME = "index.json"
_FORMAT = "smallcnn shards 1"
_SPLITS = {"train", "val", "test"}
_LARGEST = 1 << 40


@dataclass(frozen=True)
class Shard:
    """One tar and its images. `sha256` and `crc32` are empty for shards made by other programs."""

    file: str
    bytes: int
    sha256: str
    names: list[str]
    labels: list[int]
    offsets: list[int]
    sizes: list[int]
    crc32: list[int]


@dataclass(frozen=True)
class Index:
    """Class names, and the shards of each split."""

    classes: tuple[str, ...]
    parts: dict[str, list[Shard]]

    def to_json(self) -> str:
        """The text of index.json."""
        parts = {split: [asdict(shard) for shard in shards] for split, shards in self.parts.items()}
        return json.dumps(
            {"format": _FORMAT, "classes": self.classes, "parts": parts}, ensure_ascii=True, separators=(",", ":")
        )

    @classmethod
    def from_json(cls, text: str | bytes, where: str) -> "Index":
        """The inverse of `to_json`. Raises DataError for an invalid index; nothing in it is trusted."""
        try:
            fields = json.loads(text)
            if fields["format"] != _FORMAT:
                raise ValueError(f"format is {fields['format']!r}, not {_FORMAT!r}")
            classes = tuple(fields["classes"])
            _check(bool(classes) and all(isinstance(name, str) for name in classes), "classes must be names")
            _check(len(set(classes)) == len(classes), "a class is named twice")
            _check(bool(fields["parts"]) and fields["parts"].keys() <= _SPLITS, "splits must be train, val or test")
            parts = {
                split: [_shard(entry, len(classes)) for entry in shards] for split, shards in fields["parts"].items()
            }
            _check(all(parts.values()), "a split without shards")
            return cls(classes, parts)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            what = f"no {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
            raise DataError(f"{where}: not an index of shards ({what})") from error


def _shard(fields: dict[str, Any], classes: int) -> Shard:
    shard = Shard(**fields)
    # a plain name, because it replaces the index's name in its address, which may be a command
    _check(bool(re.fullmatch(r"\w[\w.-]*", shard.file, re.ASCII)), f"{shard.file!r} is not a plain file name")
    _check(bool(re.fullmatch(r"[0-9a-f]{64}|", shard.sha256)), f"{shard.file}: not a SHA-256")
    count = len(shard.names)
    _check(all(isinstance(name, str) for name in shard.names), f"{shard.file}: names must be text")
    for column in (shard.labels, shard.offsets, shard.sizes, shard.crc32):
        _check(all(type(value) is int and value >= 0 for value in column), f"{shard.file}: numbers must be whole")
        _check(len(column) == count or column is shard.crc32 == [], f"{shard.file}: columns of different lengths")
    _check(all(label < classes for label in shard.labels), f"{shard.file}: a label without a class")
    _check(type(shard.bytes) is int and shard.bytes >= 0, f"{shard.file}: bytes must be a whole number")
    end = shard.bytes or _LARGEST  # the size of a shard made by another program may be unknown
    inside = all(at + size <= end for at, size in zip(shard.offsets, shard.sizes, strict=True))
    _check(inside, f"{shard.file}: an image beyond the end of the file")
    return shard


def _check(good: bool, otherwise: str) -> None:
    if not good:
        raise ValueError(otherwise)
