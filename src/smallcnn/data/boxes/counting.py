"""Counts of the objects in a set."""

from typing import Any

import numpy as np

from smallcnn.data.listing import Listing
from smallcnn.data.split import Split
from smallcnn.data.targets import CLASS, CROWD, DIFFICULT, FLAG, Boxes
from smallcnn.errors import DataError


def boxes_of(split: Split) -> Boxes:
    """The boxes of a split. Raises DataError if its images are labelled with something else."""
    if not isinstance(split.targets, Boxes):
        raise DataError(f"the images are labelled with {type(split.targets).__name__.lower()}, not boxes")
    return split.targets


def counted(listing: Listing) -> dict[str, dict[str, Any]]:
    """Images and objects per split: all images, those without objects, objects by label, crowds, difficult objects."""
    found = {}
    for key, split in listing.splits.items():
        boxes = boxes_of(split)
        rows = boxes.rows
        numbers = np.bincount(rows[:, CLASS].astype(np.int64), minlength=len(listing.classes)).tolist()
        found[key] = {
            "images": len(split),
            "without_objects": int((boxes.counts == 0).sum()),
            "objects": dict(zip(listing.classes, numbers, strict=True)),
            "crowds": int((rows[:, FLAG] == CROWD).sum()),
            "difficult": int((rows[:, FLAG] == DIFFICULT).sum()),
        }
    return found
