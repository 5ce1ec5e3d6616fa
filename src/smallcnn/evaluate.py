"""How good a model file is on labelled images, and what it says to each of them.

The module can be called as its function `evaluate`: smallcnn.evaluate("flowers.onnx", "photos").
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

import numpy as np

from smallcnn.data.labels import match_labels
from smallcnn.data.loader import batches
from smallcnn.data.preprocessing import Preprocessing
from smallcnn.data.sources import Source, Split, open_source
from smallcnn.errors import DataError
from smallcnn.metrics import Metrics, measure
from smallcnn.runtime import Net
from smallcnn.runtime import open as open_model

_BATCH = 16


@dataclass(frozen=True)
class Answers:
    """What a network says to those images of a split that can be decoded.

    float32 `logits` (N, classes), `labels` (N,) as the network numbers them, and `indices` (N,) of the images in the
    split; `skipped` says what could not be decoded and why.
    """

    logits: np.ndarray
    labels: np.ndarray
    indices: np.ndarray
    skipped: dict[str, str]


@dataclass(frozen=True)
class Evaluation:
    """Metrics over `split`, one part of a data set, and the answers they are of.

    `doubt` says what could make the chosen part the wrong one; None if it was asked for or is certain.
    """

    part: str
    doubt: str | None
    metrics: Metrics
    answers: Answers
    split: Split
    source: Source

    @property
    def skipped(self) -> dict[str, str]:
        """What could not be decoded, and why."""
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
    """Runs `net`, opened or the path of a model file, over the images of `data` (see `open_source`) and counts.

    `part` is train, val, test or all. Left out, it is what the network has not learned from: the test part if there is
    one; the validation part if the set has one, or if the network was trained on the rest of this very set (the same
    images, or a folder of the same name); otherwise all. `crop` is the part of an image's shorter side to look at,
    in place of the network's: 1 for images that are already cropped. `root` is where a named set's files are;
    `groups` as for `open_source`, needed only if the images have changed since training.
    `report` is called with the images done and their total.

    Raises DataError if the classes do not fit the labels of the network, or nothing could be decoded.
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
            doubt = "all images, as this is not the set it was trained on; any it was trained on would flatter it"
        elif part == "val" and source.val_is_cut and not same:
            doubt = (
                "only the part kept for validation, as a folder of this name was trained on (its images have changed "
                "since); for every image ask for the part all"
            )
            if trained_on.get("cut") and not source.cut:
                doubt += "; it was split by groups: give the same --groups, or learned images are among these"
    if part != "all" and part not in source.splits:
        raise DataError(f"{data} has no part {part!r}; it has {', '.join([*source.splits, 'all'])}")
    split = source.everything() if part == "all" else source.splits[part]
    if not len(split):
        raise DataError(f"{data} has no images in its part {part!r}")
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
    """Runs a network over the images of `split`, or those `among` them: uint8 (N, H, W, C) -> (N, classes).

    `index_of` is the network's number for each of the split's classes. Raises DataError if nothing can be decoded.
    """
    chosen = range(len(split)) if among is None else among
    logits, labels, indices = [], [], []
    skipped: dict[str, str] = {}
    done = 0
    loader = batches(
        split,
        lambda index: preprocessing.prepare(split.images[index]),
        chosen,
        batch_size=_BATCH,
        workers=workers,
    )
    for batch in loader:
        skipped |= batch.failed
        if len(batch.labels):
            logits.append(logits_of(batch.images))
            labels.append(index_of[batch.labels])
            indices.append(batch.indices)
        done += len(batch.labels) + len(batch.failed)
        report(done, len(chosen))
    if not labels:
        raise DataError(f"none of {len(chosen)} images could be decoded; the first: {next(iter(skipped.values()))}")
    return Answers(np.concatenate(logits), np.concatenate(labels), np.concatenate(indices), skipped)


class _Evaluate(ModuleType):
    __call__ = staticmethod(evaluate)


sys.modules[__name__].__class__ = _Evaluate
