"""COCO's photographs of the shared folder, and how many of their large objects a detector finds."""

import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

from shared_files import shared
from smallcnn import runtime
from smallcnn.model.model import Model


def coco_photos(folder: Path) -> Path:
    """The photographs with their labels (YOLO), extracted to `folder`."""
    with tarfile.open(shared("data/coco_det_416.tar")) as archive:
        archive.extractall(folder, filter="data")
    return folder / "coco_det"


def large_objects_found(model: Model, photos: Path, score: float = 0.0) -> tuple[int, int]:
    """The objects of the validation images larger than 5 % of their image: how many have a box of their class with a
    score above `score` that overlaps by more than half, and how many there are."""
    names = [name.strip() for name in (photos / "names.txt").read_text().splitlines()]
    pictures = sorted((photos / "val" / "images").glob("*.jpg"))
    found = large = 0
    for path, answer in zip(pictures, runtime.of(model, threads=1).answers(pictures), strict=True):
        width, height = Image.open(path).size
        for line in (photos / "val" / "labels" / f"{path.stem}.txt").read_text().splitlines():
            number, x, y, w, h = map(float, line.split())
            if w * h > 0.05:
                box = np.array([x - w / 2, y - h / 2, x + w / 2, y + h / 2]) * [width, height, width, height]
                large += 1
                found += any(
                    one.label == names[int(number)] and _overlap(np.array(one.box), box) > 0.5
                    for one in answer.above(score).found
                )
    return found, large


def _overlap(box: np.ndarray, other: np.ndarray) -> float:
    low, high = np.maximum(box[:2], other[:2]), np.minimum(box[2:], other[2:])
    both = np.prod(np.maximum(high - low, 0))
    return float(both / (np.prod(box[2:] - box[:2]) + np.prod(other[2:] - other[:2]) - both))
