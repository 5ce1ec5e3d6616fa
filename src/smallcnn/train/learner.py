"""The network in training: gradients and update of one step."""

from collections.abc import Mapping
from contextlib import nullcontext

import numpy as np
import torch
from torch import Tensor, nn

from smallcnn.data.loader import Batch
from smallcnn.errors import DataError
from smallcnn.ir.graph import Graph
from smallcnn.module import GraphModule, named, to_module
from smallcnn.train.augment import Draws, augmented, seed_step
from smallcnn.train.compute import Choice, Network, Way, choose, network
from smallcnn.train.device import computes_bfloat16
from smallcnn.train.distributed import gradients_later, wrap
from smallcnn.train.ema import Average
from smallcnn.train.loss import Mix, draw_mix
from smallcnn.train.objective import Objective
from smallcnn.train.optim import freeze_body, make_optimizer, set_rate
from smallcnn.train.pixels import Pixels
from smallcnn.train.ranks import Ranks
from smallcnn.train.recipe import Recipe

Part = tuple[np.ndarray, np.ndarray]
"""A micro-batch: this process's rows of the batch, and their places in the batch of all processes."""


class Learner:
    """A network with its objective, optimizer and averaged weights. A step is `gradients`, then `update`.

    Without `weights` the network starts from random weights of the recipe's seed. `size` (H, W, C) is that of the
    training images. Call `choose` or `join` before the first step.
    """

    network: Network

    def __init__(
        self,
        graph: Graph,
        weights: Mapping[str, np.ndarray] | None,
        recipe: Recipe,
        pixels: Pixels,
        size: tuple[int, int, int],
        objective: Objective,
        ranks: Ranks,
    ) -> None:
        self.graph, self.recipe, self.pixels, self.size, self.objective = graph, recipe, pixels, size, objective
        self.device, self.ranks = pixels.device, ranks
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
    ) -> dict[str, float]:
        """Sets the gradients of the mean loss over the `count` images of all processes.

        Returns that loss, and the objective's other scores summed over the images. `step` counts from the start of the
        run; `batch_size` is that of a full step over all processes.
        """
        ranks, objective = self.ranks, self.objective
        seed_step(self.recipe, step)
        torch.manual_seed(torch.initial_seed() + ranks.number)  # its own dropout
        self.optimizer.zero_grad()
        mix = draw_mix(self.recipe, step, batch_size)
        sums: dict[str, Tensor] = {}
        for number, (rows, places) in enumerate(parts, 1):
            images, targets, own = self._augmented(batch, rows, places, draws, mix)
            with nullcontext() if number == len(parts) else gradients_later(self.network):
                with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
                    outputs = named(self.graph, self.network(self.pixels.normalise(images)))
                if len(targets):
                    loss = objective.loss(outputs, targets, own, images) * (len(targets) / count)
                else:  # empty sums: zero, with zero gradients for the other processes
                    loss = torch.stack([output.sum() for output in outputs.values()]).sum()
                (loss * ranks.count).backward()  # type: ignore[no-untyped-call]
            for name, value in {"loss": loss.detach() / objective.terms, **objective.hits(outputs, targets)}.items():
                sums[name] = value.float() + sums.get(name, 0.0)
        totals = ranks.sum(torch.stack(list(sums.values())).tolist())  # waits for the device once
        return dict(zip(sums, totals, strict=True))

    def update(self, step: int, rate: float) -> None:
        """Updates the weights with the gradients at this learning rate, then the averaged weights."""
        set_rate(self.optimizer, rate)
        self.optimizer.step()
        if self.average:
            self.average.update(step)

    def _augmented(
        self, batch: Batch, rows: np.ndarray, places: np.ndarray, draws: Draws, mix: Mix | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """(images (N, C, H, W) in 0..1, targets, the share each image keeps if they are mixed)."""
        targets = torch.from_numpy(batch.labels[rows])
        if not len(rows):
            nothing = self.pixels.load(np.zeros((0, *self.size), np.uint8))
            return nothing, targets.to(self.device), None
        if mix:
            order, mix = mix.among(places)
            rows, targets = rows[order], targets[torch.from_numpy(order)]
        loaded = self.pixels.load(batch.images[rows])
        images, own = augmented(self.recipe, loaded, draws.colours(batch.indices[rows]), mix)
        return images, targets.to(self.device), own
