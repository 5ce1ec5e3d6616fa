"""Recognises annotations of objects by content, and makes a data set of them.

The formats are tried in a fixed order, and the first that the set has counts; programs often write several. An image
belongs to the split that the annotations say, by name, by folder or by list. If none does, all are for training.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from smallcnn.data.boxes import coco, table, voc, yolo
from smallcnn.data.boxes.annotations import Annotated, Annotations, Faults, listed
from smallcnn.data.boxes.check import checked
from smallcnn.data.boxes.files import Files
from smallcnn.data.left_out import is_annotation_name, is_image_name
from smallcnn.data.listing import Listing
from smallcnn.data.split import Split
from smallcnn.data.targets import CLASS, Boxes
from smallcnn.data.tree import DEEPEST, Folder, around
from smallcnn.errors import DataError
from smallcnn.image.header import read_headers
from smallcnn.tasks.detection import Detection
from smallcnn.tasks.labels import LONGEST

_FORMATS = (coco.read, voc.read, yolo.read, table.read)
_SPLITS = ("train", "val", "test")


def read(given: Folder, only: str | None = None) -> Listing | None:
    """Reads the images of a folder with the annotations of objects in it; None if there are none.

    `only` is the name of the one annotation file to use. Raises DataError if the annotations cannot be used.
    """
    root = given if only else _inside(given)
    before = dict(given.left_out.files)
    files = Files(root, only)
    found = next((found for one in _FORMATS if (found := one(files)) is not None), None) if files.others else None
    if found is None:
        given.left_out.files.clear()
        given.left_out.files.update(before)
        return None
    for name in found.used:
        root.left_out.files.pop(files.path(name), None)
    return _listing(files, found, around(given, root))


def _inside(given: Folder) -> Folder:
    """`given`, or the only folder in it, as deep as there is nothing else that could belong to the set."""
    here = given
    for _ in range(DEEPEST):
        folders = here.folders()
        if len(folders) != 1 or any(is_image_name(path.name) or is_annotation_name(path.name) for path in here.loose()):
            break
        here = folders[0]
    return here


def _listing(files: Files, found: Annotations, notes: list[str]) -> Listing:
    path = files.root.path
    mended, faults = Faults(), Faults()
    images = _each_once(found.images, mended)
    if not images:
        missing = "; ".join(found.notes) or "the annotations list none"
        raise DataError(f"{path}: no images with annotations ({missing})")
    if long := [label for label in found.labels if len(label) > LONGEST]:
        raise DataError(f"{path}: a class has a name of {len(long[0]):,} characters; at most {LONGEST:,} are allowed")
    images = _with_splits(images, mended)
    targets = checked(images, read_headers([files.images[image.name] for image in images]), mended, faults)
    if faults:
        raise DataError(f"{path}: {'; '.join(faults.lines())}")
    described = {image.name for image in images} | {image.name for image in found.images}
    for name in files.images:
        if name not in described:
            files.root.left_out.file(files.path(name), "without annotations")
    notes = [*notes, *found.notes, *(f"{path}: {line}" for line in mended.lines()), *_unused(found.labels, targets)]
    splits = {}
    for split in _SPLITS:
        if own := [index for index, image in enumerate(images) if image.split == split]:
            names = [images[index].name for index in own]
            splits[split] = Split([files.images[name] for name in names], _tight(targets.take(own)), names)
    return Listing(Detection(found.labels), splits, files.root.left_out, tuple(notes), _untrainable(path, splits))


def _untrainable(path: object, splits: dict[str, Split]) -> str:
    train = splits.get("train")
    empty = train is not None and isinstance(train.targets, Boxes) and not len(train.targets.rows)
    return f"{path}: no boxes to train on" if empty else ""


def _tight(boxes: Boxes) -> Boxes:
    """The same with no more room per image than this split needs."""
    return replace(boxes, most=max([1, *boxes.counts.tolist()]))


def _each_once(images: Sequence[Annotated], notes: Faults) -> list[Annotated]:
    """The images sorted by name, each once with all its objects, in the last of its splits."""
    found: dict[str, Annotated] = {}
    for image in images:
        other = found.setdefault(image.name, image)
        if other is image:
            continue
        split = max(image.split, other.split, key=("", *_SPLITS).index)
        if image.split != other.split:
            notes.add(f"images annotated for several splits, kept in {split}", image.name)
        rows = np.concatenate([other.rows, image.rows])
        found[image.name] = Annotated(image.name, rows, other.size or image.size, split)
    return [found[name] for name in sorted(found)]


def _with_splits(images: list[Annotated], notes: Faults) -> list[Annotated]:
    """The images that are in a split; all are in train if the set has no splits."""
    named = {image.split for image in images} - {""}
    if not named:
        return [replace(image, split="train") for image in images]
    for image in images:
        if not image.split:
            notes.add("annotated images in no split, not used", image.name)
    return [image for image in images if image.split]


def _unused(labels: Sequence[str], boxes: Boxes) -> list[str]:
    """A line on the classes without a box."""
    counts = Counter(boxes.rows[:, CLASS].astype(int).tolist())
    without = [label for number, label in enumerate(labels) if not counts[number]]
    return [f"classes without a box: {len(without)} of {len(labels)} ({listed(without)})"] if without else []
