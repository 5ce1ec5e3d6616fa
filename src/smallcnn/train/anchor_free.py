"""The objective of detectors that have one place in each cell: places find their objects while they learn.

A place is for the object that it costs least to be for, by what the network says at this step; an object has as many
places as their overlaps with it add up to, and at least one ("SimOTA": Ge et al. 2021, "YOLOX", arXiv 2107.08430,
section 2.1). Its score for the object's class learns the overlap of its box with the object, all others learn 0
("quality focal loss": Li et al. 2020, "Generalized Focal Loss", arXiv 2006.04388, equation 4); its box learns the
generalised overlap.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from smallcnn.data.targets import CLASS, FLAG, NO_BOX, PLAIN
from smallcnn.ir import ops
from smallcnn.tasks.detection import Detection
from smallcnn.train.anchors import NOTHING, generalised_overlap, overlap
from smallcnn.train.detecting import DetectionObjective
from smallcnn.train.recipe import Recipe
from smallcnn.transform.undecided import CODED, SCORES

_RADIUS = 2.5  # cells around an object's centre within which its places should lie
_COUNTED = 10  # overlaps that add up to an object's number of places
_IN_COST, _IN_LOSS = 3.0, 2.0  # weights of boxes against scores: YOLOX; Li et al., section 4
_FAR = 1e5  # cost of a place outside the object or far from its centre


class AnchorFreeObjective(DetectionObjective):
    """As `DetectionObjective`; the loss of an image is divided by the number of places with an object, or 1."""

    def __init__(self, task: Detection, recipe: Recipe, op: ops.Detect, device: torch.device) -> None:
        super().__init__(task, recipe, op, device)
        steps = [grid.step[::-1] for grid in op.anchors for _ in range(len(grid))]
        self._reach = _RADIUS * torch.tensor(steps, device=device)  # (N, 2)

    def each(self, outputs: Mapping[str, Tensor], targets: Tensor) -> Tensor:
        """The loss of each image, (images,)."""
        images = zip(outputs[SCORES].float(), outputs[CODED].float(), targets, strict=True)
        return torch.stack([self._one(*image) for image in images])

    def owners(self, scores: Tensor, boxes: Tensor, objects: Tensor) -> Tensor:
        """The row of each place's object or NOTHING, (N,), for raw scores (N, C), boxes (N, 4) and objects (M, 7)."""
        if not len(objects):
            return torch.full((len(scores),), NOTHING, device=scores.device)
        x, y = self._anchors.places[:, 0], self._anchors.places[:, 1]
        left, top, right, bottom = objects[:, :4].T[:, :, None]
        inside = (x > left) & (x < right) & (y > top) & (y < bottom)  # (M, N)
        across, along = self._reach.T
        near = ((x - (left + right) / 2).abs() < across) & ((y - (top + bottom) / 2).abs() < along)
        shared = overlap(boxes, objects[:, None, :4])
        wanted = F.one_hot(objects[:, CLASS].long(), scores.shape[1])[:, None] * shared[:, :, None]
        cost = _quality_focal(scores.expand(len(objects), -1, -1), wanted) - _IN_COST * (shared + 1e-7).log()
        candidate = (inside | near).any(0)
        cost = torch.where(candidate, cost + _FAR * ~(inside & near), torch.inf)
        counted = torch.where(candidate, shared, 0).topk(min(_COUNTED, len(scores))).values
        places = counted.sum(1, keepdim=True).int().clamp(min=1)
        rank = cost.argsort(dim=1, stable=True).argsort(1)
        least, owners = torch.where(rank < places, cost, torch.inf).min(0)
        return torch.where(least < torch.inf, owners, NOTHING)

    def _one(self, scores: Tensor, codes: Tensor, rows: Tensor) -> Tensor:
        """The loss of an image; places whose centre is in a crowd or a difficult object only learn objects."""
        rows = rows[rows[:, CLASS] != NO_BOX]
        plain = rows[:, FLAG] == PLAIN
        objects, others = rows[plain], rows[~plain]
        boxes = self._anchors.decoded(codes, torch.arange(len(codes), device=codes.device))
        with torch.no_grad():
            owners = self.owners(scores, boxes, objects)
            places = (owners != NOTHING).nonzero()[:, 0]
            own = objects[owners[places]]
            wanted = torch.zeros_like(scores)
            wanted[places, own[:, CLASS].long()] = overlap(boxes[places], own[:, :4])
            x, y = self._anchors.places[:, :2].T[:, :, None]
            covered = ((x > others[:, 0]) & (x < others[:, 2]) & (y > others[:, 1]) & (y < others[:, 3])).any(1)
        of_scores = torch.where(covered & (owners == NOTHING), 0, _quality_focal(scores, wanted)).sum()
        of_boxes = (1 - generalised_overlap(boxes[places], own[:, :4])).sum()
        return (of_scores + _IN_LOSS * of_boxes) / max(len(places), 1)


def _quality_focal(scores: Tensor, wanted: Tensor) -> Tensor:
    """The loss of raw scores (..., C) that should become the probabilities `wanted`, summed over classes."""
    loss = F.binary_cross_entropy_with_logits(scores, wanted, reduction="none")
    return (loss * (scores.sigmoid() - wanted) ** 2).sum(-1)
