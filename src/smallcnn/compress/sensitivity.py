"""How much each layer's channels matter: the score of a network that has lost a share of them, without training."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from smallcnn import runtime
from smallcnn.compress.pruning import scored
from smallcnn.compress.workshop import labelled
from smallcnn.data.sources import Data
from smallcnn.errors import TRAIN, require
from smallcnn.evaluate import Evaluation, ask, targets_for
from smallcnn.model.kinds import read
from smallcnn.model.model import Model
from smallcnn.model.shipped import located
from smallcnn.transform.prune.criteria import Criterion
from smallcnn.transform.prune.remove import remove
from smallcnn.transform.prune.tied import families, tied

SHARES = (0.25, 0.5, 0.75)
IMAGES = 500
"""Images that judge by default."""


@dataclass(frozen=True)
class Family:
    """Layers whose channels go together, how many sets of these there are, and the score without each share."""

    layers: tuple[str, ...]
    channels: int
    scores: tuple[float, ...]


@dataclass(frozen=True)
class Sensitivity:
    """The families of a network in order. `score` is the name of the task's score, `whole` that of the network."""

    score: str
    whole: float
    images: int
    part: str
    shares: tuple[float, ...]
    families: tuple[Family, ...]


def sensitivity(
    file: str | Path | Model,
    data: Data,
    *,
    root: str | Path | None = None,
    criterion: Criterion = "reconstruction",
    shares: tuple[float, ...] = SHARES,
    images: int = IMAGES,
    seed: int = 0,
    device: str = "auto",
    threads: int | None = None,
    workers: int | None = None,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Sensitivity:
    """Removes the channels of one family at a time, the lowest scores of the `criterion` first, and judges.

    The split that judges is that of `pipeline.compress`, at most `images` of it, evenly spread. Raises DataError or
    GraphError for data or a network that cannot be used.
    """
    require("pruning", "train", *TRAIN)
    model = file if isinstance(file, Model) else read(located(file))
    source, part = labelled(model, data, root)
    split = source.splits[part]
    targets = targets_for(model.task, source, split)
    among = np.unique(np.linspace(0, len(split) - 1, min(images, len(split))).round().astype(int)).tolist()

    def judged(one: Model) -> tuple[str, float]:
        net = runtime.of(one, threads=threads)
        answers = ask(net, split, targets, among=among, workers=workers)
        scores = Evaluation(part, None, net.task, answers, 0.0, split, source).scores
        return next(iter(scores.items()))

    sets = tied(model.graph)
    by_family = families(sets)
    values = scored(
        model, sets, criterion, source.splits["train"], seed=seed, device=device, threads=threads, workers=workers
    )
    name, whole = judged(model)
    found = []
    for number, family in enumerate(by_family):
        lowest = sorted(family, key=lambda one: (values[one], one))
        scores = []
        for place, share in enumerate(shares):
            report(number * len(shares) + place, len(by_family) * len(shares))
            gone = [sets[one] for one in lowest[: min(round(share * len(family)), len(family) - 1)]]
            graph, weights = remove(model.graph, model.weights, gone)
            scores.append(judged(replace(model, graph=graph, weights=weights))[1])
        layers = tuple(dict.fromkeys(layer for one in family for layer in sets[one].layers))
        found.append(Family(layers, len(family), tuple(scores)))
    return Sensitivity(name, whole, len(among), part, shares, tuple(found))
