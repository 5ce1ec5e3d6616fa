"""Labelled, undecoded images in memory, on disk or inside other files: the building block of every source."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from smallcnn.data.targets import Classes, Targets
from smallcnn.errors import DataError
from smallcnn.image.stored import Stored


@dataclass(frozen=True)
class Split:
    """Images with targets and names. `images` are files, or a uint8 array (N, H, W) or (N, H, W, C)."""

    images: Sequence[Path | Stored | bytes] | np.ndarray
    targets: Targets
    names: Sequence[str]

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def labels(self) -> np.ndarray:
        """Class numbers, int64 (N,). Raises DataError if the images are labelled with something else."""
        if not isinstance(self.targets, Classes):
            raise DataError(
                f"the images are not labelled with one class each, but with {type(self.targets).__name__.lower()}"
            )
        return self.targets.array

    def subset(self, indices: Sequence[int]) -> "Split":
        """The images with these indices, in this order."""
        images = (
            self.images[list(indices)] if isinstance(self.images, np.ndarray) else [self.images[i] for i in indices]
        )
        return Split(images, self.targets.take(indices), [self.names[i] for i in indices])
