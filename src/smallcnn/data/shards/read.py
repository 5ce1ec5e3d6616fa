"""A set of shards as labelled pictures; no picture is read before it is asked for."""

import hashlib
import re
import tarfile
from collections.abc import Sequence
from contextlib import suppress
from math import prod
from pathlib import Path

import numpy as np

from smallcnn.cache import cache_folder, keep, recalled
from smallcnn.data.archive import tar_members
from smallcnn.data.decode import SUFFIXES
from smallcnn.data.shards.index import NAME, Index, Shard
from smallcnn.data.shards.remote import RemoteStore, is_remote, read_whole
from smallcnn.data.split import Split
from smallcnn.data.stored import FileStore, Store, Stored
from smallcnn.errors import DataError, ImageError

_MOST_SHARDS = 100_000
_BRACES = re.compile(r"\{(\d{1,18})\.\.(\d{1,18})\}")


def is_shards(source: str) -> bool:
    """Whether `source` is a folder with an index, an index, its address, or a pattern such as x-{000..009}.tar."""
    if _BRACES.search(source) or (is_remote(source) and NAME in source):
        return True
    path = Path(source)
    return (path / NAME).is_file() or (path.name == NAME and path.is_file())


def read_shards(source: str) -> tuple[tuple[str, ...], dict[str, Split], list[str]]:
    """(class names, parts, what is wrong with the shards: one line each). Raises DataError or FileError."""
    notes: list[str] = []
    remote = is_remote(source)
    if _BRACES.search(source):
        urls = _expand(source)
        index = _scanned(urls, notes)
        places = dict(zip((shard.file for shard in index.parts["train"]), urls, strict=True))
    else:
        path = Path(source) / NAME if Path(source).is_dir() else Path(source)
        index = Index.from_json(read_whole(source) if remote else path.read_bytes(), source)
        files = [shard.file for shards in index.parts.values() for shard in shards]
        places = {file: source.replace(NAME, file) if remote else str(path.with_name(file)) for file in files}
    splits = {}
    for part, shards in index.parts.items():
        images: list[Stored] = []
        for shard in shards:
            store = _store(places[shard.file], shard, notes)
            crcs: Sequence[int | None] = shard.crc32 or [None] * len(shard.names)
            columns = zip(shard.offsets, shard.sizes, shard.names, crcs, strict=True)
            images += [Stored(store, at, size, f"{shard.file}/{name}", crc) for at, size, name, crc in columns]
        labels = np.array([label for shard in shards for label in shard.labels], np.int64)
        split = Split(images, labels, [name for shard in shards for name in shard.names])
        splits[part] = split if remote else _as_in_a_folder(split)
    return index.classes, splits, notes


def _as_in_a_folder(split: Split) -> Split:
    """The pictures by class and name, so that a run is the same on them as on the folder they come from."""
    return split.subset(sorted(range(len(split)), key=lambda i: (split.labels[i], split.names[i])))


def _store(place: str, shard: Shard, notes: list[str]) -> Store:
    """Where a shard's pictures are read from; what can be seen to be wrong with it without reading it is noted."""
    if is_remote(place):
        return RemoteStore(place, shard.bytes or None, shard.sha256 or None)
    store = FileStore(Path(place), shard.bytes)
    if not store.path.is_file():
        if shard.names:
            notes.append(f"{place}: no such file; the pictures in it are missing")
    elif store.path.stat().st_size < shard.bytes:
        notes.append(store.shortened())
    return store


def _expand(pattern: str) -> list[str]:
    """x-{08..11}.tar -> x-08.tar, x-09.tar, x-10.tar, x-11.tar."""
    count = prod(max(0, int(last) - int(first) + 1) for first, last in _BRACES.findall(pattern))
    if count > _MOST_SHARDS:
        raise DataError(f"the pattern of shards means {count:,} files; at most {_MOST_SHARDS:,} are allowed")
    found = _BRACES.search(pattern)
    if not found:
        return [pattern]
    first, last = found.groups()
    numbers = [str(number).zfill(len(first)) for number in range(int(first), int(last) + 1)]
    return [url for number in numbers for url in _expand(pattern[: found.start()] + number + pattern[found.end() :])]


def _scanned(urls: list[str], notes: list[str]) -> Index:
    """The index of shards that come without one, made by going through them once and kept in the cache."""
    if not urls:
        raise DataError("the pattern of shards means no file: its first number is above its last")
    mark = hashlib.sha256()
    for url in urls:
        status = None if is_remote(url) or not Path(url).is_file() else Path(url).stat()
        mark.update(f"{url} {status and (status.st_size, status.st_mtime_ns)}\n".encode("utf-8", "surrogateescape"))
    kept = cache_folder() / "data" / "indexes" / f"{mark.hexdigest()}.json"
    if (known := recalled(kept)) is not None:
        with suppress(DataError):  # damaged: gone through again
            return Index.from_json(known, str(kept))
    shards = [_scan(url, f"{number:06d}.tar", notes) for number, url in enumerate(urls)]
    labels = sorted({label for shard in shards for label in shard.labels})
    if not labels:
        raise DataError(f"{urls[0]}: no pictures with a label (KEY.jpg and KEY.cls) in these shards" + _first(notes))
    if labels[-1] != len(labels) - 1:
        raise DataError(
            f"{urls[0]}: {len(labels)} different labels, the highest {labels[-1]}; they must be 0, 1, ... without gaps"
        )
    index = Index(tuple(map(str, labels)), {"train": shards})
    if not notes:  # else it is gone through again, in case it has been mended
        keep(kept, index.to_json().encode())
    return index


def _first(notes: list[str]) -> str:
    return f" ({notes[0]})" if notes else ""


def _scan(url: str, file: str, notes: list[str]) -> Shard:
    """What is in one shard; what cannot be read of it is noted."""
    pictures: dict[str, tuple[str, int, int]] = {}
    labels: dict[str, int] = {}
    try:
        path = RemoteStore(url).local() if is_remote(url) else Path(url)
        with path.open("rb") as tar:
            for member in tar_members(tar):
                folder, _, base = member.name.rpartition("/")
                stem, _, suffix = base.partition(".")
                key = f"{folder}/{stem}"
                if f".{suffix.lower()}" in SUFFIXES:
                    pictures[key] = member.name, member.offset_data, member.size
                elif suffix == "cls":
                    tar.seek(member.offset_data)
                    labels[key] = int(tar.read(member.size))
    except (tarfile.TarError, OSError, EOFError, ValueError, ImageError) as error:
        why = getattr(error, "strerror", None) or " ".join(str(error).split())
        why = why if isinstance(error, ImageError) else f"{url}: {why}"
        notes.append(f"{why}; of this shard {len(pictures.keys() & labels.keys())} pictures are used")
    keys = [key for key in pictures if key in labels]
    names, offsets, sizes = (
        (list(column) for column in zip(*(pictures[key] for key in keys), strict=True)) if keys else ([], [], [])
    )
    size = 0 if is_remote(url) or not Path(url).is_file() else Path(url).stat().st_size
    return Shard(file, size, "", names, [labels[key] for key in keys], offsets, sizes, [])
