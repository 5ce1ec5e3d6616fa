"""HTML reports: a training run, and a model file on some images."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from smallcnn import runtime
from smallcnn.analysis.analyze import Analysis, Step
from smallcnn.analysis.findings import examine
from smallcnn.analysis.sweep import sweep
from smallcnn.bench.bench import Row
from smallcnn.cost.profile import Profile, profile
from smallcnn.data.sources import Data, Split
from smallcnn.errors import ImageError
from smallcnn.evaluate import Evaluation, evaluate
from smallcnn.model import store
from smallcnn.report import analysis as sections
from smallcnn.report import charts, page
from smallcnn.report.page import Section, write
from smallcnn.runtime import Net
from smallcnn.system import places
from smallcnn.tasks.classification import Classification
from smallcnn.tasks.metrics import average_precision
from smallcnn.tasks.task import Task
from smallcnn.train.epochs import Epoch
from smallcnn.train.epochs import title as title_of

if TYPE_CHECKING:
    from smallcnn.train.recipe import Recipe

__all__ = ["Section", "write"]

_TRAINING_IMAGES = 24

_QUICK_TO_RENORM = 2e7
"""Most Mult-Adds for which batch norm is re-estimated at six sizes in a few seconds."""


def of_run(run: Path, data: Data, goal: str = "top1") -> Path:
    """Writes report.html about the best weights of a training run on `data` to the run's folder; returns its path.

    `goal` is the score that made the weights the best.
    """
    net = runtime.open(run / "best.safetensors")
    evaluation = evaluate(net, data, part="val")
    trained = store.load(run / "best.safetensors")
    counted = profile(trained.graph)
    name = places.name(evaluation.source.listing.place)
    if isinstance(trained.task, Classification):
        score = evaluation.metrics.top1
        swept = sweep(trained, evaluation, renormed=counted.mult_adds <= _QUICK_TO_RENORM)
        about_answers = [
            accuracy(evaluation, net, name),
            *sections.of_findings(examine(evaluation, net.labels, net.ending), net.preprocessing),
            sections.of_sweep(swept),
        ]
    else:
        score, about_answers = evaluation.scores[goal], [labels(evaluation, net, name)]
    path = run / "report.html"
    write(
        path,
        f"{plain_name(net.name)} on {name}",
        [(f"{score:.1%}", f"validation {title_of(goal)}"), *_size(counted)],
        [
            curves(read_history(run), goal),
            *_training_images(net, evaluation),
            *about_answers,
            cost(counted),
            facts(net, []),
        ],
        _details(net),
    )
    return path


def read_history(run: Path) -> list[Epoch]:
    """The finished epochs of the run in this folder."""
    return [Epoch.from_json(json.loads(line)) for line in (run / "log.jsonl").read_text().splitlines()]


def plain_name(name: str) -> str:
    """A network's name for people: mobilenet_v1:width=0.5,separable=false becomes mobilenet_v1 0.5, not separable."""
    if not re.fullmatch(r"\w+(:\w+=[^,=]+(,\w+=[^,=]+)*)?", name):
        return name
    base, _, rest = name.partition(":")
    words = []
    for option in filter(None, rest.split(",")):
        key, _, value = option.partition("=")
        if key == "width" or not (value in ("true", "false") or value.replace(".", "").isdigit()):
            base += f" {value}"
        else:
            words.append({"true": key, "false": f"not {key}"}.get(value, f"{key} {value}"))
    return ", ".join([base, *words])


def _details(net: Net) -> str:
    size = "x".join(map(str, net.input_shape))
    what = "classes" if isinstance(net.task, Classification) else net.task.kind
    return f"{net.name}, input {size}, {len(net.labels)} {what}; {Path(net.where).name} in {net.engine}"


def _training_images(net: Net, evaluation: Evaluation) -> list[Section]:
    """Images of the run's first step as the network saw them; no section if the file has no recipe."""
    stored, split = net.facts.recipe, evaluation.source.splits.get("train")
    if stored is None or split is None:
        return []
    from smallcnn.train.recipe import Recipe
    from smallcnn.train.sight import first_images

    recipe = Recipe.from_dict(stored)
    seen = first_images(split, recipe, net.preprocessing, _TRAINING_IMAGES)
    figures = []
    for image, target, own, partner in zip(seen.images, seen.targets, seen.own, seen.partners, strict=True):
        names = [_named(evaluation.source.task, of) for of in (target, partner)]
        shown = [(share, name) for share, name in zip((own, 1 - own), names, strict=True) if share >= 0.005]
        mixed = len(set(names)) == len(shown) == 2
        caption = ", ".join(f"{name} {share:.0%}" for share, name in sorted(shown, reverse=True))
        figures.append(page.figure(image, None, caption if mixed else shown[0][1]))
    note = f"Training images as the network saw them in the first epoch: {_changes(recipe)}."
    return [Section("Training images", f"<p>{page.text(note)}</p>{page.grid(figures)}")]


def _named(task: Task, target: np.ndarray) -> str:
    """What one image is labelled with: its class, or the attributes present."""
    if isinstance(task, Classification):
        return task.labels[int(target)]
    return ", ".join(label for label, present in zip(task.labels, target, strict=True) if present == 1)


def _changes(recipe: "Recipe") -> str:
    """A recipe's augmentation in words."""
    done = []
    if recipe.augment == "photo":
        done.append(f"random crops of {recipe.min_area:.0%} to 100% of the area")
    if recipe.augment == "small":
        done.append("shifted by up to an eighth of a side")
    if recipe.augment != "none" and recipe.mirror:
        done.append("half of them mirrored")
    if recipe.augment == "photo" and recipe.jitter:
        done.append(f"brightness, contrast and saturation changed by up to {recipe.jitter:.0%}")
    mixed = [name for name in ("mixup", "cutmix") if getattr(recipe, name)]
    if mixed:
        done.append(f"pairs mixed ({' or '.join(mixed)})")
    return ", ".join(done) or "not changed"


def of_analysis(path: Path, analysis: Analysis, data: str) -> None:
    """Writes a page about a model file on images of `data`."""
    net, findings = analysis.net, analysis.findings
    evaluation, counted = findings.evaluation, analysis.model and profile(analysis.model.graph)
    write(
        path,
        f"{plain_name(net.name)} on {Path(data).name}",
        [
            (f"{evaluation.metrics.top1:.1%}", f"top-1 on {evaluation.metrics.images:,} images"),
            (f"{evaluation.metrics.top5:.1%}", "top-5"),
            (f"{findings.calibration.before.error:.1%}", "calibration error"),
            *(_size(counted) if counted else []),
        ],
        [
            accuracy(evaluation, net, Path(data).name),
            *([_steps(analysis.steps)] if len(analysis.steps) > 1 else []),
            *sections.of_findings(findings, net.preprocessing),
            *([sections.of_sweep(analysis.sweep)] if analysis.sweep else []),
            *([cost(counted)] if counted else []),
            facts(net, []),
        ],
        _details(net),
    )


def _steps(steps: Sequence[Step]) -> Section:
    rows = [[step.what, "x".join(map(str, step.size)), f"{step.top1:.2%}", f"{step.loss:.4f}"] for step in steps]
    note = "Each change applies to the network of the line above. The rest of the page is about the last one."
    return Section(
        "Changes without training", f"<p>{note}</p>{page.table(['network', 'input size', 'top-1', 'loss'], rows)}"
    )


def _size(counted: Profile) -> list[tuple[str, str]]:
    return [
        (f"{counted.mult_adds / 1e6:.1f} M", "Mult-Adds"),
        (f"{counted.parameters / 1e6:.2f} M", "parameters"),
        (f"{counted.weight_bytes / 1e6:.1f} MB", "weights, float32"),
    ]


def curves(history: Sequence[Epoch], goal: str) -> Section:
    """Loss and the score `goal` over the epochs."""
    rate = np.median([epoch.images_per_second for epoch in history])
    minutes = sum(epoch.seconds for epoch in history) / 60
    note = (
        f"{len(history)} epoch{'s' * (len(history) > 1)}, {minutes:.1f} minutes of training, "
        f"{rate:,.0f} images/s (median epoch). "
        "The training curves are measured on augmented images, with smoothed or mixed labels if the recipe has them. "
        "They are not comparable with validation."
    )
    return Section("Training", f"<p>{page.text(note)}</p>{charts.svg(charts.curves(history, goal))}")


def accuracy(evaluation: Evaluation, net: Net, data: str) -> Section:
    """Top-1, top-5 and the confusion matrix."""
    metrics = evaluation.metrics
    note = (
        f"{metrics.images} images of {data} ({evaluation.part}): "
        f"top-1 {metrics.top1:.2%}, top-5 {metrics.top5:.2%}, loss {metrics.loss:.3f}; "
        f"{Path(net.where).name} in {net.engine}."
    )
    doubt = f"<p>{page.text(evaluation.doubt)}</p>" if evaluation.doubt else ""
    skipped = ""
    if problems := evaluation.skipped.values():
        lines = page.text("\n".join(problems))
        skipped = (
            f"<details><summary>{len(problems)} images could not be decoded.</summary><pre>{lines}</pre></details>"
        )
    figure = charts.svg(charts.confusion_matrix(metrics.confusion, net.labels))
    return Section("Accuracy", f"<p>{page.text(note)}</p>{doubt}{skipped}{figure}")


def labels(evaluation: Evaluation, net: Net, data: str) -> Section:
    """Average precision of each attribute."""
    (logits,) = evaluation.answers.outputs.values()
    present = evaluation.answers.targets
    precision = average_precision(logits, present)
    rows = [
        [label, f"{np.nansum(present[:, i]):.0f}", f"{(~np.isnan(present[:, i])).sum()}",
         "" if np.isnan(precision[i]) else f"{precision[i]:.1%}"]
        for i, label in enumerate(evaluation.task.labels)
    ]  # fmt: skip
    scores = ", ".join(f"{title_of(name)} {score:.4g}" for name, score in evaluation.scores.items())
    note = f"{evaluation.images} images of {data} ({evaluation.part}): {scores}; {net.where} in {net.engine}."
    table = page.table(["label", "images with it", "images known", "average precision"], rows)
    return Section("Labels", f"<p>{page.text(note)}</p>{table}")


def predictions(net: Net, split: Split, classes: Sequence[str], most: int = 24) -> Section:
    """Images spread evenly over the split, with the network's answers; wrong answers are marked."""
    figures = []
    for index in np.linspace(0, len(split) - 1, min(most, len(split))).astype(int):
        try:
            image = net.preprocessing.prepare(split.images[index]).pixels
        except ImageError:
            continue  # the section on accuracy counts them
        seen, true = net.classify_prepared(image), classes[split.labels[index]]
        right = seen.label == true
        caption = f"{seen.label} {seen.probability:.0%}" + ("" if right else f", is {true}")
        figures.append(page.figure(image, right, caption))
    return Section("Predictions", page.grid(figures))


def cost(profile: Profile) -> Section:
    """Mult-Adds and parameters, by type and by layer."""
    rows = [
        [total.type, str(total.layers), f"{total.mult_adds:,}", f"{total.mult_adds / profile.mult_adds:.2%}",
         f"{total.parameters:,}", f"{total.parameters / profile.parameters:.2%}"]
        for total in profile.by_type()
        if total.mult_adds or total.parameters
    ]  # fmt: skip
    note = (
        f"{profile.name} at {'x'.join(map(str, profile.input_shape))}: {profile.mult_adds:,} Mult-Adds, "
        f"{profile.parameters:,} parameters, {profile.weight_bytes:,} bytes of float32 weights, "
        f"{profile.peak_activation_elements:,} activation elements at peak."
    )
    table = page.table(["type", "layers", "Mult-Adds", "%", "parameters", "%"], rows)
    return Section("Cost", f"<p>{page.text(note)}</p>{table}{charts.svg(charts.cost_per_layer(profile))}")


def latency(rows: Sequence[Row]) -> Section:
    """Times measured by `bench`."""
    cells = [
        [Path(row.file).name, row.engine, f"{row.median_ms:.3f}", f"{row.min_ms:.3f} - {row.max_ms:.3f}",
         f"{row.p90_ms:.3f}", f"{row.end_to_end_ms:.2f}", f"{row.load_ms:.0f}", f"{row.first_ms:.1f}"]
        for row in rows
    ]  # fmt: skip
    head = ["file", "engine", "median", "min - max", "p90", "with decoding", "load", "first"]
    note = f"Milliseconds for one image, {rows[0].threads} thread(s), {rows[0].cpu}. Outputs verified."
    return Section("Speed", f"<p>{page.text(note)}</p>{page.table(head, cells)}{charts.svg(charts.latency(rows))}")


def facts(net: Net, commands: Sequence[str]) -> Section:
    """How to reproduce the model: the commands, and the facts stored in the model file."""
    lines = f"<pre>{page.text(chr(10).join(commands))}</pre>" if commands else ""
    stored = f"<pre>{page.text(json.dumps(net.facts.to_json(), indent=2))}</pre>"
    return Section(
        "How this was made", f"{lines}<details><summary>facts stored in the model file</summary>{stored}</details>"
    )
