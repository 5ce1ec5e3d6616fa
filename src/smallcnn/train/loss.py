"""The loss: cross-entropy with the labels, blended ones too, and what a teacher adds.

Distillation is Hinton et al. 2015, "Distilling the Knowledge in a Neural Network", arXiv 1503.02531, section 2: the
soft loss is multiplied by the temperature squared, so that its gradients keep their size at any temperature.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from smallcnn.train.recipe import Recipe


@dataclass(frozen=True)
class Mix:
    """How pairs of neighbours in a batch (0 and 1, 2 and 3, ...) are mixed: `own` (N,) is the part that stays of each.

    `boxes` (N, 4) are top, left, bottom, right of what the other image covers, in parts of the sides; None: blended.
    """

    own: np.ndarray
    boxes: np.ndarray | None

    def among(self, places: np.ndarray) -> "tuple[np.ndarray, Mix]":
        """(order, mix) of the images at these places of the batch: pairs first, then those whose partner is missing.

        These stay as they are.
        """
        alone = ~np.isin(places ^ 1, places)
        order = np.argsort(alone, kind="stable")
        own = np.where(alone, np.float32(1), self.own[places])[order]
        boxes = None if self.boxes is None else np.where(alone[:, None], np.float32(0), self.boxes[places])[order]
        return order, Mix(own, boxes)


def draw_mix(recipe: Recipe, step: int, count: int) -> Mix | None:
    """The mix of this step's `count` images; None if the recipe mixes none. A function of (seed, step)."""
    if not (recipe.mixup or recipe.cutmix):
        return None
    rng = np.random.default_rng((recipe.seed, 1, step))
    cut = rng.random() < 0.5 if recipe.mixup and recipe.cutmix else bool(recipe.cutmix)
    alpha = recipe.cutmix if cut else recipe.mixup
    pairs = (count + 1) // 2
    own = rng.beta(alpha, alpha, pairs).repeat(2)[:count].astype(np.float32)
    if count % 2:
        own[-1] = 1  # the last one has no partner
    if not cut:
        return Mix(own, None)
    centre = rng.random((pairs, 2)).repeat(2, axis=0)[:count]
    half = np.sqrt(1 - own)[:, None] / 2
    boxes = np.concatenate([(centre - half).clip(0, 1), (centre + half).clip(0, 1)], axis=1)
    return Mix(own, boxes.astype(np.float32))


def mixed(images: Tensor, mix: Mix) -> tuple[Tensor, Tensor]:
    """(mixed images (N, C, H, W), the part (N,) that is left of each image itself)."""
    count, _, height, width = images.shape
    other = images[_partner(count, images.device)]
    if mix.boxes is None:
        own = torch.from_numpy(mix.own).to(images.device)
        return torch.lerp(other, images, own[:, None, None, None]), own
    sides = np.array([height, width, height, width], np.float32)
    boxes = torch.from_numpy(np.rint(mix.boxes * sides)).to(images.device)
    rows, columns = torch.arange(height, device=images.device), torch.arange(width, device=images.device)
    top, left, bottom, right = (side[:, None] for side in boxes.T)
    inside = ((rows >= top) & (rows < bottom))[:, :, None] & ((columns >= left) & (columns < right))[:, None, :]
    own = 1 - inside.float().mean((1, 2))
    return torch.where(inside[:, None], other, images), own


def class_weights(labels: np.ndarray, classes: int) -> np.ndarray:
    """float32 (classes,): inverse to how many of `labels` each class has; over all labels their mean is 1."""
    counts = np.bincount(labels, minlength=classes)
    return np.divide(len(labels) / np.count_nonzero(counts), counts, np.zeros(classes), where=counts > 0).astype("f4")


def shared(values: Tensor, own: Tensor | None) -> Tensor:
    """Values (N,) of the images' labels as they are mixed: `own` (N,) of each, the rest of its partner's."""
    if own is None:
        return values
    return own * values + (1 - own) * values[_partner(len(values), values.device)]


def cross_entropy(
    logits: Tensor, labels: Tensor, own: Tensor | None, smoothing: float, weights: Tensor | None = None
) -> Tensor:
    """Mean over the batch; `own` (N,) is the part of each image that its label stands for, the rest its partner's.

    `weights` (classes,) multiply what each label asks for.
    """
    if own is None and weights is None:
        return F.cross_entropy(logits, labels, label_smoothing=smoothing)

    def asked(wanted: Tensor) -> Tensor:
        loss = F.cross_entropy(logits, wanted, label_smoothing=smoothing, reduction="none")
        return loss if weights is None else weights[wanted] * loss

    if own is None:
        return asked(labels).mean()
    return (own * asked(labels) + (1 - own) * asked(labels[_partner(len(labels), labels.device)])).mean()


def _partner(count: int, device: torch.device) -> Tensor:
    """The place of each image's partner; the last of an odd number is its own."""
    return (torch.arange(count, device=device) ^ 1).clamp(max=count - 1)


def distillation(logits: Tensor, teacher: Tensor, recipe: Recipe, each: Tensor | None = None) -> Tensor:
    """What the teacher's logits (N, classes) ask of the student's: mean over the batch, not yet weighted.

    `each` (N,) multiplies what they ask for at each image.
    """
    hot = recipe.temperature
    if recipe.distil == "hard":
        loss = F.cross_entropy(logits, teacher.argmax(1), reduction="mean" if each is None else "none")
    else:
        wanted, said = F.log_softmax(teacher / hot, 1), F.log_softmax(logits / hot, 1)
        if each is None:
            loss = hot**2 * F.kl_div(said, wanted, log_target=True, reduction="batchmean")
        else:
            loss = hot**2 * F.kl_div(said, wanted, log_target=True, reduction="none").sum(1)
    return loss if each is None else (each * loss).mean()
