"""Structured pruning as a step: rounds of removing channels, each followed by fine-tuning."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import numpy as np

from smallcnn.compress.budget import MEASURES, Budget
from smallcnn.compress.workshop import Workshop, calibration
from smallcnn.data.split import Split
from smallcnn.errors import DataError, GraphError
from smallcnn.model.model import Model
from smallcnn.system.words import several
from smallcnn.transform.prune import criteria
from smallcnn.transform.prune.choose import Order, removals, within
from smallcnn.transform.prune.criteria import Criterion
from smallcnn.transform.prune.even import cuts, evened
from smallcnn.transform.prune.reconstruction import reconstruction
from smallcnn.transform.prune.remove import remove
from smallcnn.transform.prune.repair import repaired
from smallcnn.transform.prune.tied import Tied, families, places, tied
from smallcnn.transform.quantize.values import Operators, live_bytes, usable


@dataclass(frozen=True, kw_only=True)
class Prune:
    """Removes channels until the network is within the `budget`.

    Each of the `rounds` scores the channels again by the `criterion`, removes those that matter least, by equal factors
    of the budget, in steps of `step` channels, solves the layers that read them again (`prune.repair`), and fine-tunes.
    By default there is one for each halving of what is limited. `order` says whether layers are compared ("global") or
    all lose the same share ("layer"). Of the `epochs` of fine-tuning, at least two thirds are in the last round. With
    `sparsity`, the network is first trained for as many epochs with that penalty on the scales of its batch norms
    (`train.slimming`), so that the criterion "norm" has a choice.
    """

    kind: ClassVar[str] = "prune"
    trains: ClassVar[bool] = True
    budget: Budget
    criterion: Criterion = "reconstruction"
    order: Order = "global"
    step: int = 8
    rounds: int | None = None
    epochs: int = 8
    sparsity: float = 0.0

    def __post_init__(self) -> None:
        if self.criterion not in criteria.CRITERIA:
            raise DataError(f"no criterion {self.criterion!r}; there are {', '.join(criteria.CRITERIA)}")
        if min(self.step, self.rounds or 1) < 1 or self.epochs < 0:
            raise DataError("a step and rounds must be at least 1, epochs at least 0")
        if self.sparsity and self.criterion != "norm":
            raise DataError(f"sparsity is trained for the criterion norm, not for {self.criterion}")

    def apply(self, model: Model, shop: Workshop) -> Model:
        """The pruned model. Raises DataError or GraphError if the budget cannot be met."""
        timed = MEASURES[self.budget.measure].timed
        start = shop.clock.milliseconds(model, timed) if timed else None
        limits = self.budget.limits(model.graph, self.rounds, start)
        rounds = len(limits)
        early = self.epochs // (3 * (rounds - 1)) if rounds > 1 else 0
        if self.sparsity and self.epochs:
            trained = partial(shop.fine_tuned, model, self.epochs, sparsity=self.sparsity)
            model = shop.once(f"trained for sparsity, {several(self.epochs, 'epoch')}", trained)
        for number, limit in enumerate(limits, 1):
            epochs = early if number < rounds else self.epochs - early * (rounds - 1)
            of = f" {number} of {rounds}" if rounds > 1 else ""
            model = shop.once(f"pruned{of}", partial(self._pruned, model, limit, shop))
            if epochs:
                model = shop.once(
                    f"fine-tuned{of}, {several(epochs, 'epoch')}", partial(shop.fine_tuned, model, epochs)
                )
        return model

    def _pruned(self, model: Model, limit: float, shop: Workshop) -> Model:
        model = _evened(model, shop)
        graph, sets = model.graph, tied(model.graph)
        if not sets:
            raise GraphError(f"{graph.name} has no channels that can be removed")
        by_family = families(sets)
        means = shop.means
        scores = scored(
            model, sets, self.criterion, shop.source.splits["train"], seed=means.seed, device=means.device,
            threads=means.threads, workers=means.workers,
        )  # fmt: skip
        if self.criterion not in criteria.COMPARABLE:
            scores = criteria.shares(scores, sets, by_family)
        measure = MEASURES[self.budget.measure]
        ordered = removals(graph, sets, by_family, scores, step=self.step, order=self.order, unit=measure.saves)
        unit = f"{measure.name}, by the compiler's estimate" if measure.timed else measure.name
        tried: list[tuple[Model, list[Tied]]] = []

        def smaller(most: float) -> Model:
            gone = within(graph, sets, ordered, self.budget.cost, most, unit)
            thin, weights = remove(graph, model.weights, gone)
            tried.append((replace(model, graph=thin, weights=weights, facts=replace(model.facts, scores={})), gone))
            return tried[-1][0]

        timed = measure.timed
        made = shop.clock.within(smaller, limit, model, measure.of, timed) if timed else smaller(limit)
        (gone,) = [sets for one, sets in tried if one is made]
        return replace(made, weights=remove(graph, _repaired(model, places(gone), shop), gone)[1])


def _evened(model: Model, shop: Workshop) -> Model:
    """The model with shuffles whose groups divide, as only then channels between them can be removed."""
    made = cuts(model.graph, model.weights)
    if not made:
        return model
    lost = {name: gone for cut in made for name, gone in cut.lost.items()}
    graph, weights = evened(model.graph, _repaired(model, lost, shop), made)
    return replace(model, graph=graph, weights=weights)


def _repaired(model: Model, lost: Mapping[str, list[int]], shop: Workshop) -> dict[str, np.ndarray]:
    """The weights that make up for lost channels, on some training images; see `prune.repair`."""
    means = shop.means
    images = _images(model, shop.source.splits["train"], means.workers, held=2)
    return repaired(model.graph, model.weights, lost, images, _operators(model, means.threads))


_BUDGET = 1 << 29
"""Bytes of results that are held at once; it limits the number of images."""


def _images(model: Model, split: Split, workers: int | None, *, held: int) -> np.ndarray:
    """Prepared images of a split, as many as fit if `held` networks keep their results."""
    most = max(1, _BUDGET // (held * live_bytes(model.graph)))
    return model.preprocessing.normalise(usable(calibration(split, model.preprocessing, workers), most))


def _operators(model: Model, threads: int | None) -> Operators:
    from smallcnn.engines import operators

    return operators.Operators(model.graph, threads)


def scored(
    model: Model, sets: Sequence[Tied], criterion: Criterion, split: Split, *, seed: int, device: str,
    threads: int | None, workers: int | None,
) -> np.ndarray:  # fmt: skip
    """The scores (sets,) of a criterion; `split` has the training images. Raises GraphError if it does not apply."""
    from smallcnn.compress.gradients import gradients

    match criterion:
        case "taylor":
            found = gradients(model, split, seed=seed, device=device, workers=workers)
            return criteria.taylor(model.weights, found, sets)
        case "reconstruction":
            images = _images(model, split, workers, held=1)
            return reconstruction(model.graph, model.weights, sets, images, _operators(model, threads))
        case "l1" | "l2":
            return criteria.magnitude(model.graph, model.weights, sets, int(criterion[1]))
        case "norm":
            return criteria.norm_scale(model.graph, model.weights, sets)
        case "random":
            return criteria.random(sets, seed)
