"""Targets: what the images of a split are labelled with. One class per kind of label."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

_ANSWERS = {1.0: "1", 0.0: "0"}


@dataclass(frozen=True, eq=False)
class Targets(ABC):
    """The labels of images: `array` has those of image i at index i, as a batch carries them."""

    array: np.ndarray

    @abstractmethod
    def strata(self) -> np.ndarray:
        """Whole numbers (N,): a validation cut takes the same share of the images of each number."""

    @abstractmethod
    def lines(self) -> Iterator[str]:
        """The label of each image as text, for a data set's fingerprint."""

    def __len__(self) -> int:
        """Number of images."""
        return len(self.array)

    def take(self, indices: Sequence[int] | np.ndarray) -> Self:
        """The labels of the images with these indices, in this order."""
        return type(self)(self.array[np.asarray(indices, np.int64)])

    def followed_by(self, *others: "Targets") -> Self:
        """These labels and then those of other splits. Raises TypeError if they are of another kind."""
        if strangers := [type(other).__name__ for other in others if type(other) is not type(self)]:
            raise TypeError(f"{strangers[0]} cannot follow {type(self).__name__}")
        return type(self)(np.concatenate([self.array, *(other.array for other in others)]))


class Classes(Targets):
    """One class number per image, int64 (N,)."""

    def strata(self) -> np.ndarray:
        """The class numbers."""
        return self.array

    def lines(self) -> Iterator[str]:
        """The class numbers."""
        return map(str, self.array.tolist())


class Attributes(Targets):
    """Independent labels, float32 (N, A): 1 present, 0 absent, NaN unknown."""

    def strata(self) -> np.ndarray:
        """The rarest answer of each image among those of two images or more: a cut puts rare labels on both sides."""
        known = np.concatenate([self.array == 1, self.array == 0, np.ones((len(self), 1), bool)], 1)
        count = known.sum(0)
        return np.where(known & (count > 1), count, len(self) + 1).argmin(1)

    def lines(self) -> Iterator[str]:
        """A string of 1, 0 and ? per image."""
        return ("".join(_ANSWERS.get(value, "?") for value in row) for row in self.array.tolist())
