"""Starting and resuming a training run.

A run lives in a folder: best.safetensors and last.safetensors (models), checkpoint.safetensors (for resuming),
log.jsonl, tensorboard/.
"""

import hashlib
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from smallcnn import zoo
from smallcnn.data.sources import NAMED, Source, open_source
from smallcnn.errors import DataError, FileError
from smallcnn.image.fit import Fit, Preprocessing
from smallcnn.image.overrides import Overrides
from smallcnn.ir import ops
from smallcnn.ir.graph import Graph
from smallcnn.model.model import Model
from smallcnn.reference.initial import initial_weights
from smallcnn.system import lock, places
from smallcnn.system.files import remove_leftovers
from smallcnn.tasks.classification import classification
from smallcnn.tasks.labels import match_labels
from smallcnn.train import checkpoint, recipes
from smallcnn.train.compute import Way
from smallcnn.train.distributed import decoding_threads, joined, restarted
from smallcnn.train.loop import CHECKPOINT, Loop, Result
from smallcnn.train.ranks import Ranks
from smallcnn.train.recipe import Recipe, check_names
from smallcnn.train.teacher import Teacher, digest
from smallcnn.transform.adapt import classifier, keep, with_classes, with_resolution

_SMALL = 64
"""Largest side, in pixels, at which images are used uncropped and "auto" augments as for small images."""

_GENTLE, _GENTLER = 0.1, 0.01
"""Factors on the usual learning rate for a run from trained weights, with and without batch norm."""


def train(
    model: str | Graph | Model,
    data: str | Path,
    out: str | Path,
    *,
    resolution: int | None = None,
    fit: Fit | None = None,
    recipe: Recipe | str = "auto",
    teacher: str | Path | None = None,
    root: str | Path | None = None,
    groups: str | Path | None = None,
    resume: bool = False,
    compute: Way = "auto",
    device: str = "auto",
    workers: int | None = None,
    **changes: Any,
) -> Result:
    """Trains `model` on `data` (see `open_source`) into the folder `out`.

    `model` is one of:
    - a registry name with options;
    - a graph of your own, whose input and number of classes must fit the data;
    - the contents of a model file (`artifact.load`): the run starts from its weights and uses its preprocessing, with a
      new last layer unless the network knows all classes of the data.

    `resolution` applies to a name or an artifact. Its default is the artifact's resolution. For a name it is the
    network's own (mostly 224) with image files, and the images' size, at least 32, with arrays. `fit` says how images
    fill it, by default as the artifact's do, else by their centre.

    `recipe` is a Recipe, the name of one (see `recipes`), or "auto": the one for fine-tuning, for small images or for
    photographs. `changes` override its fields. `teacher` is a model file to learn from. `root` is the folder with the
    files of a named set. `groups` says which images must stay on one side of the split (`smallcnn.data.groups`).
    `compute` is the backend of a step: torch, our own kernels or torch.compile; "auto" tries the first two.
    `workers` is the number of decoding threads, by default one per core up to eight. With `resume` the run in `out`
    continues, if there is one; its settings must be the same.

    Ctrl-C finishes the step, writes a checkpoint and returns with `finished` false. Errors the user can fix raise a
    subclass of SmallcnnError. Under torchrun the processes compute one run together (docs/distributed.md); such an
    error is then raised in the first process and ends the others with exit code 2.
    """
    check_names(changes)
    with joined(device) as (ranks, on):
        with ranks.together(), ranks.in_turn():
            plain = replace(_named(recipe, 0, False), **changes)
            source = _open(data, plain, root, groups=groups)
            start = _start(model, source, resolution, plain.seed)
            start = replace(start, preprocessing=Overrides(fit=fit).over(start.preprocessing))
            chosen = replace(_named(recipe, min(start.graph.input_shape[:2]), start.came_from is not None), **changes)
        resumed = resume or restarted()
        return _run(start, source, data, root, out, chosen, teacher, resumed, compute, on, workers, ranks)


def resume(
    out: str | Path,
    *,
    data: str | Path | None = None,
    root: str | Path | None = None,
    teacher: str | Path | None = None,
    device: str = "auto",
    workers: int | None = None,
) -> Result:
    """Resumes the run in the folder `out`, with the settings it was started with.

    Pass `data`, `root` and `teacher` only if the images or the teacher's file have moved.
    """
    with joined(device) as (ranks, on):
        settings: dict[str, Any] = {}
        with ranks.together():
            if ranks.first:
                settings = _stored(Path(out))
                data, root, teacher = _places(Path(out), settings, data, root, teacher)
        settings, data, root, teacher = ranks.from_first((settings, data, root, teacher))
        assert data is not None
        with ranks.together(), ranks.in_turn():
            graph, recipe = Graph.from_json(settings["graph"]), Recipe.from_dict(settings["recipe"])
            start = _Start(graph, None, Preprocessing.from_json(settings["preprocessing"]), settings["start"])
            source = _open(data, recipe, root, cut=settings.get("cut", ""))
        return _run(start, source, data, root, out, recipe, teacher, True, "auto", on, workers, ranks)


def _stored(out: Path) -> dict[str, Any]:
    """The settings of the run in `out`."""
    state = out / CHECKPOINT
    if not state.is_file():
        raise DataError(f"{out}: no run to resume here; start one with MODEL and --data")
    return checkpoint.read_settings(state)


def _places(
    out: Path, settings: dict[str, Any], data: str | Path | None, root: str | Path | None, teacher: str | Path | None
) -> tuple[str | Path, str | Path | None, str | Path | None]:
    """Places of images, root and teacher: as given, else from the run's checkpoint, as far as `places` allows."""
    try:
        if root is None and settings["root"] is not None and (data is None or str(data) == settings["source"]):
            root = places.stored(settings["root"], "a folder", "give its place with --root")
        if data is None:
            data = places.stored(settings["source"], "a source of images", "give their place with --data")
        if teacher is None and settings["teacher"]:
            teacher = places.stored(settings["teacher"]["file"], "a teacher", "give its place with --teacher")
    except FileError as error:
        raise FileError(f"{out / CHECKPOINT}: {error}") from error
    return data, root, teacher


@dataclass(frozen=True)
class _Start:
    """Starting point of a run. `came_from` describes the artifact, if there was one, for the facts."""

    graph: Graph
    weights: Mapping[str, np.ndarray] | None
    preprocessing: Preprocessing
    came_from: dict[str, Any] | None


def _run(
    start: _Start,
    source: Source,
    data: str | Path,
    root: str | Path | None,
    out: str | Path,
    recipe: Recipe,
    teacher: str | Path | None,
    resume: bool,
    compute: Way,
    on: torch.device,
    workers: int | None,
    ranks: Ranks,
) -> Result:
    folder, resuming = Path(out), False
    with ExitStack() as kept:
        with ranks.together():
            if not ranks.alone and compute not in ("auto", "torch"):
                raise DataError(f"--compute {compute} needs a single process; several processes use torch")
            _check_apart(folder, data)
            graph = start.graph
            recipe = _settled(recipe, source, start)
            taught = Teacher(Path(teacher), source.classes, graph.input_shape[2], on) if teacher else None
            settings = {
                "model": graph.name,
                "graph": graph.to_json(),
                "preprocessing": start.preprocessing.to_json(),
                "start": start.came_from,
                "teacher": {"file": str(Path(teacher).resolve()), "digest": digest(Path(teacher))} if teacher else None,
                "source": _kept(data, root),
                "root": str(Path(root).resolve()) if root else None,
                "pictures": source.fingerprint
                + (hashlib.sha256(source.cut.encode()).hexdigest()[:8] if source.cut else ""),
                "cut": source.cut,
                "recipe": asdict(recipe),
            }
            if ranks.first:
                _check_folder(folder, settings, resume)
                kept.enter_context(lock.run_folder(folder))
                _check_folder(folder, settings, resume)  # again: another run may have held the lock until now
                remove_leftovers(folder)
                resuming = resume and (folder / CHECKPOINT).is_file()
                if resuming:  # the same backend as before, even if another is faster now or on this processor
                    stored = checkpoint.read_settings(folder / CHECKPOINT)
                    compute = stored["compute"]
                    if "bfloat16" in stored:
                        recipe = replace(recipe, precision="bfloat16" if stored["bfloat16"] else "float32")
            loop = Loop(
                graph, start.weights, start.preprocessing, source, recipe, folder, settings, str(data),
                teacher=taught, compute=compute, device=on, workers=workers or decoding_threads(), ranks=ranks,
            )  # fmt: skip
        return loop.run(resume=ranks.from_first(resuming))


def _kept(data: str | Path, root: str | Path | None) -> str | None:
    """The place where a later resume finds the images; None for a command, which no file may name."""
    place = str(data)
    if not places.scheme(place) and not (place in NAMED and (root is not None or not Path(place).exists())):
        place = str(Path(place).resolve())
    return place if places.can_be_stored(place) else None


def _named(recipe: Recipe | str, side: int, trained: bool) -> Recipe:
    if isinstance(recipe, Recipe):
        return recipe
    return recipes.named(recipes.suited(side, _SMALL, trained) if recipe == "auto" else recipe)


def _open(
    data: str | Path, recipe: Recipe, root: str | Path | None, groups: str | Path | None = None, cut: str = ""
) -> Source:
    source = open_source(data, root=root, seed=recipe.seed, val_fraction=recipe.val_fraction, groups=groups, cut=cut)
    _check_source(source, data)
    return source


def _check_source(source: Source, data: str | Path) -> None:
    if "train" not in source.splits:
        raise DataError(f"{data}: no training images")
    if source.untrainable:
        raise DataError(source.untrainable)
    if len(source.classes) < 2:
        line = source.left_out.line()
        raise DataError(
            f"{data}: only one class, {source.classes[0]!r}; a classifier needs at least two"
            + (f" ({line})" if line else "")
        )
    if not len(source.splits["val"]):
        raise DataError(f"{data}: too few images for a validation split; every class has only one image or one group")


def _start(model: str | Graph | Model, source: Source, resolution: int | None, seed: int) -> _Start:
    """The network for this data, with its initial weights and preprocessing."""
    if isinstance(model, Model):
        return _from_artifact(model, source, resolution, seed)
    graph = _build(model, source, resolution) if isinstance(model, str) else _fitting(model, source)
    height, width, channels = graph.input_shape
    crop = 1.0 if min(height, width) <= _SMALL else 0.875
    return _Start(graph, None, Preprocessing((height, width), (0.5,) * channels, (0.5,) * channels, crop), None)


def _from_artifact(artifact: Model, source: Source, resolution: int | None, seed: int) -> _Start:
    graph, weights, preprocessing = artifact.graph, dict(artifact.weights), artifact.preprocessing
    size = (resolution, resolution) if resolution else preprocessing.size
    if size != preprocessing.size:
        graph = with_resolution(graph, size)
    last = classifier(graph)
    head = [f"{last.name}.{key}" for key in graph.weights_of(last)]
    new = False
    try:
        known = match_labels(source.classes, artifact.labels)
        weights |= {name: weights[name][known] for name in head}
    except DataError:
        new = True
    if (
        new or classification(artifact.task, "train").ending == "none"
    ):  # arbitrary scores are not logits, so the last layer is replaced
        new = True
        weights = {name: value for name, value in weights.items() if name not in head}
    if new or len(source.classes) < len(artifact.labels):
        graph = with_classes(graph, len(source.classes))
    digest = hashlib.sha256(b"".join(np.ascontiguousarray(value).data for value in artifact.weights.values()))
    came_from = {"model": artifact.graph.name, "weights": digest.hexdigest(), "new_last_layer": new} | {
        key: artifact.facts[key] for key in ("imported", "val_top1") if key in artifact.facts
    }
    kept = keep(graph, weights)
    return _Start(graph, initial_weights(graph, seed) | kept, replace(preprocessing, size=size), came_from)


def _build(model: str, source: Source, resolution: int | None) -> Graph:
    """The registry's network, built for the data's resolution, classes and channels."""
    images = source.splits["train"].images
    chosen = {"classes": len(source.classes)} | ({"resolution": resolution} if resolution else {})
    if isinstance(images, np.ndarray):
        chosen = {"resolution": max(32, *images.shape[1:3])} | chosen
        chosen["channels"] = 1 if images.ndim == 3 or images.shape[3] == 1 else 3
    return zoo.parse(model).build(**chosen)


def _fitting(graph: Graph, source: Source) -> Graph:
    """`graph`, if it fits the data."""
    if graph.output_shape != (len(source.classes),):
        raise DataError(f"{graph.name} has an output of shape {graph.output_shape} for {len(source.classes)} classes")
    if graph.input_shape[2] not in (1, 3):
        raise DataError(f"{graph.name} takes {graph.input_shape[2]} channels; images have 1 or 3")
    return graph


def _settled(recipe: Recipe, source: Source, start: _Start) -> Recipe:
    """The recipe with all defaults filled in, so that it can be stored and compared."""
    side = min(start.graph.input_shape[:2])
    augment = ("small" if side <= _SMALL else "photo") if recipe.augment == "auto" else recipe.augment
    mirror = source.mirror if recipe.mirror is None else recipe.mirror
    if recipe.train_scale != 1:
        height, width, _ = start.graph.input_shape
        with_resolution(start.graph, (round(height * recipe.train_scale), round(width * recipe.train_scale)))
    factor = 1.0
    if start.came_from and recipe.lr is None:
        factor = _GENTLE if any(isinstance(node.op, ops.BatchNorm) for node in start.graph) else _GENTLER
    return replace(recipe, augment=augment, mirror=mirror, lr=factor * recipe.peak_lr, weight_decay=recipe.decay)


def _check_apart(folder: Path, data: str | Path) -> None:
    """Raises DataError if the run would write among the images, where the next run would find its files."""
    if Path(data).is_dir() and folder.resolve().is_relative_to(Path(data).resolve()):
        raise DataError(f"{folder}: inside the folder of images {data}; choose an --out outside it")


def _check_folder(folder: Path, settings: dict[str, Any], resume: bool) -> None:
    """Raises DataError if this run must not use `folder`. Changes nothing."""
    state = folder / CHECKPOINT
    if not resume and any(folder.glob("*.safetensors")):
        raise DataError(f"{folder} already holds a run; --resume continues it, or choose another --out")
    if resume and not state.is_file() and any(folder.glob("*.safetensors")):
        raise DataError(f"{folder} holds models but no {CHECKPOINT} to resume from; choose another --out")
    if state.is_file():
        stored = checkpoint.read_settings(state)
        if stored["pictures"] != settings["pictures"]:
            raise DataError(
                f"{folder}: cannot resume on these images; the run was started on others (images were added, removed, "
                "renamed or grouped differently, or it is another data set). Resume on the same images, or train into "
                "another folder"
            )
        old, new = _flat(stored), _flat(settings)
        changed = [_different(key, old[key], new[key]) for key in new if old[key] != new[key]]
        if stored["graph"] != settings["graph"]:
            changed.append("the network, its input size or its number of classes is different")
        if changed:
            raise DataError(
                f"{folder}: cannot resume with other settings: {'; '.join(changed)}; "
                "keep the run's own settings, or train into another folder"
            )


def _different(key: str, old: object, new: object) -> str:
    """Describes a changed setting in the user's terms."""
    match key:
        case "start":
            return "the initial weights are different"
        case "teacher" if old and new:
            return "the teacher is another file"
        case "teacher":
            return "the run was started with a teacher" if old else "the run was started without a teacher"
        case "model":
            return f"the network was {old} and is now {new}"
    return f"--{key.replace('_', '-')} was {old} and is now {new}"


def _flat(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings that must match to resume; images and teacher may have moved, but not changed."""
    teacher = settings["teacher"] and settings["teacher"]["digest"]
    recipe = asdict(Recipe.from_dict(settings["recipe"]))  # fills in fields that an older smallcnn lacked
    return {"model": settings["model"], "start": settings["start"], "teacher": teacher} | recipe
