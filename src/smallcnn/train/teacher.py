"""A trained network that a student learns from: its logits for the student's images."""

import hashlib
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from smallcnn.errors import DataError
from smallcnn.model import kinds as model_file
from smallcnn.model import store
from smallcnn.model.model import Model
from smallcnn.module import to_module
from smallcnn.tasks.classification import Classification, classification
from smallcnn.tasks.labels import match_labels
from smallcnn.train.pixels import memory_format
from smallcnn.transform.fold import fold

OWN = "teacher.safetensors"
"""The float network that a quantized one learns from, in the folder of its run."""


def teaches(model: Model) -> bool:
    """Whether a model can be a teacher."""
    return isinstance(model.task, Classification) and model.task.ending == "softmax"


def digest(teacher: Path | Model) -> str:
    """SHA-256 of the teacher's file, or of what it will be. Raises FileError if it cannot be read."""
    if isinstance(teacher, Model):
        return hashlib.sha256(store.content(teacher)).hexdigest()
    model_file.check_kind(teacher, (".safetensors", ".onnx"))
    return hashlib.sha256(teacher.read_bytes()).hexdigest()


class Teacher:
    """A model, or that of a .safetensors or .onnx file, for a student of `classes`.

    Raises FileError if the file is not a model, DataError if it does not end in a softmax, does not know all the
    classes or expects another number of channels.
    """

    def __init__(self, source: Path | Model, classes: tuple[str, ...], channels: int, device: torch.device) -> None:
        model, path = (source, source.graph.name) if isinstance(source, Model) else (model_file.read(source), source)
        ending = classification(model.task, "a teacher").ending
        if ending != "softmax":
            raise DataError(f"{path}: its ending is {ending}; a teacher must end in a softmax")
        self._bgr = model.preprocessing.order == "bgr"
        self._size = model.preprocessing.size
        if model.preprocessing.channels != channels:
            theirs = model.preprocessing.channels
            raise DataError(f"{path}: the teacher takes images of {theirs} channels, the student {channels}")
        self._columns = torch.from_numpy(match_labels(classes, model.labels)).to(device)
        folded, weights = fold(model.graph, model.weights)
        module = to_module(folded, weights).to(device).eval().requires_grad_(False)
        self._format = memory_format(device)
        self._module = module.to(memory_format=self._format)  # type: ignore[call-overload]
        self._mean, self._std = (
            torch.tensor(values, dtype=torch.float32, device=device).reshape(1, -1, 1, 1)
            for values in (model.preprocessing.mean, model.preprocessing.std)
        )

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) in 0..1, any size -> float32 (N, classes), in the order of the student's classes."""
        if tuple(images.shape[2:]) != self._size:
            images = F.interpolate(images, self._size, mode="bilinear", antialias=True, align_corners=False)
        images = images.flip(1) if self._bgr else images
        images = ((images - self._mean) / self._std).contiguous(memory_format=self._format)
        return self._module(images).float()[:, self._columns]
