"""The HTML report of a training run."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from smallcnn import runtime
from smallcnn.analysis.findings import examine
from smallcnn.analysis.objects import findings as of_detector
from smallcnn.analysis.sweep import sweep
from smallcnn.cost.profile import profile
from smallcnn.data.sources import Data
from smallcnn.evaluate import Evaluation, evaluate
from smallcnn.model import store
from smallcnn.model.model import Model
from smallcnn.report import analysis as sections
from smallcnn.report import charts, objects, page
from smallcnn.report.network import accuracy, cost, details, facts, labels, plain_name, size
from smallcnn.report.objects import with_objects
from smallcnn.report.page import Section, write
from smallcnn.runtime import Net
from smallcnn.system import places
from smallcnn.tasks.classification import Classification
from smallcnn.tasks.detection import Detection
from smallcnn.tasks.metrics import title as title_of
from smallcnn.tasks.objects import CLASS, NO_BOX
from smallcnn.tasks.task import Task
from smallcnn.train.epochs import Epoch

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
    path = run / "report.html"
    write(
        path,
        f"{plain_name(net.name)} on {name}",
        [(f"{evaluation.scores[goal]:.1%}", f"validation {title_of(goal)}"), *size(counted)],
        [
            curves(read_history(run), goal),
            *_training_images(net, evaluation),
            *_ABOUT[trained.task.kind](trained, net, evaluation, name),
            cost(counted),
            facts(net, []),
        ],
        details(net),
    )
    return path


def _of_classifier(trained: Model, net: Net, evaluation: Evaluation, data: str) -> list[Section]:
    swept = sweep(trained, evaluation, renormed=profile(trained.graph).mult_adds <= _QUICK_TO_RENORM)
    return [
        accuracy(evaluation, net, data),
        *sections.of_findings(examine(evaluation, net.labels, net.ending), net.preprocessing),
        sections.of_sweep(swept),
    ]


def _of_attributes(_: Model, net: Net, evaluation: Evaluation, data: str) -> list[Section]:
    return [labels(evaluation, net, data)]


def _of_detector(_: Model, net: Net, evaluation: Evaluation, data: str) -> list[Section]:
    return [objects.accuracy(evaluation, net, data), *objects.of_findings(of_detector.examine(evaluation))]


_ABOUT: dict[str, Callable[[Model, Net, Evaluation, str], list[Section]]] = {
    "classification": _of_classifier, "attributes": _of_attributes, "detection": _of_detector
}  # fmt: skip
"""The sections about the network's answers, by kind of task."""


def read_history(run: Path) -> list[Epoch]:
    """The finished epochs of the run in this folder."""
    return [Epoch.from_json(json.loads(line)) for line in (run / "log.jsonl").read_text().splitlines()]


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
        drawn = with_objects(image, target) if isinstance(evaluation.source.task, Detection) else image
        figures.append(page.figure(drawn, None, caption if mixed else shown[0][1]))
    note = f"Training images as the network saw them in the first epoch: {_changes(recipe)}."
    return [Section("Training images", f"<p>{page.text(note)}</p>{page.grid(figures)}")]


def _named(task: Task, target: np.ndarray) -> str:
    """What one image is labelled with: its class, the classes of its objects, or the attributes present."""
    if isinstance(task, Classification):
        return task.labels[int(target)]
    if isinstance(task, Detection):
        numbers = np.unique(target[:, CLASS]).astype(int).tolist()
        return ", ".join(task.labels[number] for number in numbers if number != NO_BOX) or "no objects"
    return ", ".join(label for label, present in zip(task.labels, target, strict=True) if present == 1)


def _changes(recipe: "Recipe") -> str:
    """A recipe's augmentation in words."""
    done = []
    if recipe.augment == "photo":
        done.append(f"random crops of {recipe.min_area:.0%} to 100% of the area")
    if recipe.augment == "detection":
        done.append(f"crops around objects, of images up to {recipe.zoom_out:g} times smaller")
    if recipe.mosaic:
        done.append(f"{recipe.mosaic:.0%} of them shown with three others")
    if recipe.augment == "small":
        done.append("shifted by up to an eighth of a side")
    if recipe.augment != "none" and recipe.mirror:
        done.append("half of them mirrored")
    if recipe.augment in ("photo", "detection") and recipe.jitter:
        done.append(f"brightness, contrast and saturation changed by up to {recipe.jitter:.0%}")
    mixed = [name for name in ("mixup", "cutmix") if getattr(recipe, name)]
    if mixed:
        done.append(f"pairs mixed ({' or '.join(mixed)})")
    return ", ".join(done) or "not changed"
