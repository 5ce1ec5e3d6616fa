"""Small sets of images with boxes, written by hand in each format, for the tests of their readers."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from smallcnn.data.sources import open_source
from smallcnn.data.targets import CLASS


def image(path: Path, size=(64, 48), orientation=0) -> Path:
    """An image file of `size` (width, height) as stored."""
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    Image.new("RGB", size, "red").save(path, exif=exif)
    return path


def images(root: Path, names: str, **options) -> Path:
    """Image files with these names, separated by blanks."""
    for name in names.split():
        image(root / name, **options)
    return root


def write(path: Path, content: str | bytes | dict) -> Path:
    """A file; a dict is written as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = json.dumps(content) if isinstance(content, dict) else content
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def coco(boxes, *, names=(), size=(64, 48), categories=("cat", "dog"), **extra) -> dict:
    """COCO's JSON: `boxes` are (file, category id from 1, bbox[, a dict of more fields]); `names` have no boxes."""
    files = list(dict.fromkeys([*(box[0] for box in boxes), *names]))
    listed = [{"id": 10 + i, "file_name": name, "width": size[0], "height": size[1]} for i, name in enumerate(files)]
    annotations = [
        {"id": i, "image_id": 10 + files.index(name), "category_id": category, "bbox": box} | dict(*more)
        for i, (name, category, box, *more) in enumerate(boxes)
    ]
    named = [{"id": i, "name": name, "supercategory": "none"} for i, name in enumerate(categories, 1)]
    return {"images": listed, "annotations": annotations, "categories": named} | extra


def voc(objects, *, size=(64, 48), filename="", database="") -> str:
    """Pascal VOC's XML: `objects` are (name, xmin, ymin, xmax, ymax[, difficult])."""
    each = "".join(
        f"<object><name>{name}</name><difficult>{(*more, 0)[0]}</difficult><bndbox>"
        f"<xmin>{left}</xmin><ymin>{top}</ymin><xmax>{right}</xmax><ymax>{bottom}</ymax></bndbox></object>"
        for name, left, top, right, bottom, *more in objects
    )
    return (
        f"<annotation><filename>{filename}</filename><source><database>{database}</database></source>"
        f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>{each}</annotation>"
    )


def said(place, **options):
    """Split -> base name -> [(label, left, top, right, bottom)], over the splits as stored."""
    listing = open_source(place, **options).listing
    return {
        key: {
            name.rsplit("/", 1)[-1]: [
                (listing.classes[int(row[CLASS])], *np.round(row[:4], 6).tolist()) for row in rows
            ]
            for name, rows in zip(split.names, split.targets.each(), strict=True)
        }
        for key, split in listing.splits.items()
    }


def notes(place) -> str:
    """All notes in one text."""
    return "\n".join(open_source(place).listing.notes)
