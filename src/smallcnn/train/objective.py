"""Objectives: what training minimises for a task, the scores it reports, and the one that decides which model is best.

classification   cross-entropy of the softmax             goal: top-1
attributes       binary cross-entropy of each sigmoid     goal: mean average precision
detection        see `detecting`                          goal: map, COCO's mean average precision
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from smallcnn.data.split import Split
from smallcnn.errors import DataError
from smallcnn.image.geometry import Seen
from smallcnn.ir.graph import Graph
from smallcnn.tasks import metrics
from smallcnn.tasks.attributes import Attributes
from smallcnn.tasks.classification import Classification
from smallcnn.tasks.detection import Detection
from smallcnn.tasks.task import Task
from smallcnn.train.anchor_free import AnchorFreeObjective
from smallcnn.train.detecting import DetectionObjective
from smallcnn.train.loss import class_weights, cross_entropy, distillation, of_pairs, shared
from smallcnn.train.recipe import Recipe
from smallcnn.train.teacher import Teacher
from smallcnn.transform.undecided import decision

Outputs = Mapping[str, Tensor]
"""A network's outputs by name, each (N, ...) float32."""


class Objective(Protocol):
    """What training does for a task.

    `goal` is the score that decides `best`; higher is better. `terms` is the number of losses that an image's loss
    sums, by which reports divide it.
    """

    goal: ClassVar[str]
    terms: int

    def loss(
        self, outputs: Outputs, targets: Tensor, own: Tensor | None = None, images: Tensor | None = None
    ) -> Tensor:
        """Mean loss over the batch, with the `targets` (N, ...) that a batch carries.

        In mixed batches `own` (N,) is the share each image keeps; the rest is its partner's. A teacher sees the
        `images` (N, C, H, W) in 0..1.
        """

    def hits(self, outputs: Outputs, targets: Tensor) -> dict[str, Tensor]:
        """Scores that can be summed over images, for the progress of an epoch: their sums over the batch."""

    def judged(self, outputs: Outputs, targets: Tensor, seen: Sequence[Seen]) -> dict[str, np.ndarray]:
        """What `scores` needs to know of a batch of validation images, arrays (N, ...) by name.

        `seen` are the parts of the images that the network saw.
        """

    def scores(self, judged: Mapping[str, np.ndarray], labels: np.ndarray) -> dict[str, float]:
        """Scores over all validation images by name, with the goal and "loss" among them.

        `labels` (N, ...) are those of the images, as `data.targets` has them.
        """


def objective(
    task: Task, graph: Graph, recipe: Recipe, split: Split, teacher: Teacher | None, device: torch.device
) -> Objective:
    """The objective of a task, to train `graph` on `split`. Raises DataError if the recipe is for another task."""
    if isinstance(task, Classification):
        weights = class_weights(split.labels, len(task.labels)) if recipe.balance else None
        return ClassObjective(task, recipe, None if weights is None else torch.from_numpy(weights).to(device), teacher)
    if isinstance(task, Attributes):
        if recipe.balance or teacher:
            raise DataError(f"{'--balance' if recipe.balance else '--teacher'} is for classes, not for attributes")
        return AttributeObjective(task, recipe.label_smoothing)
    if isinstance(task, Detection):
        if teacher:
            raise DataError("--teacher is not for detectors")
        op = decision(graph)
        return (AnchorFreeObjective if op.anchor_free else DetectionObjective)(task, recipe, op, device)
    raise DataError(f"no training for {task.kind}")


def arrays(outputs: Outputs) -> dict[str, np.ndarray]:
    """The outputs as arrays."""
    return {name: output.cpu().numpy() for name, output in outputs.items()}


class ClassObjective:
    """Cross-entropy with the label, smoothed, weighted by class (`weights`, (classes,)) and shared with a teacher."""

    goal: ClassVar[str] = "top1"
    terms = 1

    def __init__(
        self, task: Classification, recipe: Recipe, weights: Tensor | None = None, teacher: Teacher | None = None
    ) -> None:
        self._task, self._recipe, self._weights, self._teacher = task, recipe, weights, teacher

    def loss(
        self, outputs: Outputs, targets: Tensor, own: Tensor | None = None, images: Tensor | None = None
    ) -> Tensor:
        """Cross-entropy, interpolated with distillation if there is a teacher."""
        (logits,) = outputs.values()
        loss = cross_entropy(logits, targets, own, self._recipe.label_smoothing, self._weights)
        if self._teacher is None or images is None:
            return loss
        each = None if self._weights is None else shared(self._weights[targets], own)
        theirs = distillation(logits, self._teacher.logits(images), self._recipe, each)
        return torch.lerp(loss, theirs, self._recipe.distil_weight)

    def hits(self, outputs: Outputs, targets: Tensor) -> dict[str, Tensor]:
        """The number of images predicted as their class."""
        (logits,) = outputs.values()
        return {"top1": (logits.argmax(1) == targets).sum()}

    def judged(self, outputs: Outputs, targets: Tensor, seen: Sequence[Seen]) -> dict[str, np.ndarray]:  # noqa: ARG002
        """The outputs."""
        return arrays(outputs)

    def scores(self, judged: Mapping[str, np.ndarray], labels: np.ndarray) -> dict[str, float]:
        """Loss, top-1 and top-5."""
        return metrics.scores(self._task, judged, labels)


class AttributeObjective:
    """Binary cross-entropy of each label's sigmoid: the mean over an image's known labels, times the number of labels.

    So the gradient at a logit is probability minus target, as with a softmax, and the same learning rates suit. Labels
    are smoothed towards one half. An image without a known label has no loss.
    """

    goal: ClassVar[str] = "mean_average_precision"

    def __init__(self, task: Attributes, smoothing: float = 0.0) -> None:
        self._task, self._smoothing, self.terms = task, smoothing, len(task.labels)

    def loss(
        self,
        outputs: Outputs,
        targets: Tensor,
        own: Tensor | None = None,
        images: Tensor | None = None,  # noqa: ARG002
    ) -> Tensor:
        """The mean over the batch; a mixed image's is the mixture of the losses with both images' labels."""
        (logits,) = outputs.values()
        return of_pairs(lambda present: self._each(logits, present), targets, own).mean()

    def hits(self, outputs: Outputs, targets: Tensor) -> dict[str, Tensor]:  # noqa: ARG002
        """None: average precision is no sum over images."""
        return {}

    def judged(self, outputs: Outputs, targets: Tensor, seen: Sequence[Seen]) -> dict[str, np.ndarray]:  # noqa: ARG002
        """The outputs."""
        return arrays(outputs)

    def scores(self, judged: Mapping[str, np.ndarray], labels: np.ndarray) -> dict[str, float]:
        """Mean average precision and loss; a precision that no label determines counts as zero."""
        found = metrics.scores(self._task, judged, labels)
        return found | {self.goal: 0.0 if np.isnan(found[self.goal]) else found[self.goal]}

    def _each(self, logits: Tensor, present: Tensor) -> Tensor:
        """Loss of each image (N,)."""
        known = ~present.isnan()
        smoothed = present.nan_to_num() * (1 - self._smoothing) + self._smoothing / 2
        loss = F.binary_cross_entropy_with_logits(logits, smoothed, reduction="none")
        return self.terms * (loss * known).sum(1) / known.sum(1).clamp(min=1)
