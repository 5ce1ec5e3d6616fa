"""`quantize`: a float model file becomes one that computes with bytes, if it is as accurate on other images.

smallcnn.quantize("runs/flowers/best.safetensors", "photos", "flowers_int8.safetensors")
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from smallcnn import runtime
from smallcnn.data.folder import images_in
from smallcnn.data.loader import all_prepared, prepared_batches
from smallcnn.data.sources import Data, Split
from smallcnn.data.targets import Classes
from smallcnn.engines.operators import Operators
from smallcnn.errors import AccuracyError, DataError, FileError
from smallcnn.evaluate import opened_as_trained, targets_for, unseen
from smallcnn.image.geometry import Seen
from smallcnn.model import store
from smallcnn.model.facts import TrainedOn
from smallcnn.model.kinds import read
from smallcnn.model.model import Model
from smallcnn.system.files import check_apart, check_writable
from smallcnn.tasks.classification import Classification
from smallcnn.tasks.detection import Detection, answers_of
from smallcnn.tasks.ending import PRESENT
from smallcnn.tasks.matching import found_by_both
from smallcnn.tasks.metrics import predicted, scores, title
from smallcnn.tasks.task import Outputs, Task
from smallcnn.transform.quantize import Report, Settings, without_integer_form, worst
from smallcnn.transform.quantize import quantize as quantized

Progress = Callable[[int, int, str], None]
"""Called with the number of steps done, their total and what is being done."""

IMAGES = 128
"""Calibration images by default."""
LEAST_AGREEMENT = 90.0
"""Least agreement, in per cent, where the data has no labels for the network."""


@dataclass(frozen=True)
class Quantized:
    """A quantized model, and how it compares with the float one on images that it was not calibrated on.

    `score` is the name of the task's score, `before` and `after` are its values from 0 to 1; all None if the data has
    no labels for the network, which `doubt` explains. `agreement` is the share of answers that are the same. `judged`
    is the number of images, `part` the split they are from. `kept_float` are the layers left in float.
    """

    model: Model
    report: Report
    score: str | None
    before: float | None
    after: float | None
    agreement: float
    judged: int
    part: str
    kept_float: tuple[str, ...]
    doubt: str | None

    @property
    def drop(self) -> float | None:
        """Points of the score that were lost, in per cent."""
        return None if self.before is None or self.after is None else 100 * (self.before - self.after)


def quantize(
    file: str | Path | Model,
    data: Data,
    out: str | Path,
    *,
    root: str | Path | None = None,
    images: int = IMAGES,
    max_drop: float = 1.0,
    settings: Settings | None = None,
    mixed: bool = False,
    anyway: bool = False,
    packed: bool = False,
    threads: int | None = None,
    workers: int | None = None,
    progress: Progress = lambda done, total, what: None,
) -> Quantized:
    """Quantizes a model file, or its contents, and writes it as .safetensors, maybe `packed`; see `transform.quantize`.

    Calibrates on `images` of the images that the network was trained on, or if it was trained elsewhere, on some of
    `data`; the others judge. With `mixed`, the worst layers are kept in float, one after the other, until the score
    drops by at most `max_drop` per cent points; so are operators without an integer form.

    Raises AccuracyError, without writing unless `anyway`, if the score drops by more, or if fewer than 90 % of the
    answers agree where there are no labels. Raises FileError, DataError or GraphError for a file, data or a network
    that cannot be used.
    """
    out = Path(out)
    if out.suffix.lower() != ".safetensors":
        raise FileError(f"{out}: a quantized model's name ends in .safetensors; `smallcnn export` turns it into ONNX")
    if not isinstance(file, Model):
        check_apart(out, file)
    model = file if isinstance(file, Model) else read(file)
    store.check_finite(model, model.graph.name)
    check_writable(out)
    settings = settings or Settings()
    if mixed:
        settings = _keeping(settings, without_integer_form(model.graph))
    data_sets = _divided(model, data, root, images)
    pixels = all_prepared(
        data_sets.calibration, model.preprocessing, workers=workers,
        report=lambda done, total: progress(done, total, "decoding"),
    )  # fmt: skip
    while True:
        made, report = quantized(
            model, pixels, settings, operators=lambda graph: Operators(graph, threads),
            report=lambda done, total: progress(done, total, "quantizing"),
        )  # fmt: skip
        found = _judged(model, made, report, data_sets, settings, threads, workers, progress)
        problem = _problem(found, max_drop)
        following = [layer for layer in worst(report.layers) if layer not in settings.keep_float]
        if not (problem and mixed and following):
            break
        settings = _keeping(settings, following[:1])
    if problem and not anyway:
        raise AccuracyError(f"{problem}; {_advice(found, mixed)}; --anyway writes it all the same")
    store.save(found.model, out, packed=packed)
    return found


def _keeping(settings: Settings, names: Sequence[str]) -> Settings:
    """The settings with more nodes kept in float."""
    return replace(settings, keep_float=tuple(dict.fromkeys((*settings.keep_float, *names))))


@dataclass(frozen=True)
class _Data:
    """Images to calibrate on, and others to judge on with their targets; without targets `doubt` says why."""

    calibration: Split
    judging: Split
    targets: np.ndarray | None
    part: str
    doubt: str | None


def _divided(model: Model, data: Data, root: str | Path | None, images: int) -> _Data:
    """Divides a data set; images need no labels. Raises DataError if there are none to judge on."""
    trained_on = model.facts.data or TrainedOn()
    try:
        source = opened_as_trained(data, trained_on, model.task, root=root)
    except DataError:
        if not (isinstance(data, str | Path) and Path(data).is_dir()):
            raise
        unlabelled, _ = images_in(Path(data))
        nothing = Classes(np.zeros(len(unlabelled), np.int64))
        whole = Split(unlabelled, nothing, [path.name for path in unlabelled])
        calibration, judging = _apart(whole, images)
        return _Data(calibration, judging, None, "all", "the images have no labels")
    part = unseen(source, trained_on)
    if part != "all" and "train" in source.splits:
        calibration, judging = _some(source.splits["train"], images), source.splits[part]
    else:
        calibration, judging = _apart(source.everything() if part == "all" else source.splits[part], images)
    try:
        targets = targets_for(model.task, source, judging)
    except DataError as error:
        return _Data(calibration, judging, None, part, str(error))
    return _Data(calibration, judging, targets, part, None)


def _some(split: Split, most: int) -> Split:
    """At most so many images of a split, evenly spread."""
    return split.subset(_spread(len(split), most))


def _apart(split: Split, most: int) -> tuple[Split, Split]:
    """At most so many images of a split, and at most half of them, evenly spread; and the others."""
    chosen = _spread(len(split), min(most, len(split) // 2))
    if not chosen:
        raise DataError(f"{len(split)} images: some are needed to calibrate on, and others to judge on")
    return split.subset(chosen), split.subset(sorted(set(range(len(split))) - set(chosen)))


def _spread(count: int, most: int) -> list[int]:
    if count <= most:
        return list(range(count))
    return [(2 * place + 1) * count // (2 * most) for place in range(most)]


def _judged(
    model: Model,
    made: Model,
    report: Report,
    data: _Data,
    settings: Settings,
    threads: int | None,
    workers: int | None,
    progress: Progress,
) -> Quantized:
    """Runs both networks on the images that judge."""
    nets = [runtime.of(one, threads=threads) for one in (model, made)]
    answers: tuple[list[Outputs], list[Outputs]] = ([], [])
    indices: list[np.ndarray] = []
    seen: list[Seen] = []
    done = 0
    for batch in prepared_batches(data.judging, model.preprocessing, batch_size=runtime.BATCH, workers=workers):
        if len(batch.indices):
            indices.append(batch.indices)
            seen += batch.seen
            for net, outputs in zip(nets, answers, strict=True):
                outputs.append(net.run(batch.images))
        done += len(batch.indices) + len(batch.failed)
        progress(done, len(data.judging), "judging")
    if not indices:
        raise DataError("none of the images to judge on can be decoded")
    before, after = (
        {name: np.concatenate([one[name] for one in outputs]) for name in outputs[0]} for outputs in answers
    )
    score: str | None = None
    values: list[float | None] = [None, None]
    if data.targets is not None:
        targets = data.targets[np.concatenate(indices)]
        both = [scores(model.task, outputs, targets, seen) for outputs in (before, after)]
        score = next(iter(both[0]))
        values = [one[score] for one in both]
    agreement = _agreement(model.task, before, after, seen)
    kept = tuple(node.name for node in made.graph if node.name in settings.keep_float)
    facts = {"images": report.images, "agreement": agreement, "kept_float": list(kept)}
    other = {**model.facts.other, "quantized": facts}
    return Quantized(
        model=replace(made, facts=replace(model.facts, scores={}, other=other)),
        report=report,
        score=score,
        before=values[0],
        after=values[1],
        agreement=agreement,
        judged=sum(map(len, indices)),
        part=data.part,
        kept_float=kept,
        doubt=data.doubt,
    )


def _agreement(task: Task, before: Outputs, after: Outputs, seen: Sequence[Seen]) -> float:
    """The share of equal answers: a classifier's best class, a detector's objects with a score above
    `ending.PRESENT`, or whether each label of another task is present.
    """
    if isinstance(task, Detection):
        both = zip(*(answers_of(task, outputs, seen) for outputs in (before, after)), strict=True)
        pairs = [(one.above(PRESENT), other.above(PRESENT)) for one, other in both]
        count = sum(len(answer.scores) for pair in pairs for answer in pair)
        return 2 * sum(found_by_both(*pair) for pair in pairs) / count if count else 1.0
    (one,), (other,) = before.values(), after.values()
    if isinstance(task, Classification):
        return float((predicted(one) == predicted(other)).mean())
    return float(((one > 0) == (other > 0)).mean())


def _problem(found: Quantized, max_drop: float) -> str | None:
    """What is wrong with the quantized network, in words; None if it is good enough."""
    if found.drop is not None and found.before is not None and found.after is not None:
        if found.drop <= max_drop:
            return None
        fall = f"from {found.before:.1%} to {found.after:.1%}, by {found.drop:.1f} points"
        return f"{title(found.score or '')} drops {fall}; at most {max_drop:g} are allowed"
    if 100 * found.agreement >= LEAST_AGREEMENT:
        return None
    return f"only {found.agreement:.1%} of the answers agree with the float network's, not {LEAST_AGREEMENT:g} %"


def _advice(found: Quantized, mixed: bool) -> str:
    """The layers with the largest errors, and what to try."""
    layers = ", ".join(worst(found.report.layers)[:3])
    tries = ["more --images", "training with smallcnn train --quantize"]
    return f"largest errors in {layers}; try {' or '.join(tries if mixed else ['--mixed', *tries])}"
