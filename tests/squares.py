"""A small detector, and images of coloured squares for it to find."""

import numpy as np

from smallcnn.data.listing import Listing
from smallcnn.data.sources import Source
from smallcnn.data.split import Split
from smallcnn.data.targets import CROWD, DIFFICULT, PLAIN, Boxes
from smallcnn.ir import ops
from smallcnn.ir.builder import Builder
from smallcnn.tasks.detection import Detection

SIDE = 48
COLOURS = {"red": (220, 30, 30), "green": (30, 220, 30), "blue": (40, 40, 230)}


def detect(**changed):
    """A decision with the anchors of `detector`."""
    grids = tuple(
        ops.AnchorGrid(cells=(n, n), sizes=((s, s), (1.4 * s, s / 1.4)), step=(1 / n, 1 / n))
        for n, s in ((6, 0.25), (3, 0.55))
    )
    usual = {
        "score": "sigmoid", "background": True, "centre": "linear", "size": "exp", "centre_scale": 0.1,
        "size_scale": 0.2, "y_first": False, "clip": True, "across": False, "threshold": 0.05, "overlap": 0.5,
        "most": 20,
    }  # fmt: skip
    return ops.Detect(anchors=grids, **usual | changed)


def detector(classes, **changed):
    """A detector of `classes` classes with two maps, 6x6 and 3x3, and a backbone of three layers."""
    g, decision = Builder(input=(SIDE, SIDE, 3)), detect(**changed)
    x = g.conv_bn(g.input, 8, kernel=3, stride=2, name="stem")
    x = g.conv_bn(x, 16, kernel=3, stride=2, name="block1")
    first = g.conv_bn(x, 24, kernel=3, stride=2, name="block2")
    second = g.conv_bn(first, 32, kernel=3, stride=2, name="extra")
    codes, scores = [], []
    for number, (x, grid) in enumerate(zip((first, second), decision.anchors, strict=True)):
        for name, columns, rows in (("code", 4, codes), ("score", classes + decision.background, scores)):
            y = g.conv(x, columns * len(grid.sizes), kernel=3, name=f"{name}{number}.conv")
            rows.append(g.rows(y, columns, name=f"{name}{number}.rows"))
    found = g.detections(decision, g.join(*codes, name="codes"), g.join(*scores, name="scored"))
    return g.graph(found, features=first, name="small_detector")


def squares(count=40, val=12, colours=("red", "green"), seed=0):
    """A source of grey, noisy images with up to two squares; some images have none, some squares are flagged."""
    rng = np.random.default_rng(seed)
    splits = {name: _split(rng, size, colours, name) for name, size in (("train", count), ("val", val))}
    return Source(Listing(Detection(tuple(colours)), splits, place="squares"), splits, val_is_cut=False)


def _split(rng, count, colours, name):
    images = rng.integers(100, 140, (count, SIDE, SIDE, 3)).astype(np.uint8)
    boxes = []
    for i, image in enumerate(images):
        rows = []
        for _ in range(0 if i % 9 == 8 else 1 + i % 2):
            number, side = int(rng.integers(len(colours))), int(rng.integers(10, 24))
            left, top = (int(value) for value in rng.integers(0, SIDE - side, 2))
            image[top : top + side, left : left + side] = COLOURS[colours[number]]
            flag = (PLAIN, CROWD, DIFFICULT)[(i % 7 == 3) + (i % 7 == 5) * 2] if rows else PLAIN
            rows.append([left, top, left + side, top + side, number, side * side, flag])
        boxes.append(np.array(rows, np.float64).reshape(-1, 7))
    return Split(images, Boxes.of(boxes), [f"{name}{i}" for i in range(count)])
