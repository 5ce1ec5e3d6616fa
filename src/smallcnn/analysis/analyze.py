"""Analysis of a model file on labelled images, with optional changes that need no training."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from smallcnn import runtime
from smallcnn.analysis.calibration import calibrated
from smallcnn.analysis.findings import Findings, examine
from smallcnn.analysis.sweep import Sweep, at_size, statistics_split, sweep
from smallcnn.data.sources import Data
from smallcnn.errors import DataError, FileError, GraphError, require
from smallcnn.evaluate import Evaluation, evaluate
from smallcnn.model import kinds
from smallcnn.model.model import Model
from smallcnn.runtime import Net
from smallcnn.tasks.classification import classification

Report = Callable[[str, int, int], None]
"""Called with the name of the current task, the amount done and the total."""


@dataclass(frozen=True)
class Step:
    """The network after a change: input size (height, width), top-1 and mean cross-entropy."""

    what: str
    size: tuple[int, int]
    top1: float
    loss: float


@dataclass(frozen=True)
class Analysis:
    """Results of `analyze`: `net` is the examined network, after the changes; `steps` is the accuracy after each.

    `model` has the crop of the file. It is None if the network cannot be read back; then there is no sweep, and
    `no_sweep` says why.
    """

    net: Net
    model: Model | None
    steps: tuple[Step, ...]
    findings: Findings
    sweep: Sweep | None
    no_sweep: str


def analyze(
    file: Path,
    data: Data,
    *,
    root: str | Path | None = None,
    part: str | None = None,
    crop: float | None = None,
    resolution: int | None = None,
    reestimate: bool = False,
    calibrate: bool = False,
    sweep_images: int | None = None,
    engine: str | None = None,
    threads: int | None = None,
    workers: int | None = None,
    net: Net | None = None,
    report: Report = lambda what, done, total: None,
) -> Analysis:
    """Analyzes a model file on the images of `data`; `root`, `part` and `crop` are as for `evaluate`.

    The optional changes are made in this order. `resolution` changes the input size. `reestimate` re-estimates batch
    norm (see `statistics_split`). `calibrate` divides the logits by the temperature that fits these images, in
    `model` only: the findings are about the network before it.

    `sweep_images` is the number of images at each input size; 0 for no sweep, by default as many as take a few seconds.
    `net` is the file if it is already open.

    Raises SmallcnnError for a change that the file does not allow.
    """
    net = net or runtime.open(file, engine=engine, threads=threads)
    ending = classification(net.task, "analyze").ending
    if ending == "none":
        raise DataError(f"{file}: gives scores; only probabilities can be analyzed (evaluate measures accuracy)")
    if ending == "sigmoid" and calibrate:
        raise DataError(f"{file}: ends in independent sigmoids; only a softmax has a temperature")
    own_crop = net.preprocessing.crop
    crop = crop or own_crop
    net = replace(net, preprocessing=replace(net.preprocessing, crop=crop))
    changes: list[Callable[[Model, Evaluation], tuple[str, Model]]] = []
    if resolution:
        size = (resolution, resolution)
        changes.append(lambda model, _: (f"at {resolution}x{resolution}", at_size(model, size)))
    if reestimate:
        changes.append(lambda model, seen: _renormed(model, seen, workers, report))
    model, no_sweep = _read(file, crop, needed=bool(changes) or calibrate)

    def judge(net: Net, data: Data) -> Evaluation:
        return evaluate(net, data, root=root, part=part, workers=workers, report=partial(report, "evaluating"))

    evaluation = judge(net, data)
    steps = [_step("as it is", net, evaluation)]
    for change in changes:
        assert model is not None
        what, model = change(model, evaluation)
        net = replace(runtime.of(model, engine=net.engine, threads=threads), path=net.path)
        evaluation = judge(net, evaluation.source)
        steps.append(_step(what, net, evaluation))
    findings = examine(evaluation, net.labels, net.ending)
    cooled = _cooled(model, findings) if model and calibrate else model
    swept = None
    if model and sweep_images != 0:
        swept = sweep(
            model, evaluation, images=sweep_images, threads=threads, workers=workers,
            report=partial(report, "other sizes"),
        )  # fmt: skip
    if cooled:
        cooled = replace(cooled, preprocessing=replace(cooled.preprocessing, crop=own_crop))
    return Analysis(net, cooled, tuple(steps), findings, swept, no_sweep)


def _step(what: str, net: Net, evaluation: Evaluation) -> Step:
    return Step(what, net.preprocessing.size, evaluation.metrics.top1, evaluation.metrics.loss)


def _read(file: Path, crop: float, needed: bool) -> tuple[Model | None, str]:
    """The network, or None and the reason; raises instead if it is needed."""
    try:
        model = kinds.read(file)
    except (FileError, GraphError) as error:
        if needed:
            raise
        return None, str(error)
    return replace(model, preprocessing=replace(model.preprocessing, crop=crop)), ""


def _renormed(model: Model, evaluation: Evaluation, workers: int | None, report: Report) -> tuple[str, Model]:
    require("re-estimating batch norm", "train", "torch")
    from smallcnn.train.renorm import reestimate

    split, whose = statistics_split(model, evaluation)
    again = reestimate(model, split, workers=workers, report=partial(report, "re-estimating batch norm"))
    facts = replace(again.facts, reestimated=(again.facts.reestimated or {}) | {"from": whose})
    return f"batch norm re-estimated from {whose}", replace(again, facts=facts)


def _cooled(model: Model, findings: Findings) -> Model:
    temperature = findings.calibration.temperature
    if temperature is None:
        raise DataError("cannot fit a temperature: too few images, all of them correct, or an untrained model")
    fact = {"temperature": temperature, "part": findings.evaluation.part, "images": findings.evaluation.metrics.images}
    return calibrated(replace(model, facts=replace(model.facts, calibrated=fact)), temperature)
