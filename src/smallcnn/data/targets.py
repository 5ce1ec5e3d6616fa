"""Targets: what the images of a split are labelled with. One class per kind of label."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from smallcnn.image.geometry import Seen
from smallcnn.tasks.objects import AREA, BOTTOM, CLASS, CROWD, DIFFICULT, FLAG, LEFT, NO_BOX, PLAIN, RIGHT, TOP

__all__ = [
    "AREA", "BOTTOM", "CLASS", "CROWD", "DIFFICULT", "FLAG", "LEFT", "NO_BOX", "PLAIN", "RIGHT", "TOP",
    "Attributes", "Boxes", "Classes", "Targets",
]  # fmt: skip

_ANSWERS = {1.0: "1", 0.0: "0"}


class Targets(ABC):
    """The labels of images: `array` has those of image i at index i, as a batch carries them."""

    @property
    @abstractmethod
    def array(self) -> np.ndarray:
        """The labels of all images, (N, ...)."""

    @abstractmethod
    def strata(self) -> np.ndarray:
        """Whole numbers (N,): a validation cut takes the same share of the images of each number."""

    @abstractmethod
    def lines(self) -> Iterator[str]:
        """The label of each image as text, for a data set's fingerprint."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of images."""

    @abstractmethod
    def take(self, indices: Sequence[int] | np.ndarray) -> Self:
        """The labels of the images with these indices, in this order."""

    def as_shown(self, seen: Sequence[Seen]) -> np.ndarray:  # noqa: ARG002
        """The labels (N, ...) of inputs that show these parts of the images."""
        return self.array

    def followed_by(self, *others: "Targets") -> Self:
        """These labels and then those of other splits. Raises TypeError if they are of another kind."""
        if strangers := [type(other).__name__ for other in others if type(other) is not type(self)]:
            raise TypeError(f"{strangers[0]} cannot follow {type(self).__name__}")
        return type(self)._joined([self, *others])

    @classmethod
    @abstractmethod
    def _joined(cls, parts: Sequence["Targets"]) -> Self:
        """The labels of several splits, all of this class."""


@dataclass(frozen=True, eq=False)
class _PerImage(Targets):
    """As many numbers for every image: `values` (N, ...)."""

    values: np.ndarray

    @property
    def array(self) -> np.ndarray:
        """The values."""
        return self.values

    def __len__(self) -> int:
        return len(self.values)

    def take(self, indices: Sequence[int] | np.ndarray) -> Self:
        return type(self)(self.values[np.asarray(indices, np.int64)])

    @classmethod
    def _joined(cls, parts: Sequence[Targets]) -> Self:
        return cls(np.concatenate([part.array for part in parts]))


class Classes(_PerImage):
    """One class number per image, int64 (N,)."""

    def strata(self) -> np.ndarray:
        """The class numbers."""
        return self.array

    def lines(self) -> Iterator[str]:
        """The class numbers."""
        return map(str, self.array.tolist())


class Attributes(_PerImage):
    """Independent labels, float32 (N, A): 1 present, 0 absent, NaN unknown."""

    def strata(self) -> np.ndarray:
        """The rarest answer of each image among those of two images or more: a cut puts rare labels on both sides."""
        known = np.concatenate([self.array == 1, self.array == 0, np.ones((len(self), 1), bool)], 1)
        count = known.sum(0)
        return np.where(known & (count > 1), count, len(self) + 1).argmin(1)

    def lines(self) -> Iterator[str]:
        """A string of 1, 0 and ? per image."""
        return ("".join(_ANSWERS.get(value, "?") for value in row) for row in self.array.tolist())


@dataclass(frozen=True, eq=False)
class Boxes(Targets):
    """Any number of objects per image: `rows` float64 (B, 7) has those of all images in order, `counts` (N,) how many.

    Columns are LEFT, TOP, RIGHT, BOTTOM, CLASS, AREA and FLAG. `most` is the number of rows of an image in `array`.
    """

    rows: np.ndarray
    counts: np.ndarray
    most: int

    @classmethod
    def of(cls, images: Iterable[np.ndarray]) -> Self:
        """The boxes of images, (n, 7) each."""
        each = [np.asarray(rows, np.float64).reshape(-1, 7) for rows in images]
        counts = np.array([len(rows) for rows in each], np.int64)
        return cls(np.concatenate([np.zeros((0, 7)), *each]), counts, max([1, *counts.tolist()]))

    @property
    def array(self) -> np.ndarray:
        """(N, most, 7) float64; after an image's boxes come rows of class NO_BOX."""
        padded = np.zeros((len(self), self.most, 7))
        padded[:, :, CLASS] = NO_BOX
        padded[np.arange(self.most) < self.counts[:, None]] = self.rows
        return padded

    def as_shown(self, seen: Sequence[Seen]) -> np.ndarray:
        """(N, most, 7) float32: columns and rows as in `array`, but sides are fractions of the input, clipped to it.

        An object whose centre lies outside the input is dropped, as in SSD (Liu et al. 2016, arXiv 1512.02325, section
        2.2); of a crowd, any part is kept. AREA is that of the sides.
        """
        shown = np.zeros((len(self), self.most, 7), np.float32)
        shown[:, :, CLASS] = NO_BOX
        for result, one, rows in zip(shown, seen, self.each(), strict=True):
            boxes = one.boxes_to_input(rows[:, :4])
            centres = (boxes[:, :2] + boxes[:, 2:]) / 2
            clipped = boxes.clip(0, 1)
            kept = ((centres >= 0) & (centres <= 1)).all(1) | (rows[:, FLAG] == CROWD)
            extent = clipped[:, 2:] - clipped[:, :2]
            kept &= (extent > 0).all(1)
            result[: kept.sum()] = np.column_stack([clipped, rows[:, CLASS], extent.prod(1), rows[:, FLAG]])[kept]
        return shown

    def each(self) -> list[np.ndarray]:
        """The boxes of every image, (n, 7)."""
        return np.split(self.rows, np.cumsum(self.counts)[:-1]) if len(self) else []

    def strata(self) -> np.ndarray:
        """The rarest class in each image, or one more than the highest for images without objects."""
        classes = self.rows[:, CLASS].astype(np.int64)
        count = np.bincount(classes, minlength=1)
        return np.array(
            [min(own, key=lambda one: (count[one], one), default=len(count)) for own in self._classes()], np.int64
        )

    def lines(self) -> Iterator[str]:
        """Class, sides and flag of every box."""
        wanted = [CLASS, LEFT, TOP, RIGHT, BOTTOM, FLAG]
        return (
            " ".join(",".join(f"{value:g}" for value in row) for row in own[:, wanted].tolist()) for own in self.each()
        )

    def __len__(self) -> int:
        return len(self.counts)

    def take(self, indices: Sequence[int] | np.ndarray) -> Self:
        """The boxes of the images with these indices, in this order."""
        chosen = np.asarray(indices, np.int64)
        counts, first = self.counts[chosen], (np.cumsum(self.counts) - self.counts)[chosen]
        place = np.arange(counts.sum()) + np.repeat(first - (np.cumsum(counts) - counts), counts)
        return type(self)(self.rows[place], counts, self.most)

    @classmethod
    def _joined(cls, parts: Sequence[Targets]) -> Self:
        own = [part for part in parts if isinstance(part, Boxes)]
        rows, counts = (np.concatenate([getattr(part, name) for part in own]) for name in ("rows", "counts"))
        return cls(rows, counts, max(part.most for part in own))

    def _classes(self) -> Iterator[list[int]]:
        return ([int(one) for one in own[:, CLASS]] for own in self.each())
