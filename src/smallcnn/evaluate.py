"""Evaluation of a model file on labelled images: the task's scores, and the answer to each image.

The module is callable, as its function `evaluate`: smallcnn.evaluate("flowers.onnx", "photos").
"""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from smallcnn.data.loader import prepared_batches
from smallcnn.data.sources import Data, Source, Split, open_source
from smallcnn.errors import DataError
from smallcnn.image.geometry import Seen
from smallcnn.model.facts import TrainedOn
from smallcnn.runtime import BATCH, Net
from smallcnn.runtime import open as open_model
from smallcnn.tasks import coco
from smallcnn.tasks.attributes import Attributes
from smallcnn.tasks.classification import classification
from smallcnn.tasks.coco import Figures
from smallcnn.tasks.detection import Detection, DetectionAnswer, answers_of, detection
from smallcnn.tasks.labels import match_labels, some
from smallcnn.tasks.metrics import Metrics, measure, scores
from smallcnn.tasks.objects import CLASS, NO_BOX, Detections, Objects
from smallcnn.tasks.task import Task


@dataclass(frozen=True)
class Answers:
    """A network's answers to the images of a split that can be decoded.

    `outputs` are (N, ...) by name. `targets` are what the images are labelled with, as the network's task numbers it:
    the array of `data.targets`. `indices` (N,) are the images' positions in the split, `seen` the parts of them that
    the network was shown. `skipped` maps each image that could not be decoded to the reason.
    """

    outputs: dict[str, np.ndarray]
    targets: np.ndarray
    indices: np.ndarray
    seen: list[Seen]
    skipped: dict[str, str]

    @property
    def logits(self) -> np.ndarray:
        """A classifier's only output, float32 (N, classes)."""
        (logits,) = self.outputs.values()
        return logits

    @property
    def labels(self) -> np.ndarray:
        """A classifier's class numbers (N,)."""
        return self.targets


@dataclass(frozen=True)
class Evaluation:
    """Scores and answers over one split of a data set: `part` is its name, `split` its images.

    `doubt` says why the split might be the wrong one; None if it was given or is certain. `seconds` is the time to
    decode the images and answer them.
    """

    part: str
    doubt: str | None
    task: Task
    answers: Answers
    seconds: float
    split: Split
    source: Source

    @cached_property
    def scores(self) -> dict[str, float]:
        """The task's scores by name (see `tasks.metrics.scores`)."""
        if isinstance(self.task, Detection):
            return self.figures.scores
        return scores(self.task, self.answers.outputs, self.answers.targets)

    @cached_property
    def metrics(self) -> Metrics:
        """A classifier's metrics. Raises GraphError for another task."""
        ending = classification(self.task, "a confusion matrix").ending
        return measure(self.answers.logits, self.answers.labels, ending)

    @cached_property
    def found(self) -> list[DetectionAnswer]:
        """What a detector found in each image, without classes that the data set is not labelled with.

        Raises GraphError for another task.
        """
        task = detection(self.task, "a list of objects found")
        known = np.isin(task.labels, self.source.classes)
        answers = answers_of(task, self.answers.outputs, self.answers.seen)
        return [answer.take(known[answer.classes]) for answer in answers]

    @cached_property
    def figures(self) -> Figures:
        """A detector's figures, by class too. Raises GraphError for another task."""
        found = Detections.of(self.found)
        return coco.judge(Objects.of(self.answers.targets), found, len(self.task.labels))

    @property
    def images(self) -> int:
        """Number of images that were decoded."""
        return len(self.answers.indices)

    @property
    def skipped(self) -> dict[str, str]:
        """The images that could not be decoded, and why."""
        return self.answers.skipped


def evaluate(
    net: Net | str | Path,
    data: Data,
    *,
    root: str | Path | None = None,
    groups: str | Path | None = None,
    part: str | None = None,
    crop: float | None = None,
    workers: int | None = None,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Evaluation:
    """Runs `net`, opened or the path of a model file, on the images of `data` (see `open_source`) and scores it.

    `part` is the split: train, val, test or all. The default is the one the network was not trained on: the test split
    if there is one; else the validation split, if the data set has its own or the network was trained on the rest of
    this set (the same images, or a folder of the same name); else all images.

    `crop` replaces the network's share of the shorter side to keep; use 1 for images that are already cropped. `root`
    is the folder with a named set's files. `groups` is as for `open_source`, and needed only if the images have changed
    since training. `report` is called with the number of images done and their total.

    Raises DataError if the classes do not match the network's labels, or no image could be decoded.
    """
    if not isinstance(net, Net):
        net = open_model(net)
    if crop is not None:
        net = replace(net, preprocessing=replace(net.preprocessing, crop=crop))
    trained_on = net.facts.data or TrainedOn()
    source = opened_as_trained(data, trained_on, net.task, root=root, groups=groups)
    where = source.listing.place
    doubt = None
    if part is None:
        same, part = source.fingerprint == trained_on.fingerprint, unseen(source, trained_on)
        if part == "all" and net.facts.data:
            doubt = (
                "all images are used, as the model was trained on another data set; images shared by both would "
                "inflate the accuracy"
            )
        elif part == "val" and source.val_is_cut and not same:
            doubt = (
                "only the validation split is used, as the model was trained on a folder of this name (its images have "
                "changed since); use --split all for every image"
            )
            if trained_on.cut and not source.cut:
                doubt += "; it was split by groups: give the same --groups, or this split contains training images"
    if part != "all" and part not in source.splits:
        raise DataError(f"{where} has no split {part!r}; it has {', '.join([*source.splits, 'all'])}")
    split = source.everything() if part == "all" else source.splits[part]
    if not len(split):
        raise DataError(f"{where} has no images in its split {part!r}")
    targets = targets_for(net.task, source, split)
    started = time.perf_counter()
    answers = ask(net, split, targets, workers=workers, report=report)
    return Evaluation(part, doubt, net.task, answers, time.perf_counter() - started, split, source)


def targets_for(task: Task, source: Source, split: Split) -> np.ndarray:
    """What the images of a split are labelled with, as `task` numbers it: the array of `data.targets`.

    Raises DataError if the data set is labelled for another task, or with what the task does not know.
    """
    if task.kind != source.task.kind:
        raise DataError(f"labels do not match: the network is for {task.kind}, the data for {source.task.kind}")
    if isinstance(task, Attributes) and isinstance(source.task, Attributes):
        return task.present(source.task, split.targets.array)
    if isinstance(task, Detection):
        return _boxes(task.labels, source.classes, split.targets.array)
    return match_labels(source.classes, task.labels)[split.labels]


def _boxes(labels: Sequence[str], classes: Sequence[str], boxes: np.ndarray) -> np.ndarray:
    """Boxes (N, most, 7) with the classes of a data set numbered as the network's labels.

    The network may know other classes as well, and the data set name classes of which it has no boxes.
    """
    place = {label: number for number, label in reversed(list(enumerate(labels)))}
    numbers = boxes[:, :, CLASS].astype(np.int64)
    if unknown := [classes[i] for i in np.unique(numbers) if i != NO_BOX and classes[i] not in place]:
        raise DataError(f"labels do not match: the network does not know {some(unknown)}; it knows {some(labels)}")
    renumbered = boxes.copy()
    renumbered[:, :, CLASS] = np.array([*(place.get(name, NO_BOX) for name in classes), NO_BOX])[numbers]
    return renumbered


def opened_as_trained(
    data: Data, trained_on: TrainedOn, task: Task, *, root: str | Path | None = None, groups: str | Path | None = None
) -> Source:
    """The images of `data`, cut as when a network was trained on them. Raises DataError as `open_source` does."""
    kept: dict[str, Any] = {"seed": trained_on.seed, "val_fraction": trained_on.val_fraction}
    return open_source(
        data, root=root, columns=task if isinstance(task, Attributes) else None, groups=groups,
        cut=trained_on.cut or "", **{name: value for name, value in kept.items() if value is not None},
    )  # fmt: skip


def unseen(source: Source, trained_on: TrainedOn) -> str:
    """The split that a network was not trained on: test, val, or all if it was trained elsewhere."""
    trained_here = source.fingerprint == trained_on.fingerprint or Path(source.listing.place).name == trained_on.name
    if "test" in source.splits:
        return "test"
    if "val" in source.splits and (not source.val_is_cut or trained_here):
        return "val"
    return "all"


def ask(
    net: Net,
    split: Split,
    targets: np.ndarray,
    *,
    among: Sequence[int] | None = None,
    workers: int | None = None,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Answers:
    """Runs a network on the images of `split`, or on those at the indices `among`.

    `targets` are those of the whole split (see `targets_for`). Raises DataError if no image can be decoded.
    """
    chosen = range(len(split)) if among is None else among
    outputs: list[dict[str, np.ndarray]] = []
    indices: list[np.ndarray] = []
    seen: list[Seen] = []
    skipped: dict[str, str] = {}
    done = 0
    for batch in prepared_batches(split, net.preprocessing, chosen, batch_size=BATCH, workers=workers):
        skipped |= batch.failed
        if len(batch.indices):
            outputs.append(net.run(batch.images))
            indices.append(batch.indices)
            seen += batch.seen
        done += len(batch.indices) + len(batch.failed)
        report(done, len(chosen))
    if not indices:
        raise DataError(f"none of {len(chosen)} images could be decoded; first error: {next(iter(skipped.values()))}")
    together = {name: np.concatenate([answer[name] for answer in outputs]) for name in outputs[0]}
    answered = np.concatenate(indices)
    return Answers(together, targets[answered], answered, seen, skipped)


class _Evaluate(ModuleType):
    __call__ = staticmethod(evaluate)


sys.modules[__name__].__class__ = _Evaluate
