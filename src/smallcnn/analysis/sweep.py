"""Accuracy and cost at input sizes other than the training size."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import sqrt

import numpy as np

from smallcnn import runtime
from smallcnn.cost.profile import profile
from smallcnn.data.sources import Split
from smallcnn.errors import AnswerError, GraphError
from smallcnn.evaluate import Evaluation, ask, targets_for
from smallcnn.ir import ops
from smallcnn.model.model import Model
from smallcnn.tasks.metrics import measure
from smallcnn.transform.adapt import with_resolution

_SEVENTHS = (4, 5, 6, 7, 8, 9)
"""0.57 to 1.28 of the training size; at 224, the sizes of MobileNet v1's Table 7 and two larger ones."""

_MULT_ADDS, _FEWEST, _MOST = 2e11, 100, 1000
"""Budget of one size, some seconds on one core, and the fewest and most images at it."""

_STATISTICS = 500
"""Images for batch-norm statistics. Sampling error costs accuracy: MobileNet v1 0.5 on flowers has a cross-entropy of
0.735 with 64 images, 0.702 to 0.713 with 256, 0.695 with 1000."""


@dataclass(frozen=True)
class SweepRow:
    """One input size (height, width). `top1_reestimated` is None if batch norm was not re-estimated, or answers then
    overflow."""

    size: tuple[int, int]
    mult_adds: int
    top1: float
    top1_reestimated: float | None


@dataclass(frozen=True)
class Sweep:
    """Rows by size, all on the same `images` images.

    `refused` maps each size that the network cannot have, or at which its answers overflow, to the reason. `note` says
    where the batch-norm statistics come from, or why there are none.
    """

    rows: tuple[SweepRow, ...]
    own_size: tuple[int, int]
    images: int
    refused: dict[tuple[int, int], str]
    note: str

    @property
    def standard_error(self) -> float:
        """Standard error of the accuracy at the network's own size."""
        (own,) = (row.top1 for row in self.rows if row.size == self.own_size)
        return sqrt(own * (1 - own) / self.images)


def at_size(model: Model, size: tuple[int, int]) -> Model:
    """The same weights at another input size. Raises GraphError if the network cannot have it."""
    if size == model.preprocessing.size:
        return model
    return replace(
        model,
        graph=with_resolution(model.graph, size),
        preprocessing=replace(model.preprocessing, size=size),
        facts=replace(model.facts, resized_from=list(model.preprocessing.size)),
    )


def sizes_around(size: tuple[int, int]) -> list[tuple[int, int]]:
    """Four to nine sevenths of a size, rounded to multiples of the largest power of two in a seventh."""
    return list(dict.fromkeys((_part(size[0], part), _part(size[1], part)) for part in _SEVENTHS))


def _part(side: int, sevenths: int) -> int:
    if sevenths == 7:
        return side
    step = 1 << (max(side // 7, 1).bit_length() - 1)
    return max(round(side * sevenths / 7 / step), 1) * step


def affordable(model: Model) -> int:
    """The default number of images at each size: 1000 for a small network, 100 for a very large one."""
    return int(np.clip(_MULT_ADDS / max(profile(model.graph).mult_adds, 1), _FEWEST, _MOST))


def sweep(
    model: Model,
    evaluation: Evaluation,
    *,
    images: int | None = None,
    renormed: bool = True,
    threads: int | None = None,
    workers: int | None = None,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Sweep:
    """Accuracy on `images` images spread evenly over those of `evaluation`, at each of `sizes_around` the model's.

    The default for `images` takes a few seconds per size. `renormed` adds the accuracy with batch norm re-estimated,
    which is slow for a large network. `report` is called with the number of sizes done and their total.
    """
    targets = targets_for(model.task, evaluation.source, evaluation.split)
    decoded = evaluation.answers.indices
    count = min(images or affordable(model), len(decoded))
    among = decoded[np.linspace(0, len(decoded) - 1, count).round().astype(int)].tolist()
    sizes = sizes_around(model.preprocessing.size)
    reestimate, note = _reestimation(model, evaluation, renormed, workers)
    rows, refused = [], {}
    for done, size in enumerate(sizes, start=1):
        try:
            resized = at_size(model, size)
        except GraphError as error:
            refused[size] = str(error)
            continue
        found = []
        try:
            for variant in [resized, *([reestimate(resized)] if reestimate else [])]:
                net = runtime.of(variant, threads=threads)
                answers = ask(net, evaluation.split, targets, among=among, workers=workers)
                found.append(measure(answers.logits, answers.labels).top1)
        except AnswerError as error:  # far from the size of its training, a sound network may overflow
            if not found:
                refused[size] = str(error)
                continue
        rows.append(SweepRow(size, profile(resized.graph).mult_adds, found[0], found[1] if len(found) > 1 else None))
        report(done, len(sizes))
    return Sweep(tuple(rows), model.preprocessing.size, count, refused, note)


def _reestimation(
    model: Model, evaluation: Evaluation, renormed: bool, workers: int | None
) -> tuple[Callable[[Model], Model] | None, str]:
    """The function that re-estimates batch norm, or None; and a sentence about it."""
    if not any(isinstance(node.op, ops.BatchNorm) for node in model.graph):
        return None, "The network has no batch norm to re-estimate."
    if not renormed:
        return None, "Batch norm was not re-estimated at each size; `smallcnn analyze` does that."
    if importlib.util.find_spec("torch") is None:
        return None, "Batch norm was not re-estimated: it needs the 'train' extra."
    sample, whose = statistics_split(model, evaluation)
    if len(sample) < _FEWEST:
        return (
            None,
            f"Batch norm was not re-estimated: it needs {_FEWEST} images, not {len(sample)} ({whose}).",
        )
    from smallcnn.train.renorm import reestimate

    count = min(_STATISTICS, len(sample))
    return (
        lambda resized: reestimate(resized, sample, most=count, workers=workers),
        f"Batch norm was re-estimated at each size from {count} images ({whose}); labels are not used.",
    )


def statistics_split(model: Model, evaluation: Evaluation) -> tuple[Split, str]:
    """The images for batch-norm statistics and their description: the training split if there is one.

    A data set without splits has one only for a network trained on it, which held out a validation split. For any other
    network all of it is held out, and only the evaluated images remain.
    """
    source, trained_on = evaluation.source, model.facts.data
    trained_here = trained_on is not None and trained_on.fingerprint == source.fingerprint
    if "train" in source.splits and (trained_here or not source.val_is_cut):
        return source.splits["train"], "the training split"
    return evaluation.split, "the evaluated images themselves"
