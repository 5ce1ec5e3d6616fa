"""Objects in images as tables: those an image is labelled with, and those a detector found, of many images in one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from smallcnn.tasks.detection import DetectionAnswer

LEFT, TOP, RIGHT, BOTTOM, CLASS, AREA, FLAG = range(7)
"""Columns of a box: its sides in pixels of the upright image (a pixel's area is from its index to its index + 1), its
class number, the object's area in square pixels (that of its outline, where the data set has one), and its flag."""

PLAIN, CROWD, DIFFICULT = 0, 1, 2
"""Flags of a box: a single object; several objects that were not told apart (COCO's iscrowd); one that nobody has to
find (Pascal VOC's difficult). Training and scores ignore the last two, each as its data set defines."""

NO_BOX = -1
"""The class number of rows that pad an image's boxes to as many as another image's."""


@dataclass(frozen=True, eq=False)
class Objects:
    """Labelled objects, image by image: `images` (B,) is the index of each one's image.

    `boxes` (B, 4) are left, top, right, bottom in pixels; `classes`, `areas` and `flags` are (B,).
    """

    images: np.ndarray
    boxes: np.ndarray
    classes: np.ndarray
    areas: np.ndarray
    flags: np.ndarray

    @classmethod
    def of(cls, targets: np.ndarray) -> Self:
        """The objects of images from their padded rows (N, most, 7): the array of `data.targets.Boxes`."""
        images, places = np.nonzero(targets[:, :, CLASS] != NO_BOX)
        rows = targets[images, places].astype(np.float64)
        return cls(images, rows[:, :4], rows[:, CLASS].astype(np.int64), rows[:, AREA], rows[:, FLAG].astype(np.int64))

    def take(self, chosen: np.ndarray) -> Self:
        """The objects at these indices, or those where a mask is true."""
        return type(self)(
            self.images[chosen], self.boxes[chosen], self.classes[chosen], self.areas[chosen], self.flags[chosen]
        )

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True, eq=False)
class Detections:
    """Objects found, image by image: `images`, `classes` and `scores` are (D,), `boxes` (D, 4) as in `Objects`."""

    images: np.ndarray
    boxes: np.ndarray
    classes: np.ndarray
    scores: np.ndarray

    @classmethod
    def of(cls, answers: Sequence[DetectionAnswer]) -> Self:
        """The detections of images from the answers to them."""
        images = np.repeat(np.arange(len(answers)), [len(answer.scores) for answer in answers])
        return cls(
            images,
            np.concatenate([np.zeros((0, 4)), *(answer.boxes for answer in answers)]),
            np.concatenate([np.zeros(0, np.int64), *(answer.classes for answer in answers)]),
            np.concatenate([np.zeros(0), *(answer.scores for answer in answers)]),
        )

    def take(self, chosen: np.ndarray) -> Self:
        """The detections at these indices, or those where a mask is true."""
        return type(self)(self.images[chosen], self.boxes[chosen], self.classes[chosen], self.scores[chosen])

    def __len__(self) -> int:
        return len(self.images)
