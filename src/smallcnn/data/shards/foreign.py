"""Shards made by other programs in webdataset's format: their images and labels.

The files of a sample share a key. In webdataset the key ends at the first dot of the file name. Keys with dots occur
too (photo.2024.01.jpg with photo.2024.01.cls), so an image takes the label that shares most of its name. Labels are
whole numbers or class names, in KEY.cls (also .class, .label, .target, or these plus .txt), in an entry of KEY.json, or
in KEY.txt if the texts are classes and not captions. The objects that smallcnn writes are read without an index too.
"""

import json
import re
import tarfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from smallcnn.data.archive import LARGEST, all_members, tar_members
from smallcnn.data.boxes import yolo
from smallcnn.data.left_out import is_image_name, is_skipped, kind_of
from smallcnn.data.shards import objects
from smallcnn.data.shards.index import Label

_CLS = ("cls", "class", "label", "target")
_JSON_KEYS = (
    "class_name", "classname", "label_name", "category_name", "cls", "label", "class", "target", "category",
    "class_id", "label_id", "category_id",
)  # fmt: skip
_KINDS = ("cls", "json", "txt")  # kinds of labels; a sample's first one counts
_LARGEST_LABEL = 1 << 20
_LONGEST_NAME = 100  # characters of a class name
_FEW = 20  # up to so many different texts are always classes; more must occur twice on average
_LOOKED_AT = 1000  # files examined to tell a shard from an archive of class folders

OBJECTS = "objects"  # the kind of a sample whose label is the JSON of its objects' rows
NO_LABEL, BAD_LABEL, OTHER_IMAGE = "without a label", "with a bad label", "additional to a sample's image"


@dataclass(frozen=True, slots=True)
class Sample:
    """An image, its place in the shard, and its label as written in a file of this `kind`."""

    name: str
    at: int
    size: int
    label: str
    kind: str


@dataclass
class Scanned:
    """The contents of one shard. `left_out` counts skipped files by kind; `bad` lists unusable labels.

    `problem` is the reason why reading stopped early.
    """

    samples: list[Sample] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    bad: list[str] = field(default_factory=list)
    problem: str = ""

    def keep(self, wanted: Callable[[Sample], bool], otherwise: str) -> None:
        """Drops all other samples, counted as `otherwise`."""
        kept = [sample for sample in self.samples if wanted(sample)]
        self.left_out[otherwise] += len(self.samples) - len(kept)
        self.samples = kept


def is_shard(path: Path) -> bool:
    """Whether a plain tar contains samples rather than class folders or annotations, by its first files."""
    try:
        with path.open("rb") as file:
            members = list(islice(tar_members(file), _LOOKED_AT))
            names = [member.name.removeprefix("./") for member in members]
            if any(_label_stem(name)[1] == "cls" for name in names):
                return True
            images = {_key(name) for name in names if is_image_name(name)}
            labels = [
                (kind, member)
                for name, member in zip(names, members, strict=True)
                if (kind := _label_stem(name)[1]) and _key(name) in images  # one JSON may describe all images
            ]
            return not any("/" in name for name in names) and bool(labels) and not _have_boxes(file, labels)
    except (tarfile.TarError, OSError, EOFError, ValueError, MemoryError, OverflowError):
        return False


def _have_boxes(file: BinaryIO, labels: Sequence[tuple[str, tarfile.TarInfo]]) -> bool:
    """Whether the texts next to the images are YOLO's, by the first that is not empty."""
    for kind, member in labels:
        if kind == "txt" and member.size:
            file.seek(member.offset_data)
            return yolo.is_label(file.read(min(member.size, _LARGEST_LABEL)).decode("utf-8", "replace"))
    return False


def scan(path: Path) -> Scanned:
    """Reads a shard once."""
    found = Scanned()
    group = _Group(path.name)
    try:
        if path.exists() and not path.is_file():
            raise ValueError("not a regular file")
        with path.open("rb") as tar:
            if tar.read(2) in (b"\x1f\x8b", b"BZ", b"\xfd7"):
                raise ValueError("a compressed shard; decompress it, as each image is read from its place in the file")
            for member in all_members(tar):
                if member.name in group.seen:  # another sample with the same key, as in concatenated shards
                    group.close(found)
                    group = _Group(path.name)
                _take(tar, member, group, found)
    except (tarfile.TarError, OSError, EOFError, ValueError, MemoryError, OverflowError) as error:
        found.problem = getattr(error, "strerror", None) or " ".join(str(error).split())
    group.close(found)
    return found


def _take(tar: BinaryIO, member: tarfile.TarInfo, group: "_Group", found: Scanned) -> None:
    """Handles one file of a shard: an image, a label, or one that is only counted."""
    *folders, base = member.name.removeprefix("./").split("/")
    stem, kind = _label_stem(member.name)
    if member.isdir():
        return
    if not member.isreg() or member.issparse():
        found.left_out["special (link, pipe or device)"] += 1
    elif base[:1] == "." or any(map(is_skipped, folders)):
        found.left_out["hidden"] += 1
    elif is_image_name(base) and member.size > LARGEST:
        found.left_out[f"larger than {LARGEST >> 20} MB"] += 1
    elif is_image_name(base):
        group.seen.add(member.name)
        group.images.append((member.name, member.offset_data, member.size))
    elif kind:
        group.seen.add(member.name)
        tar.seek(member.offset_data)
        data = tar.read(member.size) if member.size <= _LARGEST_LABEL else b""
        shown = f"{group.shard}/{member.name}: {data[:40]!r}"
        group.labels[stem][kind] = _Label(_label(data, kind), kind, shown)
        if kind == "json" and (rows := objects.decoded(data)) is not None:
            group.labels[stem][kind] = _Label(json.dumps(rows), OBJECTS, shown)
    else:
        found.left_out[kind_of(base)] += 1


def are_objects(shards: Sequence[Scanned]) -> bool:
    """Whether images are labelled with objects: more of them than with classes."""
    kinds = [sample.kind == OBJECTS for shard in shards for sample in shard.samples]
    return 2 * sum(kinds) > len(kinds)


def resolve(shards: Sequence[Scanned]) -> tuple[tuple[str, ...], Sequence[Sequence[Label]]]:
    """(class names, labels of each shard's samples), after deciding whether the labels are objects, numbers or names.

    Drops samples whose label is then invalid.
    """
    boxes = are_objects(shards)
    for shard in shards:
        shard.keep(lambda sample: (sample.kind == OBJECTS) == boxes, BAD_LABEL)
    if boxes:
        each = [[json.loads(sample.label) for sample in shard.samples] for shard in shards]
        classes, rows = objects.numbered([image for images in each for image in images])
        left = iter(rows)
        return classes, [[next(left) for _ in images] for images in each]
    if not _texts_are_classes(shards):
        for shard in shards:
            shard.keep(lambda sample: sample.kind != "txt", NO_LABEL)
    every = [sample.label for shard in shards for sample in shard.samples]
    numbers = sum(map(_is_number, every)) * 2 > len(every)
    if numbers:
        for shard in shards:
            shard.bad += [f"{one.name}: {one.label!r}" for one in shard.samples if not _is_number(one.label)]
            shard.keep(lambda sample: _is_number(sample.label), BAD_LABEL)
        every = sorted({str(int(sample.label)) for shard in shards for sample in shard.samples}, key=int)
    names = every if numbers else sorted(set(every))
    place = {name: i for i, name in enumerate(names)}
    labels = [
        [place[str(int(sample.label)) if numbers else sample.label] for sample in shard.samples] for shard in shards
    ]
    return tuple(names), labels


def _texts_are_classes(shards: Sequence[Scanned]) -> bool:
    """Whether .txt files contain labels, not captions: most images have one, and few of them differ."""
    texts = [sample.label for shard in shards for sample in shard.samples if sample.kind == "txt"]
    many = 2 * len(texts) > sum(len(shard.samples) for shard in shards)
    return many and len(set(texts)) <= max(_FEW, len(texts) // 2) and max(map(len, texts)) <= _LONGEST_NAME


def _is_number(label: str) -> bool:
    return re.fullmatch(r"\+?\d{1,9}", label, re.ASCII) is not None  # -1 means no label


@dataclass(frozen=True, slots=True)
class _Label:
    """A label, None if invalid; `shown` is the file's name and first bytes."""

    value: str | None
    kind: str
    shown: str


class _Group:
    """Images and labels that may belong together."""

    def __init__(self, shard: str) -> None:
        self.shard = shard
        self.seen: set[str] = set()
        self.images: list[tuple[str, int, int]] = []
        self.labels: dict[str, dict[str, _Label]] = defaultdict(dict)  # by stem, then kind

    def close(self, found: Scanned) -> None:
        """Adds the labelled images to `found`, in file order."""
        by_key: dict[str, list[str]] = defaultdict(list)
        for stem in self.labels:
            by_key[_key(stem)].append(stem)
        label_of: dict[int, _Label] = {}
        sharing: dict[str, list[tuple[int, int]]] = defaultdict(list)  # stem of a label -> (dots between, image)
        for i, (name, _, _) in enumerate(self.images):
            candidates = [
                (label, between, stem)
                for between, stem in enumerate(self._stems(name, by_key))
                for label in (self.labels[stem][kind] for kind in _KINDS if kind in self.labels.get(stem, ()))
            ]
            good = next((candidate for candidate in candidates if candidate[0].value is not None), None)
            if good:
                label_of[i], between, stem = good
                sharing[stem].append((between, i))
            elif candidates:
                found.left_out[BAD_LABEL] += 1
                found.bad.append(candidates[0][0].shown)
            else:
                found.left_out[NO_LABEL] += 1
        kept = sorted(i for images in sharing.values() for i in self._of_one_kind(images))
        found.left_out[OTHER_IMAGE] += len(label_of) - len(kept)
        found.samples += [Sample(*self.images[i], label_of[i].value or "", label_of[i].kind) for i in kept]

    def _stems(self, name: str, by_key: dict[str, list[str]]) -> Iterator[str]:
        """Possible stems of an image's label, most likely first: photo.2024.01.jpg, photo.2024.01, ..."""
        stem = name
        while True:
            yield stem
            if stem == _key(name):
                break
            stem = stem.rpartition(".")[0]
        if len(longer := by_key.get(stem, [])) == 1:  # 0001.jpg with 0001.target.cls
            yield longer[0]

    def _of_one_kind(self, images: list[tuple[int, int]]) -> set[int]:
        """Of images sharing a label, those named most like it and of one suffix, since a mask has another suffix."""
        nearest = min(between for between, _ in images)
        rest = [i for between, i in images if between == nearest]
        suffixes = [self.images[i][0].rpartition(".")[2].lower().replace("jpeg", "jpg") for i in rest]
        suffix = "jpg" if "jpg" in suffixes else suffixes[0]
        return {i for i, one in zip(rest, suffixes, strict=True) if one == suffix}


def _key(name: str) -> str:
    """webdataset's key: the path up to the first dot of the file name."""
    folder, slash, base = name.rpartition("/")
    return folder + slash + base.partition(".")[0]


def _label_stem(name: str) -> tuple[str, str]:
    """(name without its label suffix, kind of label); the kind is empty if the file is not a label."""
    stem, _, suffix = name.rpartition(".")
    suffix = suffix.lower()
    if suffix == "txt" and stem.rpartition(".")[2].lower() in _CLS:
        return stem.rpartition(".")[0], "cls"
    return stem, "cls" if suffix in _CLS else suffix if suffix in ("json", "txt") else ""


def _label(data: bytes, kind: str) -> str | None:
    """The label in a file, as text; None if there is no valid one."""
    try:
        value: Any = data.decode("utf-8-sig").strip()
        if kind == "json":
            value = json.loads(value)
            if isinstance(value, dict):
                value = next((value[key] for key in _JSON_KEYS if key in value), None)
            if isinstance(value, bool) or not isinstance(value, int | str):
                return None
            value = str(value).strip()
    except (ValueError, RecursionError):
        return None
    return value if value and value.isprintable() and (kind == "txt" or len(value) <= _LONGEST_NAME) else None
