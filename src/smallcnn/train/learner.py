"""The network in training: gradients and update of one step."""

from collections.abc import Mapping
from contextlib import nullcontext

import numpy as np
import torch
from torch import Tensor, nn

from smallcnn.data.loader import Batch
from smallcnn.ir.graph import Graph
from smallcnn.ir.predictors import detector
from smallcnn.ir.types import Grid
from smallcnn.module import GraphModule, named, to_module, to_weights
from smallcnn.reference.initial import initial_weights
from smallcnn.train.augment import Draws, augmented, seed_step
from smallcnn.train.choice import Choice, Extent, choose
from smallcnn.train.compute import Computation, Network, Way
from smallcnn.train.distributed import gradients_later, wrap
from smallcnn.train.ema import Average
from smallcnn.train.fake_quantization import FakeQuantized
from smallcnn.train.loss import Mix, draw_mix
from smallcnn.train.objective import Objective
from smallcnn.train.optim import freeze_body, make_optimizer, set_rate
from smallcnn.train.pixels import Pixels
from smallcnn.train.ranks import Ranks
from smallcnn.train.recipe import Recipe
from smallcnn.train.slimming import Slimming
from smallcnn.train.ties import Ties
from smallcnn.transform.quantize import insert
from smallcnn.transform.share.hashed import hashed
from smallcnn.transform.undecided import undecided

Part = tuple[np.ndarray, np.ndarray]
"""A micro-batch: this process's rows of the batch, and their places in the batch of all processes."""


class Learner:
    """A network with its objective, optimizer and averaged weights. A step is `gradients`, then `update`.

    Without `weights` the network starts from random weights of the recipe's seed. A detector learns without its
    `Detect`, and is stored with it. With `grids`, one for each edge of a ready graph, it is trained as a quantized
    network. `size` (H, W, C) is that of the training images. Call `choose` before the first step, and after restoring
    weights.
    """

    computation: Computation
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
        grids: Mapping[str, Grid] | None = None,
    ) -> None:
        self.recipe, self.pixels, self.size, self.objective = recipe, pixels, size, objective
        self.device, self.ranks = pixels.device, ranks
        self._whole = graph
        if detector(graph):
            graph = undecided(graph)
        if weights is None:
            weights = initial_weights(graph, recipe.seed)
        if recipe.hashed:
            weights = hashed(graph, weights, recipe.hashed, recipe.seed)
        if grids is None:
            self.module = self._placed(to_module(graph, weights))
        else:
            self.module = self._placed(FakeQuantized(insert(graph, weights, grids)[0], weights))
        self.graph = self.module.graph
        self.optimizer = make_optimizer(recipe, self.graph, self.module)
        self.average = Average(self.module, recipe.ema) if recipe.ema else None
        self._slimming = Slimming(self.module, recipe.sparsity) if recipe.sparsity else None
        self._ties: Ties | None = None

    @property
    def averaged(self) -> GraphModule | None:
        """The module with the averaged weights, if the recipe has them."""
        return self.average.module if self.average else None

    def stored(self, module: GraphModule) -> tuple[Graph, dict[str, np.ndarray]]:
        """The network and weights that a model file has of `module`, whose own or averaged weights it takes."""
        if isinstance(module, FakeQuantized):
            return module.stored()
        return self._whole, to_weights(module)

    def as_stored(self, module: GraphModule) -> GraphModule:
        """The module to validate in place of `module`: for a quantized network, the numbers that its file stores."""
        return self._placed(to_module(*module.stored())) if isinstance(module, FakeQuantized) else module

    def choose(self, way: Way, extent: Extent) -> Choice:
        """Chooses what computes the steps of a run (see `choice`), and starts it from the present weights."""
        ranks = self.ranks
        self.set_mode(head_only=False)
        if self.recipe.keep_values or self.recipe.hashed:
            self._ties = Ties(self.module)
        choice = choose(way, self.recipe.precision, self.module, self.size, self.device, extent, ranks)
        self.computation = choice.computation
        with ranks.together(), ranks.in_turn():  # the first process of a machine compiles the kernels for all
            network = self.computation.network(self.module)
        self.network = network if ranks.alone else wrap(self.module, network)
        return choice

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
                with self.computation.autocast(self.device):
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
        if self._slimming:
            self._slimming.add()
        if self._ties:
            self._ties.project()
        self.optimizer.step()
        if self._ties:
            self._ties.restore()
        if self.average:
            self.average.update(step)

    def _placed(self, module: GraphModule) -> GraphModule:
        """The module on the training device, in its layout."""
        return module.to(self.device).to(memory_format=self.pixels.memory_format)  # type: ignore[call-overload]

    def _augmented(
        self, batch: Batch, rows: np.ndarray, places: np.ndarray, draws: Draws, mix: Mix | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """(images (N, C, H, W) in 0..1, targets, the share each image keeps if they are mixed)."""
        targets = torch.from_numpy(batch.labels_shown[rows])
        if not len(rows):
            nothing = self.pixels.load(np.zeros((0, *self.size), np.uint8))
            return nothing, targets.to(self.device), None
        if mix:
            order, mix = mix.among(places)
            rows, targets = rows[order], targets[torch.from_numpy(order)]
        loaded = self.pixels.load(batch.images[rows])
        images, own = augmented(self.recipe, loaded, draws.colours(batch.indices[rows]), mix)
        return images, targets.to(self.device), own
