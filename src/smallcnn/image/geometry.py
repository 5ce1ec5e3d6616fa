"""Which part of an image a network sees, and how positions map between the two."""

from dataclasses import dataclass, replace

import numpy as np

Box = tuple[float, float, float, float]
"""Left, top, right, bottom, in pixels of the whole image; a pixel's area is from its index to its index + 1."""


@dataclass(frozen=True, slots=True)
class Seen:
    """The part of an image that fills a network's input.

    `image` and `size` are (height, width) of the whole image and of the input. `box` is the part of the image that the
    input shows from edge to edge: it lies partly outside the image if that has borders, and its left is right of its
    right if the input is mirrored.
    """

    image: tuple[int, int]
    size: tuple[int, int]
    box: Box

    def to_input(self, points: np.ndarray) -> np.ndarray:
        """Positions (..., 2) as (x, y) in pixels of the image -> the same in pixels of the input, float64."""
        left_top, extent = self._frame()
        return (np.asarray(points, np.float64) - left_top) / extent * self.size[::-1]

    def to_image(self, points: np.ndarray) -> np.ndarray:
        """The inverse of `to_input`."""
        left_top, extent = self._frame()
        return np.asarray(points, np.float64) / self.size[::-1] * extent + left_top

    def boxes_to_image(self, boxes: np.ndarray) -> np.ndarray:
        """Boxes (..., 4) in fractions of the input -> in pixels of the image, clipped to it, float64.

        Columns are left, top, right, bottom, on either side.
        """
        height, width = self.size
        corners = self.to_image(np.reshape(boxes, (*np.shape(boxes)[:-1], 2, 2)) * [width, height])
        inside = np.clip(np.sort(corners, axis=-2), 0, self.image[::-1])
        return inside.reshape(np.shape(boxes))

    def boxes_to_input(self, boxes: np.ndarray) -> np.ndarray:
        """The inverse of `boxes_to_image`, not clipped: boxes outside the input reach below 0 or above 1."""
        height, width = self.size
        corners = self.to_input(np.reshape(boxes, (*np.shape(boxes)[:-1], 2, 2))) / [width, height]
        return np.sort(corners, axis=-2).reshape(np.shape(boxes))

    def shifted(self, down: int, right: int, *, mirrored: bool = False) -> "Seen":
        """The same input seen through a window moved `down` and `right` by pixels of the input, then mirrored."""
        height, width = self.size
        x0, y0, x1, y1 = self.box
        across, along = (x1 - x0) / width * right, (y1 - y0) / height * down
        x0, x1 = x0 + across, x1 + across
        return replace(self, box=(x1, y0 + along, x0, y1 + along) if mirrored else (x0, y0 + along, x1, y1 + along))

    def _frame(self) -> tuple[np.ndarray, np.ndarray]:
        left, top, right, bottom = self.box
        return np.array([left, top]), np.array([right - left, bottom - top])
