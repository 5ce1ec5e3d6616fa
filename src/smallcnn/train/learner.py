"""The network in training: gradients and update of one step."""

from collections.abc import Mapping
from contextlib import nullcontext

import numpy as np
import torch
from torch import Tensor, nn

from smallcnn.data.loader import Batch
from smallcnn.errors import DataError
from smallcnn.ir.graph import Graph
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
"""A micro-batch: this process's rows of the batch, and their places in the batch of all processes."""


class Learner:
    """A network with its optimizer, averaged weights and teacher. A step is `gradients`, then `update`.

    Without `weights` the network starts from random weights of the recipe's seed. `size` (H, W, C) is that of the
    training images; `class_weights` (classes,) multiply the loss of an image. Call `choose` or `join` before the first
    step.
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

    def choose(self, way: Way, images: int) -> Choice:
        """Chooses the backend for a run over `images` images (see `compute.choose`).

        Our own kernels, if requested, compute in float32 even where the processor prefers bfloat16.
        """
        if way == "kernels":
            if self.recipe.precision == "bfloat16" or self.device.type != "cpu":
                what = "bfloat16" if self.recipe.precision == "bfloat16" else self.device.type
                raise DataError(f"--compute kernels is for float32 on the CPU, not {what}; drop one of the two")
            self.bfloat16 = False
        choice = choose(way, self.module, self.size, self.device, self.bfloat16, images)
        self.network = network(choice.way, self.module)
        return choice

    def join(self) -> None:
        """Trains together with the other processes, from the current weights."""
        self.network = wrap(self.module)
        self.bfloat16 = self.ranks.from_first(self.bfloat16)  # processors may differ

    def set_mode(self, head_only: bool) -> None:
        """Sets which layers learn, all or the last one only, and which norms use batch statistics."""
        self.module.train()
        freeze_body(self.graph, self.module, head_only)
        if head_only or self.recipe.batch_norm == "frozen":
            for layer in self.module.modules():
                if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                    layer.eval()

    def gradients(
        self, batch: Batch, parts: list[Part], count: int, draws: Draws, step: int, batch_size: int
    ) -> tuple[float, int]:
        """(mean loss, number of correct predictions) over the `count` images of all processes; sets the gradients.

        `step` counts from the start of the run; `batch_size` is that of a full step over all processes.
        """
        ranks = self.ranks
        seed_step(self.recipe, step)
        torch.manual_seed(torch.initial_seed() + ranks.number)  # its own dropout
        self.optimizer.zero_grad()
        mix = draw_mix(self.recipe, step, batch_size)
        total, hits = torch.zeros((), device=self.device), torch.zeros((), device=self.device)
        for number, (rows, places) in enumerate(parts, 1):
            images, labels, own = self._augmented(batch, rows, places, draws, mix)
            with nullcontext() if number == len(parts) else gradients_later(self.network):
                with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
                    logits = self.network(self.pixels.normalise(images)).float()
                loss = self._loss(logits, images, labels, own) * (len(labels) / count)
                (loss * ranks.count).backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
            hits += (logits.argmax(1) == labels).sum()
        value, correct = ranks.sum(torch.stack([total, hits]).tolist())  # waits for the device once
        return value, int(correct)

    def update(self, step: int, rate: float) -> None:
        """Updates the weights with the gradients at this learning rate, then the averaged weights."""
        set_rate(self.optimizer, rate)
        self.optimizer.step()
        if self.average:
            self.average.update(step)

    def _augmented(
        self, batch: Batch, rows: np.ndarray, places: np.ndarray, draws: Draws, mix: Mix | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """(images (N, C, H, W) in 0..1, labels, the share each image keeps if they are mixed)."""
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
            return logits.sum()  # an empty sum: zero, with zero gradients for the other processes
        each = None if self.class_weights is None else shared(self.class_weights[labels], own)
        loss = cross_entropy(logits, labels, own, recipe.label_smoothing, self.class_weights)
        if self.teacher is None:
            return loss
        theirs = distillation(logits, self.teacher.logits(images), recipe, each)
        return torch.lerp(loss, theirs, recipe.distil_weight)
