"""Pascal VOC's XML: one file per image, and lists of images per split.

    Annotations/000005.xml    JPEGImages/000005.jpg    ImageSets/Main/train.txt (val.txt, trainval.txt, test.txt)

The images may lie anywhere else. Sides are in pixels from the upper left corner of the image. In VOC's own sets they
count from 1, and the last pixel is inside the box (http://host.robots.ox.ac.uk/pascal/VOC/voc2012/htmldoc).
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import nan
from pathlib import PurePosixPath
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat
from xml.sax.saxutils import escape

import numpy as np

from smallcnn.data.boxes.annotations import Annotated, Annotations, Faults, Labels, split_of_folder, stated
from smallcnn.data.boxes.files import Files
from smallcnn.data.targets import DIFFICULT, PLAIN
from smallcnn.errors import DataError

_LARGEST, _LARGEST_LIST = 8 << 20, 64 << 20
_SIDES = ("xmin", "ymin", "xmax", "ymax")
_OFFICIAL = re.compile(r"\bVOC ?20(0[5-9]|1[0-2])\b")
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class _Described:
    """One XML file: its image, (width, height) if stated, and its objects as (label, sides and flag)."""

    file: str
    image: str
    size: tuple[float, float] | None
    objects: list[tuple[str, list[float]]]


def read(files: Files) -> Annotations | None:
    """What the set's VOC files say; None if it has none. Raises DataError for files that cannot be read."""
    faults, notes = Faults(), Faults()
    used, found = list[str](), list[_Described]()
    for name in files.named(".xml"):
        start = files.peek(name)
        if b"<annotation" not in start and not _is_utf16(start):
            continue
        content = files.read(name, _LARGEST)
        try:
            root = _parsed(content)
        except (expat.ExpatError, ValueError, AssertionError) as error:
            faults.add("files that are not valid XML", f"{name}: {' '.join(str(error).split())[:60]}")
            continue
        if root.tag == "annotation":
            used.append(name)
            found += _described(files, name, root, faults, notes)
    if faults:
        raise DataError(f"{files.root.path}: {'; '.join(faults.lines())}")
    if not used:
        return None
    labels = Labels(sorted({label for one in found for label, _ in one.objects}))
    split_of, lists = _splits(files)
    images = []
    for one in found:
        rows = [(*sides, labels.number(label), nan, flag) for label, (*sides, flag) in one.objects]
        split = split_of.get(PurePosixPath(one.file).stem, "") if split_of else split_of_folder(one.file)
        images.append(Annotated(one.image, np.array(rows, np.float64).reshape(-1, 7), one.size, split))
    return Annotations(labels.names, images, [*used, *lists], notes.lines())


def write(rows: np.ndarray, labels: Sequence[str], size: tuple[int, int], file: str) -> str:
    """The boxes (n, 7) of an image of `size` (width, height) as XML; of flags, VOC only has difficult."""
    objects = []
    for *sides, label, _, flag in rows.tolist():
        box = "".join(f"<{side}>{value!r}</{side}>" for side, value in zip(_SIDES, sides, strict=True))
        difficult = f"<difficult>{int(flag != PLAIN)}</difficult>"
        objects.append(f"\t<object><name>{_xml(labels[int(label)])}</name>{difficult}<bndbox>{box}</bndbox></object>\n")
    measures = f"<width>{size[0]}</width><height>{size[1]}</height><depth>3</depth>"
    head = f"\t<filename>{_xml(file)}</filename>\n\t<size>{measures}</size>\n"
    return f"<annotation>\n{head}{''.join(objects)}</annotation>\n"


def _xml(text: str) -> str:
    if _NOT_XML.search(text) or text != text.strip():
        raise DataError(f"{text!r} cannot be written as XML; choose another format")
    return escape(text)


def _is_utf16(content: bytes) -> bool:
    return content[:2] in (b"\xff\xfe", b"\xfe\xff") and "<annotation" in content.decode("utf-16", "ignore")


def _parsed(content: bytes) -> Element:
    """The root of an XML file. Raises ValueError for a document type, which may define entities that grow."""

    def refuse(*_: object) -> None:
        raise ValueError("it defines a document type")

    parser, builder = expat.ParserCreate(), TreeBuilder()
    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    parser.Parse(content, True)
    return builder.close()


def _described(files: Files, name: str, root: Element, faults: Faults, notes: Faults) -> Iterator[_Described]:
    image = _image(files, name, root, faults, notes)
    if image is None:
        return
    size = stated(_number(root, "size/width"), _number(root, "size/height"))
    shift = 1.0 if _OFFICIAL.search(_text(root, "source/database")) else 0.0
    objects = []
    for element in root.iterfind("object"):
        label, box = _text(element, "name"), element.find("bndbox")
        if not label:
            faults.add("objects without a name", name)
        elif box is None:
            notes.add("objects without a box", name)
        else:
            left, top, right, bottom = (_number(box, side) for side in _SIDES)
            flag = PLAIN if _text(element, "difficult") in ("", "0") else DIFFICULT
            objects.append((label, [left - shift, top - shift, right, bottom, flag]))
    yield _Described(name, image, size, objects)


def _text(element: Element, path: str) -> str:
    return (element.findtext(path) or "").strip()


def _number(element: Element, path: str) -> float:
    try:
        return float(_text(element, path))
    except ValueError:
        return nan


def _image(files: Files, name: str, root: Element, faults: Faults, notes: Faults) -> str | None:
    """The image that an XML file describes: the one called like it, else the one that it names."""
    split = split_of_folder(name)
    for file in (str(PurePosixPath(name).with_suffix(".jpg")), _text(root, "path"), _text(root, "filename")):
        found = files.find(file, name, split) if file else []
        if len(found) > 1:
            faults.add("files that several images fit", name)
        if found:
            return found[0]
    notes.add("annotation files without an image", name)
    return None


def _splits(files: Files) -> tuple[dict[str, str], list[str]]:
    """Stem of an image -> its split by ImageSets/Main, and the names of these lists; trainval only without train."""
    found = {
        name: match[2]
        for name in files.others
        if (match := re.search(r"(^|/)ImageSets/(?:Main/)?(train|val|trainval|test)\.txt$", name))
    }
    split_of: dict[str, str] = {}
    for kind, split in (("trainval", "train"), ("train", "train"), ("val", "val"), ("test", "test")):
        for name in [name for name, own in found.items() if own == kind]:
            if kind != "trainval" or "train" not in found.values():
                lines = files.read(name, _LARGEST_LIST).decode("utf-8-sig", "replace").splitlines()
                stems = [re.sub(r"\s+-?[01]$", "", line.strip()) for line in lines]  # a class's list says -1, 0 or 1
                split_of |= {PurePosixPath(stem).name: split for stem in stems if stem}
    return split_of, list(found)
