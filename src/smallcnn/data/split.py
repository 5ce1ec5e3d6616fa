"""Labelled, undecoded images in memory, on disk or inside other files: the building block of every source."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from smallcnn.image.stored import Stored


@dataclass(frozen=True)
class Split:
    """Images with labels and names. `images` are files, or a uint8 array (N, H, W) or (N, H, W, C)."""

    images: Sequence[Path | Stored | bytes] | np.ndarray
    labels: np.ndarray
    names: Sequence[str]

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, indices: Sequence[int]) -> "Split":
        """The images with these indices, in this order."""
        images = (
            self.images[list(indices)] if isinstance(self.images, np.ndarray) else [self.images[i] for i in indices]
        )
        return Split(images, self.labels[list(indices)], [self.names[i] for i in indices])
