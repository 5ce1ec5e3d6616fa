"""COCO's JSON: annotations of one or several splits.

    {"images": [{"id": 7, "file_name": "a.jpg", "width": 640, "height": 480}],
     "categories": [{"id": 1, "name": "cat", "supercategory": "animal"}],
     "annotations": [{"image_id": 7, "category_id": 1, "bbox": [left, top, width, height], "area": 5, "iscrowd": 0}]}

The format's definition is at https://cocodataset.org/#format-data. Any number of such files may describe a set. The
name of a file, or of its folder, says the split (instances_train2017.json, valid/_annotations.coco.json).
"""

import json
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from math import isfinite, nan
from typing import Any

import numpy as np

from smallcnn.data.boxes.annotations import Annotated, Annotations, Faults, Labels, listed, shown, split_of_file, stated
from smallcnn.data.boxes.counting import boxes_of
from smallcnn.data.boxes.files import Files
from smallcnn.data.split import Split
from smallcnn.data.targets import CROWD, DIFFICULT, PLAIN
from smallcnn.errors import DataError

_LISTS = ("images", "annotations", "categories")
_NOWHERE = (nan, nan, nan, nan)


def read(files: Files) -> Annotations | None:
    """What the set's COCO files say; None if it has none. Raises DataError for a file that contradicts itself."""
    begun = [name for name in files.named(".json") if _has(files.peek(name), any)]
    found = {name: content for name in begun if _has(content := files.read(name), all)}
    if not found:
        return None
    notes, labels, images = Faults(), Labels(), list[Annotated]()
    lines: list[str] = []
    chosen = _chosen(list(found))
    if unused := [name for name in found if name not in chosen]:
        lines.append(f"annotations that repeat others are not used: {listed(unused)}")
    used = []
    for name in chosen:
        parsed = _parsed(found.pop(name), files, name)
        if parsed is not None:
            one = _File(files, name, parsed, labels, notes)
            images += one.images
            lines += one.lines
            used.append(name)
    return Annotations(labels.names, images, used, [*lines, *notes.lines()]) if used else None


def write(
    split: Split, labels: Sequence[str], sizes: Sequence[tuple[int, int]], names: Sequence[str], first: int
) -> str:
    """A split of `Boxes` as COCO annotations; images have the `names` and `sizes` (width, height), ids from `first`."""
    images, annotations = list[dict[str, Any]](), list[dict[str, Any]]()
    for number, (name, (width, height), rows) in enumerate(
        zip(names, sizes, boxes_of(split).each(), strict=True), first
    ):
        images.append({"id": number, "file_name": name, "width": width, "height": height})
        for left, top, right, bottom, label, area, flag in rows.tolist():
            annotation = {
                "id": len(annotations) + 1, "image_id": number, "category_id": int(label) + 1,
                "bbox": [left, top, right - left, bottom - top], "area": area, "iscrowd": int(flag == CROWD),
            }  # fmt: skip
            annotations.append(annotation | ({"ignore": 1} if flag == DIFFICULT else {}))
    categories = [{"id": number, "name": name, "supercategory": "object"} for number, name in enumerate(labels, 1)]
    return json.dumps({"images": images, "annotations": annotations, "categories": categories}, allow_nan=False)


def _has(content: bytes, which: Callable[[Iterable[bool]], bool]) -> bool:
    """Whether a JSON file has any or all of the three lists, before it is parsed."""
    return which(f'"{key}"'.encode() in content for key in _LISTS)


def _chosen(names: list[str]) -> list[str]:
    """The files to use: COCO has the same images in captions_, person_keypoints_ and instances_ files."""
    instances = [name for name in names if _base(name).startswith("instances")]
    names = instances or names
    by_split = [name for name in names if split_of_file(name)]
    return by_split or names  # one with all images may lie next to those of the splits


def _base(name: object) -> str:
    return str(name).replace("\\", "/").rpartition("/")[2]


def _parsed(content: bytes, files: Files, name: str) -> dict[str, list[dict[str, Any]]] | None:
    """The three lists; None if the file has no boxes (panoptic segmentation). Raises DataError."""

    def lean(fields: dict[str, Any]) -> dict[str, Any]:
        if fields.get("bbox"):
            fields.pop("segmentation", None)  # most of a large file
        return fields

    try:
        fields = json.loads(content, object_hook=lean)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{files.path(name)}: not JSON ({' '.join(str(error).split())[:100]})") from error
    lists: dict[str, list[dict[str, Any]]] = {}
    for key in _LISTS:
        entries = fields.get(key) if isinstance(fields, dict) else None
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise DataError(f"{files.path(name)}: not COCO annotations: its {key} are not a list of objects")
        lists[key] = entries
    panoptic = lists["annotations"] and all("segments_info" in entry for entry in lists["annotations"])
    return None if panoptic else lists


class _File:
    """One COCO file: its `images`, and `lines` about it."""

    def __init__(
        self, files: Files, name: str, lists: Mapping[str, list[dict[str, Any]]], labels: Labels, notes: Faults
    ):
        self._files, self._name, self._notes, self._faults = files, name, notes, Faults()
        self.lines: list[str] = []
        used = {_id(entry.get("category_id")) for entry in lists["annotations"]}
        numbers = self._categories(lists["categories"], used, labels)
        ids, listed_images = self._entries(lists["images"])
        rows, of = self._rows(lists["annotations"], numbers, ids)
        self.images = self._resolved(listed_images, rows, of)
        if self._faults:
            raise DataError(f"{files.path(name)}: {'; '.join(self._faults.lines())}")

    def _categories(self, entries: list[dict[str, Any]], used: set[Hashable], labels: Labels) -> dict[Hashable, int]:
        """Category id -> label."""
        above = {entry.get("supercategory") for entry in entries if isinstance(entry.get("supercategory"), str)}
        names: dict[Hashable, str] = {}
        for entry in entries:
            key, name = _id(entry.get("id")), entry.get("name")
            name = "" if name is None else str(name).strip()
            if key is None or not name:
                self._faults.add("categories without an id or a name", self._name)
            elif names.setdefault(key, name) != name:
                self._faults.add("category ids with two names", f"{key}: {names[key]}, {name}")
        order = sorted(names, key=lambda key: (isinstance(key, str), key))
        found = {}
        for key in order:
            if key not in used and names[key] in above:  # as Roboflow writes: the name of the set, with id 0
                self.lines.append(
                    f"{self._files.path(self._name)}: category {shown(names[key])!r} is above others and has no boxes: "
                    "not a class"
                )
            else:
                found[key] = labels.number(names[key])
        return found

    def _entries(self, entries: list[dict[str, Any]]) -> tuple[dict[Hashable, int], list[tuple[str, Any]]]:
        """Image id -> place in a list of file names and sizes, in which each file is once."""
        places: dict[str, int] = {}
        ids: dict[Hashable, int] = {}
        found: list[tuple[str, Any]] = []
        for entry in entries:
            key, name = _id(entry.get("id")), entry.get("file_name")
            if key is None or not isinstance(name, str) or not name:
                self._faults.add("images without an id or a file_name", self._name)
                continue
            place = places.setdefault(name, len(found))
            if place == len(found):
                found.append((name, stated(_number(entry.get("width")), _number(entry.get("height")))))
            if ids.setdefault(key, place) != place:
                self._faults.add("image ids of two files", f"{key}: {found[ids[key]][0]}, {name}")
        return ids, found

    def _rows(
        self, entries: list[dict[str, Any]], numbers: dict[Hashable, int], ids: dict[Hashable, int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """All boxes (B, 7), and the place of each one's image (B,)."""
        rows, of = [], []
        for entry in entries:
            place, label = ids.get(_id(entry.get("image_id"))), numbers.get(_id(entry.get("category_id")))
            if label is None:
                self._faults.add("boxes of a category that is not listed", str(entry.get("category_id"))[:100])
            elif place is None:
                self._notes.add("boxes of an image that is not listed", f"image_id {str(entry.get('image_id'))[:100]}")
            else:
                flag = CROWD if entry.get("iscrowd") else DIFFICULT if entry.get("ignore") else PLAIN
                rows.append((*_sides(entry), label, _number(entry.get("area")), flag))
                of.append(place)
        return np.array(rows, np.float64).reshape(-1, 7), np.array(of, np.int64)

    def _resolved(self, entries: list[tuple[str, Any]], rows: np.ndarray, of: np.ndarray) -> list[Annotated]:
        split = split_of_file(self._name)
        order = np.argsort(of, kind="stable")
        each = np.split(rows[order], np.cumsum(np.bincount(of, minlength=len(entries)))[:-1]) if entries else []
        names = self._files.resolve([name for name, _ in entries], self._name, split, self._faults, self._notes)
        return [
            Annotated(name, own, size, split)
            for name, own, (_, size) in zip(names, each, entries, strict=True)
            if name is not None
        ]


def _id(value: object) -> Hashable:
    """An id as it compares: 1, 1.0 and "1" are the same."""
    if isinstance(value, str):
        return int(value) if value.isascii() and value.isdigit() and len(value) < 19 else value
    if isinstance(value, float) and isfinite(value) and value == int(value):
        return int(value)
    return value if isinstance(value, int) else None


def _number(value: object) -> float:
    """A number as JSON or as text; NaN if it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return nan
    try:
        return float(value)
    except (ValueError, OverflowError):
        return nan


def _sides(entry: dict[str, Any]) -> tuple[float, float, float, float]:
    """Left, top, right, bottom; those of the outline if there is no box, NaN if there is neither."""
    box = entry.get("bbox")
    if isinstance(box, list) and len(box) == 4:
        left, top, width, height = map(_number, box)
        return left, top, left + width, top + height
    outline = entry.get("segmentation")
    if box or not isinstance(outline, list):
        return _NOWHERE
    polygons = [polygon for polygon in outline if isinstance(polygon, list)]
    across, along = ([_number(value) for one in polygons for value in one[start::2]] for start in (0, 1))
    return (min(across), min(along), max(across), max(along)) if along else _NOWHERE
