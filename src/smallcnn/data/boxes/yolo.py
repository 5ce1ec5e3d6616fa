"""YOLO's text: a file per image, a line per object, sides in fractions of the image.

    labels/train/a.txt      class x_centre y_centre width height       one line per object
    images/train/a.jpg      data.yaml, obj.names or classes.txt        names of the classes

The text may also lie next to its image, or anywhere under the same name. A line of class x y x y x y ... is an outline,
as Ultralytics writes for segmentation and oriented boxes; its box is the one around it. A sixth number, the score of a
prediction, is ignored. An image without a text file was not labelled; one with an empty file has no objects.
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from math import nan
from pathlib import PurePosixPath

import numpy as np

from smallcnn.data.boxes.annotations import Annotated, Annotations, Faults, split_of_folder
from smallcnn.data.boxes.files import Files
from smallcnn.data.boxes.names import Description, describe, is_list_of_names
from smallcnn.data.boxes.units import in_pixels
from smallcnn.data.left_out import is_image_name
from smallcnn.data.targets import CROWD, PLAIN
from smallcnn.errors import DataError

_LARGEST = 16 << 20
_LONGEST = 4096  # characters of a line that are looked at
_LOOKED_AT = 100  # files that decide whether a set has labels of this kind
_KINDS = {
    "images", "image", "imgs", "img", "jpegimages", "labels", "label", "annotations", "annotation", "txt",
}  # fmt: skip
_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|[+-]?(?:nan|inf)"
_LINE = re.compile(rf"\s*(?:{_NUMBER})(?:\s+(?:{_NUMBER})){{4,}}\s*", re.ASCII | re.IGNORECASE)


def is_label(text: str) -> bool:
    """Whether a text has YOLO's lines: half of its first ones, and at least one, have a class and a box or outline."""
    lines = [line for line in text.splitlines()[:10] if line.strip()]
    fitting = sum(_fits(line[:_LONGEST]) for line in lines)
    return fitting > 0 and 2 * fitting >= len(lines)


def _fits(line: str) -> bool:
    """Whether a line is a class number and four numbers, perhaps a score, or more that are fractions."""
    if not _LINE.fullmatch(line):
        return False
    label, *values = map(float, line.split())
    return label % 1 == 0 and (len(values) < 6 or not in_pixels(np.array([values])))


def read(files: Files) -> Annotations | None:
    """What the set's YOLO files say; None if it has none. Raises DataError for lines that cannot be read."""
    texts = [name for name in files.named(".txt") if not is_list_of_names(name)]
    if not texts or not files.images:
        return None
    image_of = _images(files, texts)
    if not image_of or not _are_labels(files, image_of):
        return None
    faults, notes = Faults(), Faults()
    described = describe(files)
    split_of, lists = _splits(files, texts, described)
    rows = {name: _rows(_text(files, name), name, described.points, faults) for name in image_of}
    for name in texts:
        if name not in image_of and name not in lists and is_label(_text(files, name)):
            notes.add("label files without an image", name)
            lists.append(name)
    numbers = np.unique(np.concatenate([own[:, 0] for own in rows.values()]))
    lines = notes.lines()
    if described.names:
        for name, own in rows.items():
            unknown = own[~np.isin(own[:, 0], list(described.names)), 0]
            faults.add("objects of a class without a name", f"{name}: class {max(unknown, default=0):g}", len(unknown))
        order = sorted(described.names)
        labels = [described.names[number] for number in order]
    else:
        order = [int(number) for number in numbers if number == int(number)]
        labels = [str(number) for number in order]
        lines.append(f"{files.root.path}: no names of classes (data.yaml, obj.names or classes.txt): they are numbers")
    if faults:
        raise DataError(f"{files.root.path}: {'; '.join(faults.lines())}")
    place = {name: index for index, name in enumerate(dict.fromkeys(labels))}
    label_of = {number: place[label] for number, label in zip(order, labels, strict=True)}
    size = None if in_pixels(np.concatenate([own[:, 1:] for own in rows.values()])) else (1.0, 1.0)
    images, listed = list[Annotated](), set(split_of.values())
    for name, image in image_of.items():
        folder = split_of_folder(image)
        split = split_of.get(image, "" if folder in listed else folder)
        images.append(Annotated(image, _columns(rows[name], label_of), size, split))
    return Annotations(tuple(place), images, [*image_of, *described.files, *lists], lines)


def write(rows: np.ndarray, size: tuple[int, int]) -> str:
    """The boxes (n, 7) of an image of `size` (width, height); several objects in one (crowd) have no place in YOLO."""
    lines = []
    for left, top, right, bottom, label, _, flag in rows.tolist():
        if flag != CROWD:
            places = (left + right) / 2 / size[0], (top + bottom) / 2 / size[1]
            extent = (right - left) / size[0], (bottom - top) / size[1]
            lines.append(" ".join([f"{label:.0f}", *(f"{value:.12g}" for value in (*places, *extent))]) + "\n")
    return "".join(lines)


def _text(files: Files, name: str) -> str:
    return files.read(name, _LARGEST).decode("utf-8-sig", "replace")


def _images(files: Files, texts: Sequence[str]) -> dict[str, str]:
    """Text file -> its image: the one at the same place but for images/ and labels/, else the only one so called."""
    by_key = defaultdict[str, list[str]](list)
    for image in files.images:
        by_key[_key(image)].append(image)
    found: dict[str, str] = {}
    taken: set[str] = set()
    for name in texts:
        images = by_key.get(_key(name), [])
        found |= {name: images[0]} if images else {}
        taken |= set(images[:1])
    for name in texts:
        if name not in found:
            images = files.find(f"{name[:-4]}.jpg", name, split_of_folder(name))
            same = [PurePosixPath(one).stem.casefold() for one in (name, *images)]
            if len(images) == 1 and images[0] not in taken and same[0] == same[1]:
                found[name] = images[0]
    return dict(sorted(found.items()))


def _key(name: str) -> str:
    *folders, base = name.split("/")
    kept = [folder for folder in folders if folder.casefold() not in _KINDS]
    return "/".join([*kept, base.rpartition(".")[0]])


def _are_labels(files: Files, image_of: Mapping[str, str]) -> bool:
    """Whether most of the texts that lie by an image and are not empty have YOLO's lines."""
    said = [is_label(text) for name in [*image_of][:_LOOKED_AT] if (text := _text(files, name)).strip()]
    if not said and len(image_of) > _LOOKED_AT:
        said = [is_label(text) for name in image_of if (text := _text(files, name)).strip()]
    return 2 * sum(said) > len(said) if said else bool(describe(files).names)


def _rows(text: str, name: str, points: bool, faults: Faults) -> np.ndarray:
    """Class number, left, top, right, bottom of every line (n, 5)."""
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words:
            continue
        try:
            label, *values = map(float, words)
        except ValueError:
            values = []
        outline = len(values) > 5 and len(values) % 2 == 0 and not points
        if len(values) < 4 or not (len(values) < 6 or outline or points) or not abs(label) < 1e9 or label != int(label):
            faults.add("lines that are not 'class x y width height'", f"{name}, line {number}")
        elif outline:
            across, along = values[::2], values[1::2]
            rows.append((label, min(across), min(along), max(across), max(along)))
        else:
            x, y, width, height = values[:4]
            rows.append((label, x - width / 2, y - height / 2, x + width / 2, y + height / 2))
    return np.array(rows, np.float64).reshape(-1, 5)


def _columns(rows: np.ndarray, label_of: Mapping[int, int]) -> np.ndarray:
    """(n, 5) as read -> the columns of `Boxes` (n, 7)."""
    labels = [label_of[int(number)] for number in rows[:, 0]]
    rest = np.tile([nan, PLAIN], (len(rows), 1))
    return np.concatenate([rows[:, 1:], np.array(labels, np.float64).reshape(-1, 1), rest], 1)


def _splits(files: Files, texts: Sequence[str], described: Description) -> tuple[dict[str, str], list[str]]:
    """Image -> its split by data.yaml, obj.data or lists of images (train.txt), and the names of these lists.

    An image in the lists of two splits is in the later one: the others are in no place where they would be trained on.
    """
    lists = [name for name in texts if _is_list(files, name)]
    split_of: dict[str, str] = {}
    for split in ("train", "val", "test"):
        places = described.places.get(split) or [
            name for name in lists if PurePosixPath(name).stem.lower() in ("valid" if split == "val" else split, split)
        ]
        for place in places:
            split_of |= dict.fromkeys(_at(files, place, lists), split)
    if len(set(split_of.values())) < 2 and any(split_of_folder(name) for name in files.images):
        return {}, lists  # data.yaml with a single place, for a set whose folders say more
    return split_of, lists


def _is_list(files: Files, name: str) -> bool:
    first = files.peek(name).decode("utf-8-sig", "replace").strip().partition("\n")[0].strip()
    return bool(first) and is_image_name(first)


def _at(files: Files, place: str, lists: Sequence[str]) -> list[str]:
    """The images at a place that data.yaml names: in a folder, or in a list of images."""
    wanted = [step for step in place.replace("\\", "/").split("/") if step not in ("", ".", "..")]
    if wanted and wanted[-1].lower().endswith(".txt"):
        named = [name for name in lists if name.split("/")[-1] == wanted[-1]]
        lines = [line.strip() for name in named[:1] for line in _text(files, name).splitlines()]
        return [images[0] for line in lines if line and len(images := files.find(line, named[0])) == 1]
    for start in range(len(wanted)):  # the longest end of the place that is a folder of the set
        folder = "/".join(wanted[start:]) + "/"
        if images := [name for name in files.images if name.startswith(folder)]:
            return images
    return []
