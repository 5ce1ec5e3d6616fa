"""The loss: cross-entropy with labels, mixed ones too, and distillation from a teacher.

Distillation follows Hinton et al. 2015, "Distilling the Knowledge in a Neural Network", arXiv 1503.02531, section 2:
the soft loss is multiplied by the temperature squared, so its gradients keep their size at any temperature.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from smallcnn.train.recipe import Recipe


@dataclass(frozen=True)
class Mix:
    """Mixing of neighbouring pairs in a batch (0 and 1, 2 and 3, ...): `own` (N,) is the share each image keeps.

    `boxes` (N, 4) are top, left, bottom and right of the area the partner covers, as fractions of the sides; None means
    the images are blended.
    """

    own: np.ndarray
    boxes: np.ndarray | None

    def among(self, places: np.ndarray) -> "tuple[np.ndarray, Mix]":
        """(order, mix) for the images at these places of the batch: pairs first, then images without their partner.

        The latter stay unmixed.
        """
        alone = ~np.isin(places ^ 1, places)
        order = np.argsort(alone, kind="stable")
        own = np.where(alone, np.float32(1), self.own[places])[order]
        boxes = None if self.boxes is None else np.where(alone[:, None], np.float32(0), self.boxes[places])[order]
        return order, Mix(own, boxes)


def draw_mix(recipe: Recipe, step: int, count: int) -> Mix | None:
    """The mix of this step's `count` images, a function of (seed, step); None if the recipe does not mix."""
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
    """(mixed images (N, C, H, W), the share (N,) that each image keeps)."""
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
    """float32 (classes,): inversely proportional to the class counts in `labels`, with mean 1 over all labels."""
    counts = np.bincount(labels, minlength=classes)
    return np.divide(len(labels) / np.count_nonzero(counts), counts, np.zeros(classes), where=counts > 0).astype("f4")


def shared(values: Tensor, own: Tensor | None) -> Tensor:
    """Per-label values (N,), mixed like the images: the share `own` (N,) of each image's, the rest of its partner's."""
    return of_pairs(lambda value: value, values, own)


def of_pairs(per_image: Callable[[Tensor], Tensor], targets: Tensor, own: Tensor | None) -> Tensor:
    """What `per_image` makes of the targets (N, ...), (N,), mixed as `shared` mixes values."""
    if own is None:
        return per_image(targets)
    partner = targets[_partner(len(targets), targets.device)]
    return own * per_image(targets) + (1 - own) * per_image(partner)


def cross_entropy(
    logits: Tensor, labels: Tensor, own: Tensor | None, smoothing: float, weights: Tensor | None = None
) -> Tensor:
    """Mean loss over the batch. `own` (N,) weights each image's label; its partner's label gets the rest.

    `weights` (classes,) multiply the loss of each label.
    """
    if own is None and weights is None:
        return F.cross_entropy(logits, labels, label_smoothing=smoothing)

    def per_image(target: Tensor) -> Tensor:
        loss = F.cross_entropy(logits, target, label_smoothing=smoothing, reduction="none")
        return loss if weights is None else weights[target] * loss

    return of_pairs(per_image, labels, own).mean()


def _partner(count: int, device: torch.device) -> Tensor:
    """The place of each image's partner; with an odd count the last image is its own partner."""
    return (torch.arange(count, device=device) ^ 1).clamp(max=count - 1)


def distillation(logits: Tensor, teacher: Tensor, recipe: Recipe, each: Tensor | None = None) -> Tensor:
    """Distillation loss between student and teacher logits (N, classes): mean over the batch, before weighting.

    `each` (N,) multiplies the loss of each image.
    """
    hot = recipe.temperature
    if recipe.distil == "hard":
        loss = F.cross_entropy(logits, teacher.argmax(1), reduction="mean" if each is None else "none")
    else:
        target, predicted = F.log_softmax(teacher / hot, 1), F.log_softmax(logits / hot, 1)
        if each is None:
            loss = hot**2 * F.kl_div(predicted, target, log_target=True, reduction="batchmean")
        else:
            loss = hot**2 * F.kl_div(predicted, target, log_target=True, reduction="none").sum(1)
    return loss if each is None else (each * loss).mean()
