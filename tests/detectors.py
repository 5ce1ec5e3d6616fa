"""A detector that several tests share, without a trained network: it finds rectangles by their colour."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
from PIL import Image, ImageDraw

from artifacts import COLOURS, LABELS
from smallcnn.data.listing import Listing
from smallcnn.data.split import Split
from smallcnn.data.targets import Boxes
from smallcnn.engines.session import Session
from smallcnn.image.fit import Preprocessing
from smallcnn.ir.types import Tensor
from smallcnn.model.facts import Facts
from smallcnn.runtime import Net
from smallcnn.tasks.detection import Detection

SCORES = {"blue": 0.9, "green": 0.8, "red": 0.7}
MOST = 5
SIDE = 64


def run(batch, threshold=0.0):
    """A box around the pixels of each colour, for SCORES above the threshold; the network's outputs (N, ...)."""
    boxes, scores, classes = (np.zeros((len(batch), MOST, *rest), np.float32) for rest in ((4,), (), ()))
    count = np.zeros((len(batch), 1), np.float32)
    for i, image in enumerate(batch.astype(int)):
        found = 0
        for label, score in SCORES.items():
            rows, columns = np.nonzero(abs(image - COLOURS[label]).sum(-1) < 90)
            if rows.size and score > threshold:
                corners = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
                boxes[i, found] = np.array(corners) / SIDE
                scores[i, found], classes[i, found] = score, LABELS.index(label)
                found += 1
        count[i] = found
    return {"boxes": boxes, "scores": scores, "classes": classes, "count": count}


def detector(labels=LABELS, fit="letterbox", threshold=0.0):
    """A net in whose place an engine would run: its answers are those of `run`."""
    outputs = {"boxes": Tensor((MOST, 4)), "scores": Tensor((MOST,)), "classes": Tensor((MOST,)), "count": Tensor((1,))}
    return Net(
        path=Path("detector.onnx"), engine="fake", threads=1, name="detector", task=Detection(labels),
        preprocessing=Preprocessing((SIDE, SIDE), fit=fit), facts=Facts(), mult_adds=0, outputs=outputs,
        _probabilities=False, _source=Path("detector.onnx"),
        _session=Session((SIDE, SIDE, 3), outputs, {}, lambda batch: run(batch, threshold)),
        _proof=SimpleNamespace(check=lambda: None),
    )  # fmt: skip


IMAGES = {
    "a.png": ((128, 64), [("blue", (8, 8, 40, 24)), ("red", (64, 16, 120, 56))]),
    "b.jpg": ((64, 64), [("green", (4, 4, 60, 60))]),
    "c.png": ((64, 128), []),
    "deep/a.png": ((192, 192), [("blue", (96, 6, 180, 60))]),
}
"""Images by name: width and height, and the coloured rectangles in it."""


def images(folder):
    """Writes the images."""
    for name, (size, rectangles) in IMAGES.items():
        image = Image.new("RGB", size, (200, 200, 200))
        for colour, (left, top, right, bottom) in rectangles:
            ImageDraw.Draw(image).rectangle((left, top, right - 1, bottom - 1), COLOURS[colour])
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        image.save(folder / name, quality=95)
    return folder


def listing(folder, classes=LABELS, change=lambda name, rows: rows):
    """The images with their rectangles as labelled objects, changed by `change`, as a split for validation."""
    each = []
    for name, (_, rectangles) in IMAGES.items():
        rows = [[*box, classes.index(colour), (box[2] - box[0]) * (box[3] - box[1]), 0] for colour, box in rectangles]
        each.append(change(name, np.array(rows, float).reshape(-1, 7)))
    split = Split([folder / name for name in IMAGES], Boxes.of(each), list(IMAGES))
    return Listing(Detection(tuple(classes)), {"val": split}, place=str(folder))
