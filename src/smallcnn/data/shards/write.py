"""Writes a data set as shards in webdataset's format: KEY.jpg and KEY.cls, shuffled, in tars of about equal size.

Boxes are in KEY.json (see `objects`).

The seed and the file sizes determine the layout before anything is written, and a shard gets its name only when it is
complete. So an interrupted run resumes where it stopped. The index is written last.
"""

import hashlib
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from smallcnn.data.archive import LARGEST, File, content, tar_members
from smallcnn.data.shards import objects
from smallcnn.data.shards.index import NAME, Index, Label, Shard
from smallcnn.data.split import Split
from smallcnn.data.targets import Boxes, Classes
from smallcnn.errors import DataError, ImageError, MissingExtra
from smallcnn.image.stored import Stored
from smallcnn.system.files import atomic, check_writable, remove_leftovers
from smallcnn.tasks.detection import Detection
from smallcnn.tasks.task import Task


@dataclass(frozen=True)
class _Planned:
    file: str
    split: str
    indices: list[int]


def write_shards(
    task: Task,
    splits: dict[str, Split],
    out: Path,
    *,
    shard_bytes: int,
    seed: int,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Index:
    """Writes the splits as shards of about `shard_bytes` into the folder `out`, with an index.

    `report` is called with the number of images done and the total. Raises DataError if an image cannot be read or
    `out` already has shards, FileError if `out` cannot be written.
    """
    try:
        from webdataset import TarWriter  # type: ignore[import-untyped]  # noqa: F401
    except ImportError as error:
        raise MissingExtra("writing shards", "train") from error
    if any(isinstance(split.images, np.ndarray) for split in splits.values()):
        raise DataError("arrays are already in memory and need no shards; shards are for images in files")
    if any(not isinstance(split.targets, Classes | Boxes) for split in splits.values()):
        raise DataError(
            "shards hold one class or the boxes of each image, not attributes; a .tar of the images and their table is "
            "read in place"
        )
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot make the folder {out}: {error.strerror}") from error
    if (out / NAME).exists():
        raise DataError(f"{out} already holds shards; choose another --out")
    check_writable(out / NAME)
    remove_leftovers(out)
    total, done = sum(len(split) for split in splits.values()), 0
    written: dict[str, list[Shard]] = {key: [] for key in splits}
    samples = {key: _Samples(split, task.labels) for key, split in splits.items()}
    for planned in _plan(samples, shard_bytes, seed):
        split, path = samples[planned.split], out / planned.file
        shard = None
        if path.is_file():
            shard = _read_back(path, split, planned, [zlib.crc32(_content(split.images[i])) for i in planned.indices])
        if shard is None:
            shard = _read_back(path, split, planned, _write(path, split, planned.indices))
            if shard is None:
                raise DataError(f"{path}: images changed while this was written; start again")
        written[planned.split].append(shard)
        done += len(planned.indices)
        report(done, total)
    index = Index(task.labels, written, boxes=isinstance(task, Detection))
    with atomic(out / NAME) as temporary:
        temporary.write_text(index.to_json(), "ascii")
    return index


class _Samples:
    """The images of a split with the files that hold their labels."""

    def __init__(self, split: Split, classes: tuple[str, ...]) -> None:
        self.names = split.names
        self.images: list[File] = list(split.images)
        if isinstance(split.targets, Boxes):
            self.suffix = "json"
            self.labels: list[Label] = [rows.tolist() for rows in split.targets.each()]
            self.files = [objects.encoded(rows, classes) for rows in split.targets.each()]
        else:
            self.suffix, self.labels = "cls", split.labels.tolist()
            self.files = [str(label).encode() for label in self.labels]


def _plan(splits: dict[str, _Samples], shard_bytes: int, seed: int) -> Iterator[_Planned]:
    for number, (key, split) in enumerate(splits.items()):
        shuffled = np.random.default_rng((seed, number)).permutation(len(split.images)).tolist()
        chosen: list[int] = []
        filled = count = 0
        for index in shuffled:
            files = _size(split.images[index]), len(split.files[index])
            size = 512 * sum(1 + -(-size // 512) for size in files)  # a header and whole blocks
            if chosen and filled + size > shard_bytes:
                yield _Planned(f"{key}-{count:06d}.tar", key, chosen)
                chosen, filled, count = [], 0, count + 1
            chosen.append(index)
            filled += size
        yield _Planned(f"{key}-{count:06d}.tar", key, chosen)


def _size(file: File) -> int:
    if not isinstance(file, Path):
        return file.size if isinstance(file, Stored) else len(file)
    try:
        size = file.stat().st_size
    except OSError as error:
        raise DataError(f"{file}: {error.strerror}; remove or repair it") from error
    if size > LARGEST:  # more than is read back
        raise DataError(f"{file}: {size / 1e6:,.0f} MB; images of more than {LARGEST >> 20} MB are not read: remove it")
    return size


def _write(path: Path, split: _Samples, indices: list[int]) -> list[int]:
    """Writes a shard; returns the CRC-32 of each image."""
    from webdataset import TarWriter

    crcs = []
    with (
        atomic(path) as temporary,
        temporary.open("wb") as file,
        TarWriter(file, encoder=False, mtime=0, user="", group="") as tar,
    ):
        for number, index in enumerate(indices):
            suffix = Path(split.names[index]).suffix.lower().removeprefix(".")
            image = _content(split.images[index])
            crcs.append(zlib.crc32(image))
            tar.write({"__key__": f"{number:06d}", suffix: image, split.suffix: split.files[index]})
    return crcs


def _content(file: File) -> bytes:
    try:
        return content(file)
    except (OSError, ImageError) as error:
        raise DataError(f"{error!s}; remove or repair it") from error


def _read_back(path: Path, split: _Samples, planned: _Planned, wanted: list[int]) -> Shard | None:
    """The entry of a written shard; None if it does not contain the planned images, with the CRC-32 `wanted`."""
    offsets, sizes, crcs = list[int](), list[int](), list[int]()
    labels = list[bytes]()
    try:
        with path.open("rb") as file:
            for member in tar_members(file):
                file.seek(member.offset_data)
                inside = file.read(member.size)
                if member.name.endswith(f".{split.suffix}"):
                    labels.append(inside)
                else:
                    offsets.append(member.offset_data)
                    sizes.append(member.size)
                    crcs.append(zlib.crc32(inside))
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except (tarfile.TarError, ValueError):
        return None
    if labels != [split.files[index] for index in planned.indices] or crcs != wanted:
        return None
    names = [split.names[index] for index in planned.indices]
    given = [split.labels[index] for index in planned.indices]
    return Shard(planned.file, path.stat().st_size, digest, names, given, offsets, sizes, crcs)
