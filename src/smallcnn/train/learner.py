"""The network while it learns: what one step does to it."""

from collections.abc import Mapping
from contextlib import nullcontext

import numpy as np
import torch
from torch import Tensor, nn

from smallcnn.data.loader import Batch
from smallcnn.errors import DataError
from smallcnn.graph import Graph
from smallcnn.module import GraphModule, to_module
from smallcnn.train.augment import Draws, augmented, seed_step
from smallcnn.train.compute import Choice, Network, Way, choose, network
from smallcnn.train.device import computes_bfloat16
from smallcnn.train.distributed import gradients_later, wrap
from smallcnn.train.ema import Average
from smallcnn.train.loss import Mix, cross_entropy, distillation, draw_mix, shared
from smallcnn.train.optim import freeze_body, make_optimizer, set_rate
from smallcnn.train.ranks import Ranks
from smallcnn.train.recipe import Recipe
from smallcnn.train.teacher import Teacher
from smallcnn.train.validation import Pixels

Part = tuple[np.ndarray, np.ndarray]
"""One part of a step: the rows of the batch that are this process's, and their places in the batch of all."""


class Learner:
    """A network with its optimizer, its averaged weights and its teacher. A step is `gradients`, then `update`.

        `weights` left out are the initial ones of the recipe's seed. `size` (H, W, C) is that of the images it learns
    XX` (classes,) multiply an image's loss.
        `choose` or `join` must be called before the first step.
    """

    network: Network

    def __init__(
        self,
        graph: Graph,
        weights: Mapping[str, np.ndarray] | None,
        recipe: Recipe,
        pixels: Pixels,
        size: tuple[int, int, int],
        teacher: Teacher | None,
        class_weights: np.ndarray | None,
        ranks: Ranks,
    ) -> None:
        self.graph, self.recipe, self.pixels, self.size, self.teacher = graph, recipe, pixels, size, teacher
        self.device, self.ranks = pixels.device, ranks
        self.class_weights = None if class_weights is None else torch.from_numpy(class_weights).to(self.device)
        self.module = to_module(graph, weights, seed=recipe.seed).to(self.device)
        self.module.to(memory_format=pixels.memory_format)  # type: ignore[call-overload]
        self.optimizer = make_optimizer(recipe, graph, self.module)
        self.average = Average(self.module, recipe.ema) if recipe.ema else None
        wanted = recipe.precision
        self.bfloat16 = wanted == "bfloat16" or (wanted == "auto" and computes_bfloat16(self.device))

    @property
    def averaged(self) -> GraphModule | None:
        """The module with the averaged weights, if the recipe has them."""
        return self.average.module if self.average else None

    def choose(self, way: Way, pictures: int) -> Choice:
        """Decides what computes the steps of a run of so many images (see `compute.choose`).

        Our own kernels, when asked for, compute in float32 whatever the processor prefers.
        """
        if way == "kernels":
            if self.recipe.precision == "bfloat16" or self.device.type != "cpu":
                what = "bfloat16" if self.recipe.precision == "bfloat16" else self.device.type
                raise DataError(f"--compute kernels is for float32 on the CPU, not {what}; leave out one of the two")
            self.bfloat16 = False
        choice = choose(way, self.module, self.size, self.device, self.bfloat16, pictures)
        self.network = network(choice.way, self.module)
        return choice

    def join(self) -> None:
        """Learns together with the other processes, from the weights that it has now."""
        self.network = wrap(self.module)
        self.bfloat16 = self.ranks.from_first(self.bfloat16)  # processors may differ

    def set_mode(self, head_only: bool) -> None:
        """What learns now, all or the last layer alone, and which norms follow the batch."""
        self.module.train()
        freeze_body(self.graph, self.module, head_only)
        if head_only or self.recipe.batch_norm == "frozen":
            for layer in self.module.modules():
                if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                    layer.eval()

    def gradients(
        self, batch: Batch, parts: list[Part], count: int, draws: Draws, step: int, batch_size: int
    ) -> tuple[float, int]:
        """Mean loss and right answers over `count` images, those of all processes; their gradients are then set.

        `step` counts from the beginning of the run, `batch_size` what a full step has in all processes.
        """
        ranks = self.ranks
        seed_step(self.recipe, step)
        torch.manual_seed(torch.initial_seed() + ranks.number)  # its own dropout
        self.optimizer.zero_grad()
        mix = draw_mix(self.recipe, step, batch_size)
        total, right = torch.zeros((), device=self.device), torch.zeros((), device=self.device)
        for number, (rows, places) in enumerate(parts, 1):
            images, labels, own = self._augmented(batch, rows, places, draws, mix)
            with nullcontext() if number == len(parts) else gradients_later(self.network):
                with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
                    logits = self.network(self.pixels.normalise(images)).float()
                loss = self._loss(logits, images, labels, own) * (len(labels) / count)
                (loss * ranks.count).backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
            right += (logits.argmax(1) == labels).sum()
        value, correct = ranks.sum(torch.stack([total, right]).tolist())  # one wait for the device
        return value, int(correct)

    def update(self, step: int, rate: float) -> None:
        """Moves the weights by the gradients, at this learning rate, and the averaged weights after them."""
        set_rate(self.optimizer, rate)
        self.optimizer.step()
        if self.average:
            self.average.update(step)

    def _augmented(
        self, batch: Batch, rows: np.ndarray, places: np.ndarray, draws: Draws, mix: Mix | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Images (N, C, H, W) in 0..1, labels, and the part of each image that is its own if they are mixed."""
        if not len(rows):
            nothing = self.pixels.load(np.zeros((0, *self.size), np.uint8))
            return nothing, torch.zeros(0, dtype=torch.int64, device=self.device), None
        if mix:
            order, mix = mix.among(places)
            rows = rows[order]
        labels = torch.from_numpy(batch.labels[rows]).to(self.device)
        loaded = self.pixels.load(batch.images[rows])
        images, own = augmented(self.recipe, loaded, draws.colours(batch.indices[rows]), mix)
        return images, labels, own

    def _loss(self, logits: Tensor, images: Tensor, labels: Tensor, own: Tensor | None) -> Tensor:
        recipe = self.recipe
        if not len(labels):
            return logits.sum()  # of nothing: zero, with gradients of zero for the other processes
        each = None if self.class_weights is None else shared(self.class_weights[labels], own)
        loss = cross_entropy(logits, labels, own, recipe.label_smoothing, self.class_weights)
        if self.teacher is None:
            return loss
        theirs = distillation(logits, self.teacher.logits(images), recipe, each)
        return torch.lerp(loss, theirs, recipe.distil_weight)
