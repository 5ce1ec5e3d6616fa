"""A detector's anchors in training: which object each is for, and the code that an object's box has there.

Matching is that of SSD (Liu et al. 2016, arXiv 1512.02325, section 2.2): an anchor is for the object that it overlaps
most, if by more than one half, and each object has at least its best anchor.
"""

import torch
from torch import Tensor

from smallcnn.data.targets import CLASS, FLAG, NO_BOX, PLAIN
from smallcnn.ir import ops
from smallcnn.reference import detection

NOTHING, IGNORED = -1, -2
"""Owners of an anchor that is for no object: background, and what neither is an object nor background."""

_OVERLAP = 0.5
_NEARER = 1e-3  # times the squared distance of two centres: how much less overlap a nearer anchor may have
_EDGE = 1e-6
"""Least distance of an inverse tanh's or sigmoid's argument from its ends, where it is infinite."""


class Anchors:
    """The anchors of a `Detect`, (N, 4) as centre x, centre y, width and height in fractions of the input."""

    def __init__(self, op: ops.Detect, device: torch.device) -> None:
        self.op = op
        self.places = torch.tensor(detection.anchors(op), device=device)
        self._sides = corners(self.places).T.contiguous()  # (4, N)
        self._areas = self.places[:, 2] * self.places[:, 3]

    def owners(self, objects: Tensor) -> Tensor:
        """The row of each anchor's object, NOTHING or IGNORED: int64 (images, N), for `objects` (images, M, 7).

        The objects are those of `data.targets.Boxes.as_shown`. Of anchors that an object overlaps equally, such as all
        that lie inside it, the nearest is its best. Where two objects have the same best anchor, it is for the one that
        it overlaps more. Anchors that lie by more than half in a crowd or a difficult object, and are for no other, are
        ignored.
        """
        counts = (objects[:, :, CLASS] != NO_BOX).sum(1).tolist()
        return torch.stack([self._owners(rows[:count]) for rows, count in zip(objects, counts, strict=True)])

    def _owners(self, rows: Tensor) -> Tensor:
        if not len(rows):
            return torch.full((len(self.places),), NOTHING, device=rows.device)
        left, top, right, bottom = rows[:, :4].T[:, :, None]
        width = torch.minimum(right, self._sides[2]).sub_(torch.maximum(left, self._sides[0])).clamp_(min=0)
        height = torch.minimum(bottom, self._sides[3]).sub_(torch.maximum(top, self._sides[1])).clamp_(min=0)
        shared = width.mul_(height)  # (M, N)
        plain = rows[:, FLAG] == PLAIN
        union = (self._areas - shared).add_((right - left) * (bottom - top))
        overlap = torch.where(plain[:, None], shared / union, 0)
        across, along = (self.places[:, axis] - (rows[:, [axis]] + rows[:, [axis + 2]]) / 2 for axis in (0, 1))
        best = (overlap - _NEARER * across.square_().add_(along.square_())).argmax(1)
        number = torch.arange(len(rows), device=rows.device)
        overlap[number, best] += 2.0 * (overlap[number, best] > 0)
        most, owners = overlap.max(0)
        covered = torch.where(plain[:, None], 0, shared).amax(0) > _OVERLAP * self._areas
        return torch.where(most > _OVERLAP, owners, torch.where(covered, IGNORED, NOTHING))

    def encoded(self, boxes: Tensor, numbers: Tensor) -> Tensor:
        """The codes (B, 4) of boxes (B, 4), left, top, right and bottom, at the anchors with these numbers (B,).

        The inverse of `decoded`, as far as an anchor can reach the box.
        """
        op, place = self.op, self.places[numbers]
        shift = ((boxes[:, :2] + boxes[:, 2:]) / 2 - place[:, :2]) / place[:, 2:] / op.centre_scale
        if op.centre == "tanh":
            shift = shift.clamp(_EDGE - 1, 1 - _EDGE).atanh()
        grown = (boxes[:, 2:] - boxes[:, :2]) / place[:, 2:]
        match op.size:
            case "exp":
                grown = grown.log().clamp(max=op.EXP_LIMIT)
            case "sigmoid":
                grown = grown.logit(_EDGE)
        return self._turned(torch.cat([shift, grown / op.size_scale], 1))

    def decoded(self, codes: Tensor, numbers: Tensor) -> Tensor:
        """The boxes (B, 4) of codes (B, 4) at the anchors with these numbers (B,), as `Detect` defines, not clipped."""
        op, place = self.op, self.places[numbers]
        code = self._turned(codes)
        shift = code[:, :2].tanh() if op.centre == "tanh" else code[:, :2]
        grown = code[:, 2:] * op.size_scale
        match op.size:
            case "exp":
                grown = grown.clamp(max=op.EXP_LIMIT).exp()
            case "sigmoid":
                grown = grown.sigmoid()
        return corners(torch.cat([place[:, :2] + shift * op.centre_scale * place[:, 2:], grown * place[:, 2:]], 1))

    def _turned(self, codes: Tensor) -> Tensor:
        """Codes in the operator's order from x, y, width, height, and back."""
        return codes[:, [1, 0, 3, 2]] if self.op.y_first else codes


def corners(boxes: Tensor) -> Tensor:
    """Left, top, right, bottom of boxes (N, 4) as centre x, centre y, width, height."""
    centre, half = boxes[:, :2], boxes[:, 2:] / 2
    return torch.cat([centre - half, centre + half], 1)


def overlap(first: Tensor, second: Tensor) -> Tensor:
    """Intersection over union (...) of boxes (..., 4), left, top, right, bottom."""
    shared = (torch.minimum(first[..., 2:], second[..., 2:]) - torch.maximum(first[..., :2], second[..., :2])).clamp(
        min=0
    )
    both = shared.prod(-1)
    union = (first[..., 2:] - first[..., :2]).prod(-1) + (second[..., 2:] - second[..., :2]).prod(-1) - both
    return both / union.clamp(min=_TINY)


def generalised_overlap(first: Tensor, second: Tensor) -> Tensor:
    """Generalised intersection over union, from -1 to 1, of each of two boxes (B, 4): Rezatofighi et al. 2019.

    arXiv 1902.09630, algorithm 1: intersection over union, less the share of the smallest box around both that neither
    covers.
    """
    shared = (torch.minimum(first[:, 2:], second[:, 2:]) - torch.maximum(first[:, :2], second[:, :2])).clamp(min=0)
    around = torch.maximum(first[:, 2:], second[:, 2:]) - torch.minimum(first[:, :2], second[:, :2])
    both, whole = shared.prod(1), around.prod(1)
    union = (first[:, 2:] - first[:, :2]).prod(1) + (second[:, 2:] - second[:, :2]).prod(1) - both
    return both / union.clamp(min=_TINY) - (whole - union) / whole.clamp(min=_TINY)


_TINY = 1e-12
