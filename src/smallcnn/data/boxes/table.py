"""Boxes in a table (.csv, .tsv): one row per object, in the titles of several programs.

    filename,width,height,class,xmin,ymin,xmax,ymax     TensorFlow's raccoons, Roboflow; sides in pixels or fractions
    image,label,x,y,w,h                                 left, top, width, height; also x_center, y_center, width, height
    image_id,width,height,"[left, top, width, height]"  a column called bbox
    photos/a.jpg,10,20,110,220,cat                      without titles (keras-retinanet)

A row whose sides are empty says that its image has no objects. Without a column of classes, all objects are of one.
"""

import csv
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import nan

import numpy as np

from smallcnn.data.boxes.annotations import (
    Annotated,
    Annotations,
    Faults,
    Labels,
    split_of_file,
    split_of_folder,
    stated,
)
from smallcnn.data.boxes.files import Files
from smallcnn.data.boxes.units import in_pixels
from smallcnn.data.left_out import is_image_name
from smallcnn.data.table import read_table
from smallcnn.data.targets import CROWD, DIFFICULT, PLAIN
from smallcnn.errors import DataError

ONLY_LABEL = "object"
"""The label of all objects where no column names them."""

_TITLES = {
    "file": "file filename filepath image imagename imagepath imagefile imageid path img imgpath",
    "label": "class label labelname classname category categoryname name objectclass",
    "left": "xmin x1 left minx xtl bboxxmin bboxx1", "top": "ymin y1 top miny ytl bboxymin bboxy1",
    "right": "xmax x2 right maxx xbr bboxxmax bboxx2", "bottom": "ymax y2 bottom maxy ybr bboxymax bboxy2",
    "x": "x bboxx", "y": "y bboxy", "w": "w bboxw bboxwidth boxwidth", "h": "h bboxh bboxheight boxheight",
    "across": "xcenter xcentre centerx centrex cx xc", "along": "ycenter ycentre centery centrey cy yc",
    "box": "bbox box boundingbox",
    "width": "width imagewidth imgwidth", "height": "height imageheight imgheight",
    "crowd": "iscrowd crowd isgroupof", "difficult": "difficult isdifficult",
}  # fmt: skip
_MEANING = {title: meaning for meaning, titles in _TITLES.items() for title in titles.split()}
_YES = {"1", "1.0", "true", "yes"}
_FORMS = (
    ("left", "top", "right", "bottom"), ("across", "along", "w", "h"), ("left", "top", "w", "h"), ("x", "y", "w", "h"),
    ("across", "along", "width", "height"), ("x", "y", "width", "height"), ("left", "top", "width", "height"), ("box",),
)  # fmt: skip
"""The columns that may hold a box; the first of these that a table has."""

_UNTITLED = {"file": 0, "left": 1, "top": 2, "right": 3, "bottom": 4, "label": 5}


def read(files: Files) -> Annotations | None:
    """What the set's tables of boxes say; None if it has none. Raises DataError for rows that cannot be read."""
    columns = {name: known for name in files.named(".csv", ".tsv") if (known := _columns(files, name))}
    if not columns or not files.images:
        return None
    chosen = [name for name in columns if split_of_file(name)] or [*columns]  # not the one of all next to its splits
    faults, notes, lines = Faults(), Faults(), list[str]()
    found = {name: _objects(files, name, columns[name], faults) for name in chosen}
    labels = Labels(sorted({one.label for objects in found.values() for one in objects if one.label is not None}))
    images = list[Annotated]()
    for name, objects in found.items():
        if "label" not in columns[name]:
            lines.append(f"{files.path(name)}: no column of classes: all objects are of class {ONLY_LABEL!r}")
        images += _images(files, name, objects, labels, faults, notes)
    if faults:
        raise DataError(f"{files.root.path}: {'; '.join(faults.lines())}")
    return Annotations(labels.names, images, chosen, [*lines, *notes.lines()])


@dataclass(frozen=True)
class _Object:
    """One row: the file it names, (width, height) of the image if stated, and its object if it has one."""

    file: str
    size: tuple[float, float] | None
    label: str | None = None
    sides: tuple[float, ...] = ()
    flag: int = PLAIN


def _columns(files: Files, name: str) -> dict[str, int]:
    """Meaning -> place of each column, by the first row; nothing if it is no table of boxes."""
    first = next(iter(files.peek(name).decode("utf-8-sig", "replace").splitlines()), "")
    try:
        cells = [cell.strip() for cell in next(csv.reader([first], delimiter=max(",;\t", key=first.count)), [])]
    except csv.Error:
        return {}
    if _is_row(cells):
        return _UNTITLED
    found: dict[str, int] = {}
    for place, title in enumerate(cells):
        meaning = _MEANING.get(re.sub(r"[^a-z0-9]", "", title.lower()), "")
        if meaning and meaning not in found:
            found[meaning] = place
    return found if "file" in found and _form(found) else {}


def _is_row(cells: Sequence[str]) -> bool:
    """Whether a first row has no titles but already a file, four sides and a class."""
    sides = cells[1:5]
    return len(cells) >= 6 and is_image_name(cells[0]) and (not any(cells[1:6]) or all(map(_is_number, sides)))


def _form(columns: Mapping[str, int]) -> tuple[str, ...]:
    return next((form for form in _FORMS if set(form) <= columns.keys()), ())


def _objects(files: Files, name: str, columns: Mapping[str, int], faults: Faults) -> list[_Object]:
    """The rows of a table; those that cannot be read are counted."""
    table = read_table(files.read(name), files.path(name))
    rows = ((1, list(table.titles)), *table.rows) if columns is _UNTITLED else table.rows
    form, found = _form(columns), []

    def cell(row: list[str], meaning: str) -> str:
        place = columns.get(meaning)
        return "" if place is None or place >= len(row) else row[place]

    for number, row in rows:
        where = f"{name}, row {number}"
        width, height = (nan if side in form else _number(cell(row, side)) for side in ("width", "height"))
        size = stated(width, height)
        numbers = [cell(row, meaning) for meaning in form]
        if form == ("box",):
            numbers = re.sub(r"[\[\](),;]", " ", numbers[0]).split()
        if not cell(row, "file"):
            faults.add("rows without a file", where)
        elif not any(numbers):
            found.append(_Object(cell(row, "file"), size))
        elif len(numbers) != 4 or not all(map(_is_number, numbers)):
            faults.add("rows whose sides are not four numbers", where)
        elif "label" in columns and not cell(row, "label"):
            faults.add("rows with a box but no class", where)
        else:
            label = cell(row, "label") if "label" in columns else ONLY_LABEL
            crowd, difficult = (cell(row, flag).lower() in _YES for flag in ("crowd", "difficult"))
            flag = CROWD if crowd else DIFFICULT if difficult else PLAIN
            found.append(_Object(cell(row, "file"), size, label, _sides(form, [*map(float, numbers)]), flag))
    return found


def _sides(form: tuple[str, ...], numbers: Sequence[float]) -> tuple[float, ...]:
    """Left, top, right, bottom."""
    a, b, c, d = numbers
    if form == _FORMS[0]:
        return a, b, c, d
    return (a - c / 2, b - d / 2, a + c / 2, b + d / 2) if "across" in form else (a, b, a + c, b + d)


def _images(
    files: Files, name: str, objects: Sequence[_Object], labels: Labels, faults: Faults, notes: Faults
) -> list[Annotated]:
    """The images that a table's rows are about."""
    rows = defaultdict[str, list[tuple[float, ...]]](list)
    sizes: dict[str, tuple[float, float] | None] = {}
    for one in objects:
        sizes.setdefault(one.file, one.size)
        own = rows[one.file]
        if one.label is not None:
            own.append((*one.sides, labels.number(one.label), nan, one.flag))
    arrays = {file: np.array(own, np.float64).reshape(-1, 7) for file, own in rows.items()}
    fractions = not in_pixels(np.concatenate([np.zeros((0, 4)), *(own[:, :4] for own in arrays.values())]))
    split = split_of_file(name)
    resolved = files.resolve(list(arrays), name, split, faults, notes)
    return [
        Annotated(image, own, (1.0, 1.0) if fractions else sizes[file], split or split_of_folder(image))
        for (file, own), image in zip(arrays.items(), resolved, strict=True)
        if image is not None
    ]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _number(text: str) -> float:
    return float(text) if _is_number(text) else nan
