"""Evaluation of a model file on labelled images: metrics, and the answer to each image.

The module is callable, as its function `evaluate`: smallcnn.evaluate("flowers.onnx", "photos").
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

import numpy as np

from smallcnn.data.loader import prepared_batches
from smallcnn.data.sources import Source, Split, open_source
from smallcnn.errors import DataError
from smallcnn.image.fit import Preprocessing
from smallcnn.runtime import Net
from smallcnn.runtime import open as open_model
from smallcnn.tasks.labels import match_labels
from smallcnn.tasks.metrics import Metrics, measure

_BATCH = 16


@dataclass(frozen=True)
class Answers:
    """A network's answers to the images of a split that can be decoded.

    `logits` is float32 (N, classes). `labels` (N,) use the network's class numbers, and `indices` (N,) are the images'
    positions in the split. `skipped` maps each image that could not be decoded to the reason.
    """

    logits: np.ndarray
    labels: np.ndarray
    indices: np.ndarray
    skipped: dict[str, str]


@dataclass(frozen=True)
class Evaluation:
    """Metrics and answers over one split of a data set: `part` is its name, `split` its images.

    `doubt` says why the split might be the wrong one; None if it was given or is certain.
    """

    part: str
    doubt: str | None
    metrics: Metrics
    answers: Answers
    split: Split
    source: Source

    @property
    def skipped(self) -> dict[str, str]:
        """The images that could not be decoded, and why."""
        return self.answers.skipped


def evaluate(
    net: Net | str | Path,
    data: str | Path,
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
    trained_on = net.facts.get("data")
    trained_on = trained_on if isinstance(trained_on, dict) else {}
    cut = {key: trained_on[key] for key in ("seed", "val_fraction") if isinstance(trained_on.get(key), int | float)}
    source = open_source(data, root=root, groups=groups, cut=trained_on.get("cut", ""), **cut)
    doubt = None
    if part is None:
        same = source.fingerprint == trained_on.get("fingerprint")
        part = _unseen(source, trained_here=same or Path(data).name == trained_on.get("name"))
        if part == "all" and trained_on:
            doubt = (
                "all images are used, as the model was trained on another data set; images shared by both would "
                "inflate the accuracy"
            )
        elif part == "val" and source.val_is_cut and not same:
            doubt = (
                "only the validation split is used, as the model was trained on a folder of this name (its images have "
                "changed since); use --split all for every image"
            )
            if trained_on.get("cut") and not source.cut:
                doubt += "; it was split by groups: give the same --groups, or this split contains training images"
    if part != "all" and part not in source.splits:
        raise DataError(f"{data} has no split {part!r}; it has {', '.join([*source.splits, 'all'])}")
    split = source.everything() if part == "all" else source.splits[part]
    if not len(split):
        raise DataError(f"{data} has no images in its split {part!r}")
    index_of = match_labels(source.classes, net.labels)
    answers = ask(net.logits, net.preprocessing, split, index_of, workers=workers, report=report)
    return Evaluation(part, doubt, measure(answers.logits, answers.labels, net.ending), answers, split, source)


def _unseen(source: Source, trained_here: bool) -> str:
    if "test" in source.splits:
        return "test"
    if "val" in source.splits and (not source.val_is_cut or trained_here):
        return "val"
    return "all"


def ask(
    logits_of: Callable[[np.ndarray], np.ndarray],
    preprocessing: Preprocessing,
    split: Split,
    index_of: np.ndarray,
    *,
    among: Sequence[int] | None = None,
    workers: int | None = None,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Answers:
    """Runs a network, uint8 (N, H, W, C) -> (N, classes), on the images of `split`, or on those at the indices `among`.

    `index_of` is the network's number of each class of the split. Raises DataError if no image can be decoded.
    """
    chosen = range(len(split)) if among is None else among
    logits, labels, indices = [], [], []
    skipped: dict[str, str] = {}
    done = 0
    for batch in prepared_batches(split, preprocessing, chosen, batch_size=_BATCH, workers=workers):
        skipped |= batch.failed
        if len(batch.labels):
            logits.append(logits_of(batch.images))
            labels.append(index_of[batch.labels])
            indices.append(batch.indices)
        done += len(batch.labels) + len(batch.failed)
        report(done, len(chosen))
    if not labels:
        raise DataError(f"none of {len(chosen)} images could be decoded; first error: {next(iter(skipped.values()))}")
    return Answers(np.concatenate(logits), np.concatenate(labels), np.concatenate(indices), skipped)


class _Evaluate(ModuleType):
    __call__ = staticmethod(evaluate)


sys.modules[__name__].__class__ = _Evaluate
