"""The objective of detectors, that of SSD: a loss of boxes and one of scores for every anchor.

Liu et al. 2016, "SSD: Single Shot MultiBox Detector", arXiv 1512.02325, section 2.2.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from smallcnn.data.targets import CLASS
from smallcnn.errors import DataError
from smallcnn.image.geometry import Seen
from smallcnn.ir import ops
from smallcnn.reference import detection
from smallcnn.tasks.coco import judge
from smallcnn.tasks.detection import Detection
from smallcnn.tasks.objects import Detections, Objects
from smallcnn.train.anchors import IGNORED, NOTHING, Anchors, generalised_overlap
from smallcnn.train.recipe import Recipe
from smallcnn.transform.undecided import CODED, SCORES

_NEGATIVES = 3  # background anchors per anchor with an object, section 2.2; and per image without objects
_GAMMA, _ALPHA = 2.0, 0.25  # Lin et al. 2017, "Focal Loss for Dense Object Detection", arXiv 1708.02002, section 4.1


class DetectionObjective:
    """Loss of boxes, plus that of scores, for the outputs of `transform.undecided`.

    The loss of an image is a sum over anchors, divided by the number of those with an object, or 1; so accumulated
    parts of a batch, and those of several processes, add up to the loss of the whole.
    """

    goal: ClassVar[str] = "map"
    terms = 1

    def __init__(self, task: Detection, recipe: Recipe, op: ops.Detect, device: torch.device) -> None:
        if op.score == "none" or (op.score == "softmax" and not op.background):
            raise DataError(
                "a detector is trained with sigmoid scores, or with a softmax over its classes and the background"
            )
        self._task, self._recipe, self._op = task, recipe, op
        self._anchors = Anchors(op, device)

    def loss(
        self,
        outputs: Mapping[str, Tensor],
        targets: Tensor,
        own: Tensor | None = None,  # noqa: ARG002
        images: Tensor | None = None,  # noqa: ARG002
    ) -> Tensor:
        """The mean over the images of a batch."""
        return self.each(outputs, targets).mean()

    def each(self, outputs: Mapping[str, Tensor], targets: Tensor) -> Tensor:
        """The loss of each image, (images,)."""
        with torch.no_grad():
            owners = self._anchors.owners(targets)
        taken = owners >= 0
        images, numbers = taken.nonzero(as_tuple=True)
        objects = targets[images, owners[taken]]
        total = self._of_scores(outputs[SCORES], owners, objects[:, CLASS].long())
        boxes = total.new_zeros(taken.shape)
        boxes[taken] = self._of_boxes(outputs[CODED][taken], objects[:, :4], numbers)
        return (total + boxes.sum(1)) / taken.sum(1).clamp(min=1)

    def hits(self, outputs: Mapping[str, Tensor], targets: Tensor) -> dict[str, Tensor]:  # noqa: ARG002
        """None: average precision is no sum over images."""
        return {}

    def judged(self, outputs: Mapping[str, Tensor], targets: Tensor, seen: Sequence[Seen]) -> dict[str, np.ndarray]:
        """The losses of images, and what `Detect` finds in them, boxes in pixels of the image."""
        coded, scores = (outputs[name].float().cpu().numpy() for name in (CODED, SCORES))
        found = np.stack([detection.detect(self._op, *one) for one in zip(coded, scores, strict=True)])
        boxes = np.stack([one.boxes_to_image(rows[:, :4]) for one, rows in zip(seen, found, strict=True)])
        return {
            "losses": self.each(outputs, targets).cpu().numpy(),
            "boxes": boxes, "scores": found[:, :, 4], "classes": found[:, :, 5], "count": (found[:, :, 4] > 0).sum(1),
        }  # fmt: skip

    def scores(self, judged: Mapping[str, np.ndarray], labels: np.ndarray) -> dict[str, float]:
        """COCO's figures that the objects determine, and the mean loss. Without objects the goal is zero."""
        images, rows = np.nonzero(np.arange(judged["scores"].shape[1]) < judged["count"][:, None])
        boxes, classes, scores = (judged[name][images, rows] for name in ("boxes", "classes", "scores"))
        detections = Detections(images, boxes, classes.astype(np.int64), scores)
        figures = judge(Objects.of(labels), detections, len(self._task.labels)).scores
        known = {name: value for name, value in figures.items() if not np.isnan(value)}
        return {self.goal: 0.0} | known | {"loss": float(judged["losses"].mean())}

    def _of_boxes(self, codes: Tensor, boxes: Tensor, numbers: Tensor) -> Tensor:
        """The loss (B,) of the codes at anchors with these numbers, whose objects have these boxes."""
        if self._recipe.box_loss == "smooth_l1":
            return F.smooth_l1_loss(codes, self._anchors.encoded(boxes, numbers), reduction="none").sum(1)
        return 1 - generalised_overlap(self._anchors.decoded(codes, numbers), boxes)

    def _of_scores(self, scores: Tensor, owners: Tensor, classes: Tensor) -> Tensor:
        """The sum over the anchors of each image, (images,)."""
        focal, taken, background = self._recipe.negatives == "focal", owners >= 0, int(self._op.background)
        labels = owners.new_zeros(owners.shape)  # of the background, if it is a class
        labels[taken] = classes + background
        each = self._each_softmax if self._op.score == "softmax" else self._each_sigmoid
        loss = each(scores, labels, taken, focal)
        loss = torch.where(owners == IGNORED, 0, loss)
        if focal:
            return loss.sum(1)
        wanted = (_NEGATIVES * taken.sum(1)).clamp(_NEGATIVES, loss.shape[1])
        hardest = torch.where(owners == NOTHING, loss, 0).topk(int(wanted.max()), 1).values
        mined = torch.arange(hardest.shape[1], device=loss.device) < wanted[:, None]
        return torch.where(taken, loss, 0).sum(1) + (hardest * mined).sum(1)

    def _each_softmax(self, scores: Tensor, labels: Tensor, taken: Tensor, focal: bool) -> Tensor:
        """Cross-entropy at each anchor, (images, N)."""
        logs = scores.log_softmax(2)
        chosen = logs.gather(2, labels[:, :, None])[:, :, 0]
        share = self._recipe.label_smoothing
        loss = torch.where(taken, (share - 1) * chosen - share * logs.mean(2), -chosen) if share else -chosen
        return torch.where(taken, _ALPHA, 1 - _ALPHA) * (1 - chosen.exp()) ** _GAMMA * loss if focal else loss

    def _each_sigmoid(self, scores: Tensor, labels: Tensor, taken: Tensor, focal: bool) -> Tensor:
        """Binary cross-entropy at each anchor, summed over classes, (images, N)."""
        present = torch.zeros_like(scores)
        present.scatter_(2, labels[:, :, None], 1.0 if self._op.background else taken[:, :, None].to(scores.dtype))
        if share := self._recipe.label_smoothing:
            present = torch.where(taken[:, :, None], present * (1 - share) + share / 2, present)
        loss = F.binary_cross_entropy_with_logits(scores, present, reduction="none")
        if focal:
            loss = (
                (_ALPHA * present + (1 - _ALPHA) * (1 - present)) * (scores.sigmoid() - present).abs() ** _GAMMA * loss
            )
        return loss.sum(2)
