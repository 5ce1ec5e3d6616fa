"""Structured pruning as a step: rounds of removing channels, each followed by fine-tuning."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import numpy as np

from smallcnn.compress.budget import MEASURES, Budget
from smallcnn.compress.workshop import Workshop
from smallcnn.data.split import Split
from smallcnn.errors import DataError, GraphError
from smallcnn.model.model import Model
from smallcnn.transform.prune import criteria
from smallcnn.transform.prune.choose import Order, removals, within
from smallcnn.transform.prune.criteria import Criterion
from smallcnn.transform.prune.remove import remove
from smallcnn.transform.prune.tied import Tied, families, tied


@dataclass(frozen=True, kw_only=True)
class Prune:
    """Removes channels until the network is within the `budget`.

    Each of the `rounds` scores the channels again by the `criterion`, removes those that matter least, by equal factors
    of the budget, in steps of `step` channels, and fine-tunes. `order` says whether layers are compared ("global") or
    all lose the same share ("layer"). Of the `epochs` of fine-tuning, at least half are in the last round; with 0, only
    batch norm's statistics are estimated again.
    """

    kind: ClassVar[str] = "prune"
    trains: ClassVar[bool] = True
    budget: Budget
    criterion: Criterion = "taylor"
    order: Order = "global"
    step: int = 8
    rounds: int = 3
    epochs: int = 8

    def __post_init__(self) -> None:
        if self.criterion not in criteria.CRITERIA:
            raise DataError(f"no criterion {self.criterion!r}; there are {', '.join(criteria.CRITERIA)}")
        if min(self.step, self.rounds) < 1 or self.epochs < 0:
            raise DataError("a step and rounds must be at least 1, epochs at least 0")

    def apply(self, model: Model, shop: Workshop) -> Model:
        """The pruned model. Raises DataError or GraphError if the budget cannot be met."""
        limits = self.budget.limits(model.graph, self.rounds)
        early = self.epochs // (2 * (self.rounds - 1)) if self.rounds > 1 else 0
        for number, limit in enumerate(limits, 1):
            epochs = early if number < self.rounds else self.epochs - early * (self.rounds - 1)
            of = f" {number} of {self.rounds}" if self.rounds > 1 else ""
            model = shop.once(f"pruned{of}", partial(self._pruned, model, limit, shop, settle=not epochs))
            if epochs:
                model = shop.once(f"fine-tuned{of}, {epochs} epochs", partial(shop.fine_tuned, model, epochs))
        return model

    def _pruned(self, model: Model, limit: float, shop: Workshop, settle: bool) -> Model:
        graph, sets = model.graph, tied(model.graph)
        if not sets:
            raise GraphError(f"{graph.name} has no channels that can be removed")
        by_family = families(sets)
        means = shop.means
        scores = scored(
            model, sets, self.criterion, shop.source.splits["train"], seed=means.seed, device=means.device,
            workers=means.workers,
        )  # fmt: skip
        if self.criterion != "taylor":
            scores = criteria.shares(scores, sets, by_family)
        unit = MEASURES[self.budget.measure].saves
        ordered = removals(graph, sets, by_family, scores, step=self.step, order=self.order, unit=unit)
        gone = within(graph, sets, ordered, self.budget.cost, limit)
        smaller, weights = remove(graph, model.weights, gone)
        made = replace(model, graph=smaller, weights=weights, facts=replace(model.facts, scores={}))
        return shop.settled(made) if settle else made


def scored(
    model: Model, sets: Sequence[Tied], criterion: Criterion, split: Split, *, seed: int, device: str,
    workers: int | None,
) -> np.ndarray:  # fmt: skip
    """The scores (sets,) of a criterion; `split` has the training images. Raises GraphError if it does not apply."""
    from smallcnn.compress.gradients import gradients

    match criterion:
        case "taylor":
            found = gradients(model, split, seed=seed, device=device, workers=workers)
            return criteria.taylor(model.weights, found, sets)
        case "l1" | "l2":
            return criteria.magnitude(model.graph, model.weights, sets, int(criterion[1]))
        case "norm":
            return criteria.norm_scale(model.graph, model.weights, sets)
        case "random":
            return criteria.random(sets, seed)
