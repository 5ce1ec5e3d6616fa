"""A set of shards as labelled images, each read on demand."""

import hashlib
import json
import re
from collections.abc import Sequence
from contextlib import suppress
from math import prod
from pathlib import Path

import numpy as np

from smallcnn.data.left_out import LeftOut
from smallcnn.data.listing import Listing
from smallcnn.data.shards import foreign
from smallcnn.data.shards.index import NAME, Index, Shard
from smallcnn.data.shards.remote import RemoteStore, is_remote, read_whole
from smallcnn.data.split import Split
from smallcnn.data.stores import FileStore
from smallcnn.data.targets import Boxes, Classes, Targets
from smallcnn.errors import DataError, ImageError
from smallcnn.image.stored import Store, Stored
from smallcnn.system.cache import cache_folder, keep, recalled
from smallcnn.tasks.classification import Classification
from smallcnn.tasks.detection import Detection
from smallcnn.tasks.task import Task

_MOST_SHARDS = 100_000
_BRACES = re.compile(r"\{(\d{1,18})\.\.(\d{1,18})\}")


def is_shards(source: str) -> bool:
    """Whether `source` is an index, its folder or address, a shard, or a pattern such as x-{000..009}.tar."""
    if _BRACES.search(source) or (is_remote(source) and NAME in source):
        return True
    path = Path(source)
    if path.suffix.lower() == ".tar" and path.is_file():
        return foreign.is_shard(path)
    return (path / NAME).is_file() or (path.name == NAME and path.is_file())


def read_shards(source: str) -> Listing:
    """Lists the images of shards, with notes on the shards' defects. Raises DataError or FileError."""
    notes: list[str] = []
    left_out = LeftOut()
    remote = is_remote(source)
    if _BRACES.search(source) or source.lower().endswith(".tar"):
        urls = _expand(source)
        index = _scanned(urls, notes, left_out)
        places = dict(zip((shard.file for shard in index.parts["train"]), urls, strict=True))
    else:
        path = Path(source) / NAME if Path(source).is_dir() else Path(source)
        index = Index.from_json(read_whole(source) if remote else path.read_bytes(), source)
        files = [shard.file for shards in index.parts.values() for shard in shards]
        places = {file: source.replace(NAME, file) if remote else str(path.with_name(file)) for file in files}
    splits = {}
    for key, shards in index.parts.items():
        images: list[Stored] = []
        for shard in shards:
            store = _store(places[shard.file], shard, notes)
            crcs: Sequence[int | None] = shard.crc32 or [None] * len(shard.names)
            columns = zip(shard.offsets, shard.sizes, shard.names, crcs, strict=True)
            images += [Stored(store, at, size, f"{shard.file}/{name}", crc) for at, size, name, crc in columns]
        labels = [label for shard in shards for label in shard.labels]
        targets: Targets = Classes(np.array([0 if index.boxes else label for label in labels], np.int64))
        if index.boxes:
            targets = Boxes.of(np.array(label) for label in labels)
        split = Split(images, targets, [name for shard in shards for name in shard.names])
        splits[key] = split if remote else _as_in_a_folder(split)
    task: Task = Detection(index.classes) if index.boxes else Classification(index.classes)
    return Listing(task, splits, left_out, tuple(notes))


def _as_in_a_folder(split: Split) -> Split:
    """Sorts the images by class, if they have one, and name: a run on them equals one on the folder they come from."""
    labels = split.labels if isinstance(split.targets, Classes) else np.zeros(len(split))
    return split.subset(sorted(range(len(split)), key=lambda i: (labels[i], split.names[i])))


def _store(place: str, shard: Shard, notes: list[str]) -> Store:
    """The store of a shard's images; notes defects that are visible without reading it."""
    if is_remote(place):
        return RemoteStore(place, shard.bytes or None, shard.sha256 or None)
    store = FileStore(Path(place), shard.bytes)
    if not store.path.is_file():
        if shard.names:
            notes.append(f"{place}: no such file; the images in it are missing")
    elif store.path.stat().st_size < shard.bytes:
        notes.append(store.shortened())
    return store


def _expand(pattern: str) -> list[str]:
    """x-{08..11}.tar -> x-08.tar, x-09.tar, x-10.tar, x-11.tar."""
    count = prod(max(0, int(last) - int(first) + 1) for first, last in _BRACES.findall(pattern))
    if count > _MOST_SHARDS:
        raise DataError(f"the shard pattern matches {count:,} files; at most {_MOST_SHARDS:,} are allowed")
    found = _BRACES.search(pattern)
    if not found:
        return [pattern]
    first, last = found.groups()
    if int(last) - int(first) >= _MOST_SHARDS:
        raise DataError(f"{pattern}: the pattern matches more than {_MOST_SHARDS:,} shards")
    numbers = [str(number).zfill(len(first)) for number in range(int(first), int(last) + 1)]
    return [url for number in numbers for url in _expand(pattern[: found.start()] + number + pattern[found.end() :])]


def _scanned(urls: list[str], notes: list[str], left_out: LeftOut) -> Index:
    """The index of shards without one, made by reading them once and cached."""
    if not urls:
        raise DataError("the shard pattern matches no file: its first number is above its last")
    mark = hashlib.sha256(b"2 ")
    for url in urls:
        status = None if is_remote(url) or not Path(url).is_file() else Path(url).stat()
        mark.update(f"{url} {status and (status.st_size, status.st_mtime_ns)}\n".encode("utf-8", "surrogateescape"))
    kept = cache_folder() / "data" / "indexes" / f"{mark.hexdigest()}.json"
    if (known := recalled(kept)) is not None:
        with suppress(DataError):  # damaged: read the shards again
            index, lines, counts = _recalled(known, str(kept))
            notes += lines
            left_out.counts.update(counts)
            return index
    found = [_scan(url, notes) for url in urls]
    damaged = bool(notes)
    boxes = foreign.are_objects(found)
    classes, labels = foreign.resolve(found)
    for scanned in found:
        left_out.counts.update(scanned.left_out)
    if bad := [label for scanned in found for label in scanned.bad]:
        notes.append(f"labels that cannot be used: {len(bad)}; the first is {bad[0]}")
    if not classes:
        why = "; ".join(filter(None, [*notes[:1], left_out.line()]))
        raise DataError(
            f"{urls[0]}: no images with a label (KEY.jpg and KEY.cls) in these shards" + f" ({why})" * bool(why)
        )
    shards = [
        Shard(
            f"{i:06d}.tar",
            _size(url),
            "",
            [one.name for one in scanned.samples],
            [*chosen],
            [one.at for one in scanned.samples],
            [one.size for one in scanned.samples],
            [],
        )
        for i, (url, scanned, chosen) in enumerate(zip(urls, found, labels, strict=True))
    ]
    index = Index(classes, {"train": shards}, boxes)
    if not damaged:  # otherwise read them again next time, in case they have been repaired
        content = {"index": index.to_json(), "notes": notes, "left_out": left_out.counts}
        keep(kept, json.dumps(content).encode())
    return index


def _recalled(text: bytes, where: str) -> tuple[Index, list[str], dict[str, int]]:
    """(index, notes, counts of skipped files) from the cache. Raises DataError."""
    try:
        known = json.loads(text)
        notes, counts = [str(note) for note in known["notes"]], {str(k): int(v) for k, v in known["left_out"].items()}
        return Index.from_json(known["index"], where), notes, counts
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(f"{where}: not an index of shards; remove it") from error


def _scan(url: str, notes: list[str]) -> foreign.Scanned:
    """The contents of one shard; notes what cannot be read."""
    try:
        scanned = foreign.scan(RemoteStore(url).local() if is_remote(url) else Path(url))
    except ImageError as error:
        notes.append(f"{error}; 0 images of this shard are used")
        return foreign.Scanned()
    if scanned.problem:
        notes.append(f"{url}: {scanned.problem}; {len(scanned.samples)} images of this shard are used")
    return scanned


def _size(url: str) -> int:
    return 0 if is_remote(url) or not Path(url).is_file() else Path(url).stat().st_size
