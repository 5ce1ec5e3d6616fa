"""The objects of an image in a shard, as smallcnn writes them: KEY.json next to KEY.jpg.

{"objects": [{"label": "cat", "box": [left, top, right, bottom], "area": 12.0, "flag": 0}]}
"""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from smallcnn.data.shards.index import are_boxes

_LONGEST_LABEL = 100

Row = list[Any]
"""As a row of `data.targets.Boxes`, with the label's name in place of the class."""


def encoded(rows: np.ndarray, classes: Sequence[str]) -> bytes:
    """The file for the rows of an image, of `data.targets.Boxes`."""
    objects = [
        {"label": classes[int(label)], "box": sides, "area": area, "flag": int(flag)}
        for *sides, label, area, flag in rows.tolist()
    ]
    return json.dumps({"objects": objects}, separators=(",", ":")).encode()


def decoded(data: bytes) -> list[Row] | None:
    """The objects in a file; None if it has no list of them, or one that is not as smallcnn writes it."""
    try:
        objects = [(one["label"], [*one["box"], 0, one["area"], one["flag"]]) for one in json.loads(data)["objects"]]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    labels, rows = [label for label, _ in objects], [row for _, row in objects]
    named = all(isinstance(one, str) and one.isprintable() and 0 < len(one) <= _LONGEST_LABEL for one in labels)
    return [[*row[:4], label, *row[5:]] for label, row in objects] if named and are_boxes(rows) else None


def numbered(images: Sequence[Sequence[Row]]) -> tuple[tuple[str, ...], list[list[list[float]]]]:
    """(class names, sorted; the rows of `data.targets.Boxes` of each image)."""
    names = sorted({row[4] for rows in images for row in rows})
    place = {name: number for number, name in enumerate(names)}
    return tuple(names), [[[*row[:4], place[row[4]], *row[5:]] for row in rows] for rows in images]
