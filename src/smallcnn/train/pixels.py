"""Images on the training device, and their conversion to the network's input."""

import numpy as np
import torch
from torch import Tensor

from smallcnn.image.fit import Preprocessing


def memory_format(device: torch.device) -> torch.memory_format:
    """Where an image's channels lie: last, which is quicker on every device but MPS."""
    return torch.contiguous_format if device.type == "mps" else torch.channels_last


class Pixels:
    """Converts images on the training device: from uint8 to 0..1, and from there to the network's input."""

    def __init__(self, preprocessing: Preprocessing, device: torch.device) -> None:
        self.device, self._bgr = device, preprocessing.order == "bgr"
        self.memory_format = memory_format(device)
        self._mean, self._std = (
            torch.tensor(values, dtype=torch.float32, device=device).reshape(1, -1, 1, 1)
            for values in (preprocessing.mean, preprocessing.std)
        )

    def load(self, images: np.ndarray) -> Tensor:
        """uint8 (N, H, W, C) -> float (N, C, H, W) in 0..1."""
        return torch.from_numpy(images).to(self.device).permute(0, 3, 1, 2).float() / 255

    def normalise(self, images: Tensor) -> Tensor:
        """(N, C, H, W) in 0..1, red first -> the network's input."""
        images = images.flip(1) if self._bgr else images
        return ((images - self._mean) / self._std).contiguous(memory_format=self.memory_format)
