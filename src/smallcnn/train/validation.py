"""Validation between epochs, and the conversion of images to the network's input."""

import numpy as np
import torch
from torch import Tensor

from smallcnn.data.memory import PreparedSplit
from smallcnn.data.split import Split
from smallcnn.errors import DataError
from smallcnn.image.fit import Preprocessing
from smallcnn.module import GraphModule
from smallcnn.tasks.metrics import Metrics, measure
from smallcnn.train.ranks import Ranks


class Pixels:
    """Converts images on the training device: from uint8 to 0..1, and from there to the network's input."""

    def __init__(self, preprocessing: Preprocessing, device: torch.device) -> None:
        self.device, self._bgr = device, preprocessing.order == "bgr"
        self.memory_format = torch.contiguous_format if device.type == "mps" else torch.channels_last
        self._mean, self._std = (
            torch.tensor(values, dtype=torch.float32, device=device).reshape(1, -1, 1, 1)
            for values in (preprocessing.mean, preprocessing.std)
        )

    def load(self, images: np.ndarray) -> Tensor:
        """uint8 (N, H, W, C) -> float (N, C, H, W) in 0..1, channels last in memory."""
        return torch.from_numpy(images).to(self.device).permute(0, 3, 1, 2).float() / 255

    def normalise(self, images: Tensor) -> Tensor:
        """(N, C, H, W) in 0..1, red first -> the network's input."""
        images = images.flip(1) if self._bgr else images
        return ((images - self._mean) / self._std).contiguous(memory_format=self.memory_format)


class Validation:
    """Each process's share of the validation images. `failed` holds those that could not be decoded so far, by name."""

    def __init__(
        self,
        split: Split,
        preprocessing: Preprocessing,
        pixels: Pixels,
        batch_size: int,
        workers: int | None,
        ranks: Ranks,
    ) -> None:
        share = split if ranks.alone else split.subset(ranks.slice(len(split)))
        self._images = PreparedSplit(share, preprocessing, workers)
        self.failed = self._images.failed
        self._ranks, self._pixels, self._batch_size = ranks, pixels, batch_size

    @torch.inference_mode()
    def measure(self, module: GraphModule) -> Metrics:
        """Metrics over all processes. Leaves the module in eval mode. Raises DataError if no image could be decoded."""
        module.eval()
        logits = [np.zeros((0, *module.graph.output_shape), np.float32)]
        labels = [np.zeros(0, np.int64)]
        for batch in self._images.batches(range(len(self._images)), self._batch_size):
            self.failed |= batch.failed
            if len(batch.labels):
                images = self._pixels.normalise(self._pixels.load(batch.images))
                logits.append(module(images).float().cpu().numpy())
                labels.append(batch.labels)
        found = self._ranks.gather((np.concatenate(logits), np.concatenate(labels), self.failed))
        if not any(len(theirs) for _, theirs, _ in found):
            problem = next(problem for _, _, failed in found for problem in failed.values())
            self._ranks.refuse(DataError(f"no validation image could be decoded; the first: {problem}"))
        return measure(np.concatenate([one for one, _, _ in found]), np.concatenate([one for _, one, _ in found]))
