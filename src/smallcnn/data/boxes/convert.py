"""Writes a set of images with boxes in another format: the images unchanged, and annotations as that format has them.

    coco    train/*.jpg  annotations/instances_train.json
    voc     JPEGImages/*.jpg  Annotations/*.xml  ImageSets/Main/train.txt
    yolo    images/train/*.jpg  labels/train/*.txt  data.yaml

Images keep their names if no two differ by folder or suffix alone; else the folders go into the name.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from secrets import token_hex
from shutil import rmtree

import numpy as np

from smallcnn.data.archive import File, content
from smallcnn.data.boxes import coco, voc, yolo
from smallcnn.data.boxes.counting import boxes_of
from smallcnn.data.split import Split
from smallcnn.data.targets import CROWD, DIFFICULT, FLAG, PLAIN
from smallcnn.errors import DataError, ImageError, WriteError
from smallcnn.image.header import read_header
from smallcnn.system.files import make_folder

FORMATS = ("coco", "voc", "yolo")

_FOLDERS = {"coco": "{split}", "voc": "JPEGImages", "yolo": "images/{split}"}
_UNSAFE = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f\ud800-\udfff]')  # in a name on some system


def convert(
    splits: Mapping[str, Split],
    labels: Sequence[str],
    out: Path,
    form: str,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> list[str]:
    """Writes the splits of `Boxes` in one of the `FORMATS` into the folder `out`; returns notes on what it cannot hold.

    The folder has its name once all is written. `report` is called with the number of images done and the total. Raises
    DataError if an image cannot be read, a label cannot be written, or `out` is not empty, FileError if `out` cannot be
    written.
    """
    if form not in FORMATS:
        raise DataError(f"no format {form!r}; known: {', '.join(FORMATS)}")
    boxes = [boxes_of(split) for split in splits.values()]
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out} is not an empty folder; choose another --out")
    made = out.with_name(f".{out.name}.{token_hex(4)}.part")
    make_folder(made)
    try:
        _fill(made, splits, labels, form, report)
        if out.exists():  # Windows replaces no folder
            out.rmdir()
        made.rename(out)
    except OSError as error:
        raise WriteError(f"cannot write {out}: {error.strerror or error}") from error
    finally:
        rmtree(made, ignore_errors=True)
    return _lost(form, np.concatenate([each.rows[:, FLAG] for each in boxes]))


def _fill(
    out: Path,
    splits: Mapping[str, Split],
    labels: Sequence[str],
    form: str,
    report: Callable[[int, int], None],
) -> None:
    """Writes images and annotations."""
    total, done, first = sum(map(len, splits.values())), 0, 1
    names = iter(_names([name for split in splits.values() for name in split.names]))
    for key, split in splits.items():
        folder = out / _FOLDERS[form].format(split=key)
        own = [next(names) for _ in range(len(split))]
        sizes = []
        for image, name in zip(split.images, own, strict=True):
            sizes.append(_copy(image, folder / name))
            done += 1
            report(done, total)
        for file, text in _annotations(form, key, split, labels, own, sizes, first):
            _write(out / file, text.encode("utf-8"))
        first += len(split)
    if form == "yolo":
        _write(out / "data.yaml", _yaml(list(splits), labels).encode())


def _annotations(
    form: str,
    key: str,
    split: Split,
    labels: Sequence[str],
    names: Sequence[str],
    sizes: Sequence[tuple[int, int]],
    first: int,
) -> list[tuple[str, str]]:
    """The annotation files of a split, as name and text."""
    if form == "coco":
        return [(f"annotations/instances_{key}.json", coco.write(split, labels, sizes, names, first))]
    images = list(zip(names, boxes_of(split).each(), sizes, strict=True))
    stems = [PurePosixPath(name).stem for name in names]
    if form == "yolo":
        texts = [yolo.write(rows, size) for _, rows, size in images]
        return [(f"labels/{key}/{stem}.txt", text) for stem, text in zip(stems, texts, strict=True)]
    texts = [voc.write(rows, labels, size, name) for name, rows, size in images]
    files = [(f"Annotations/{stem}.xml", text) for stem, text in zip(stems, texts, strict=True)]
    return [*files, (f"ImageSets/Main/{key}.txt", "".join(f"{stem}\n" for stem in stems))]


def _yaml(splits: Sequence[str], labels: Sequence[str]) -> str:
    """Ultralytics' description of a set; JSON's strings are YAML's."""
    lines = ["path: .", *(f"{key}: images/{key}" for key in splits), f"nc: {len(labels)}", "names:"]
    return "\n".join([*lines, *(f"  {number}: {json.dumps(label)}" for number, label in enumerate(labels))]) + "\n"


def _lost(form: str, flags: np.ndarray) -> list[str]:
    """A note on the flags that a format does not have."""
    crowds, difficult = int((flags == CROWD).sum()), int((flags == DIFFICULT).sum())
    if form == "voc" and crowds:
        return [f"VOC has no crowds: {crowds:,} are written as difficult"]
    if form == "yolo" and (flags != PLAIN).any():
        return [f"YOLO has no flags: {crowds:,} crowds are not written, {difficult:,} difficult objects are as others"]
    return []


def _copy(image: File, to: Path) -> tuple[int, int]:
    """Copies an image; (width, height) when upright."""
    try:
        whole = content(image)
        size = read_header(whole).upright
    except (OSError, ImageError) as error:
        raise DataError(f"{error!s}; remove or repair it") from error
    _write(to, whole)
    return size


def _write(path: Path, content: bytes) -> None:
    """Writes one of very many files."""
    make_folder(path.parent)
    path.write_bytes(content)


def _names(names: Sequence[str]) -> list[str]:
    """Names of files in one folder, whose stems all differ."""
    plain = [_UNSAFE.sub("_", name.rpartition("/")[2]) for name in names]
    counts = Counter(PurePosixPath(name).stem.casefold() for name in plain)
    taken: set[str] = set()
    found = []
    for name, short in zip(names, plain, strict=True):
        chosen = short if counts[PurePosixPath(short).stem.casefold()] == 1 else _UNSAFE.sub("_", name)
        path, number = PurePosixPath(chosen), 2
        while PurePosixPath(chosen).stem.casefold() in taken:
            chosen = f"{path.stem}-{number}{path.suffix}"
            number += 1
        taken.add(PurePosixPath(chosen).stem.casefold())
        found.append(chosen)
    return found
