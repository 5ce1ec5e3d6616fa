"""The starting point of a run: the network for the data, its weights and preprocessing, and the settled recipe."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from smallcnn import zoo
from smallcnn.data.questions import Columns
from smallcnn.data.sources import Data, Source, open_source
from smallcnn.errors import DataError
from smallcnn.image.fit import Fit, Preprocessing
from smallcnn.ir import ops
from smallcnn.ir.graph import Graph
from smallcnn.ir.predictors import detector
from smallcnn.model.facts import Facts
from smallcnn.model.model import Model
from smallcnn.reference.initial import initial_weights
from smallcnn.tasks.classification import Classification
from smallcnn.tasks.detection import Detection
from smallcnn.tasks.kinds import TASKS
from smallcnn.tasks.labels import match_labels
from smallcnn.train import recipes, slimming
from smallcnn.train.recipe import GENTLE, GENTLER, Augment, Recipe
from smallcnn.train.settings import Origin
from smallcnn.train.start_detector import from_detector, over_backbone, usual_detector
from smallcnn.transform.adapt import classifier, keep, with_classes, with_resolution
from smallcnn.transform.undecided import decision

_SMALL = 64
"""Largest side, in pixels, at which images are used uncropped and "auto" augments as for small images."""

_FIT: Fit = "stretch"
"""The fit of detectors, as SSD's: the whole image, as objects may be anywhere."""


@dataclass(frozen=True)
class Start:
    """Starting point of a run. Without `weights` they are random; `origin` describes the model they come from."""

    graph: Graph
    weights: Mapping[str, np.ndarray] | None
    preprocessing: Preprocessing
    origin: Origin | None


def opened(
    data: Data,
    recipe: Recipe,
    root: str | Path | None,
    *,
    columns: Columns = None,
    groups: str | Path | None = None,
    cut: str = "",
    task: str | None = None,
) -> Source:
    """The images of a run. Raises DataError if they cannot be trained on, or are labelled for another `task`."""
    source = open_source(
        data, root=root, columns=columns, seed=recipe.seed, val_fraction=recipe.val_fraction, groups=groups, cut=cut
    )
    place = source.listing.place
    if task is not None and task != source.task.kind:
        known = "" if task in TASKS else f"; there are {', '.join(TASKS)}"
        raise DataError(f"{place}: labelled for {source.task.kind}, not for {task}{known}")
    if "train" not in source.splits:
        raise DataError(f"{place}: no training images")
    if source.untrainable:
        raise DataError(source.untrainable)
    if len(source.classes) < 2 and isinstance(source.task, Classification):
        line = source.left_out.line()
        raise DataError(
            f"{place}: only one class, {source.classes[0]!r}; a classifier needs at least two"
            + (f" ({line})" if line else "")
        )
    if not len(source.splits["val"]):
        raise DataError(f"{place}: too few images for a validation split; every class has only one image or one group")
    return source


def start(
    model: str | Graph | Model, source: Source, resolution: int | None, seed: int, backbone: Model | None = None
) -> Start:
    """The network for this data: built by name, given as a graph, or a model's with a new last layer if needed.

    A detector may start with the `backbone` of a classifier; a classifier alone, for objects, becomes that of the usual
    detector.
    """
    detects = isinstance(source.task, Detection)
    if isinstance(model, Model):
        if isinstance(model.task, Detection) == detects:
            return _from_model(model, source, resolution, seed)
        if not detects:
            raise DataError(f"{model.graph.name} is a detector, the data is for {source.task.kind}")
        return start(usual_detector(model.graph), source, resolution, seed, model)
    graph = _build(model, source, resolution) if isinstance(model, str) else model
    if backbone and not detector(graph):
        raise DataError("give MODEL or --from, not both: the file contains its network")
    if bool(detector(graph)) != detects:
        hint = f"; {usual_detector(graph)} is one" if detects and isinstance(model, str) else ""
        raise DataError(f"{graph.name} is {'not ' * detects}a detector, the data is for {source.task.kind}{hint}")
    _check_fits(graph, source)
    if backbone:
        return _over_backbone(graph, backbone, seed)
    height, width, channels = graph.input_shape
    mean = (0.5,) * channels
    if detects:
        return Start(graph, None, Preprocessing((height, width), mean, mean, fit=_FIT), None)
    crop = 1.0 if min(height, width) <= _SMALL else 0.875
    return Start(graph, None, Preprocessing((height, width), mean, mean, crop), None)


def _from_model(model: Model, source: Source, resolution: int | None, seed: int) -> Start:
    graph, weights, preprocessing = model.graph, dict(model.weights), model.preprocessing
    _check_float(graph)
    size = (resolution, resolution) if resolution else preprocessing.size
    known = _known(model, source)
    origin = _origin(model, known is None)
    if isinstance(model.task, Detection):
        graph, weights = from_detector(model, size, len(source.classes), known, seed)
        return Start(graph, weights, replace(preprocessing, size=size), origin)
    if size != preprocessing.size:
        graph = with_resolution(graph, size)
    last = classifier(graph)
    head = [f"{last.name}.{key}" for key in graph.weights_of(last)]
    if known is None:
        weights = {name: value for name, value in weights.items() if name not in head}
    else:
        weights |= {name: weights[name][known] for name in head}
    if known is None or len(source.classes) < len(model.labels):
        graph = with_classes(graph, len(source.classes))
    kept = keep(graph, weights)
    return Start(graph, initial_weights(graph, seed) | kept, replace(preprocessing, size=size), origin)


def _over_backbone(graph: Graph, model: Model, seed: int) -> Start:
    """A detector that starts with a classifier's backbone, and sees images in its colours."""
    _check_float(model.graph)
    size = graph.input_shape[:2]
    preprocessing = replace(model.preprocessing, size=size, fit=_FIT, crop=1.0)
    return Start(graph, over_backbone(graph, model, seed), preprocessing, _origin(model, new_last_layer=True))


def _origin(model: Model, new_last_layer: bool) -> Origin:
    """What a run keeps of the model that it starts from."""
    digest = hashlib.sha256(b"".join(np.ascontiguousarray(value).data for value in model.weights.values()))
    about = Facts(imported=model.facts.imported, scores=model.facts.scores).to_json()
    return Origin(model=model.graph.name, weights=digest.hexdigest(), new_last_layer=new_last_layer, about=about)


def _check_float(graph: Graph) -> None:
    if graph.integer:
        raise DataError(f"{graph.name} is already quantized; train the float model that it was made from")


def _known(model: Model, source: Source) -> np.ndarray | None:
    """The place of each of the data's labels among the model's; None if the last layer must be replaced.

    Arbitrary scores are not logits, and logits of another task mean something else.
    """
    task = model.task
    if task.kind != source.task.kind or (isinstance(task, Classification) and task.ending == "none"):
        return None
    try:
        return match_labels(source.classes, model.labels)
    except DataError:
        return None


def _build(model: str, source: Source, resolution: int | None) -> Graph:
    """The registry's network, built for the data's resolution, labels and channels."""
    images = source.splits["train"].images
    chosen = {"classes": len(source.classes)} | ({"resolution": resolution} if resolution else {})
    if isinstance(images, np.ndarray):
        chosen = {"resolution": max(32, *images.shape[1:3])} | chosen
        chosen["channels"] = 1 if images.ndim == 3 or images.shape[3] == 1 else 3
    return zoo.parse(model).build(**chosen)


def _check_fits(graph: Graph, source: Source) -> None:
    """Raises DataError unless the network fits the data."""
    if isinstance(source.task, Detection):
        end = detector(graph)
        assert end is not None
        found = decision(graph).found_classes(graph[end.inputs[1]].shape)
        if found != len(source.classes):
            raise DataError(f"{graph.name} finds {found} classes of objects; the data has {len(source.classes)}")
    elif graph.output_shape != (len(source.classes),):
        raise DataError(f"{graph.name} has an output of shape {graph.output_shape} for {len(source.classes)} classes")
    if graph.input_shape[2] not in (1, 3):
        raise DataError(f"{graph.name} takes {graph.input_shape[2]} channels; images have 1 or 3")


def named(recipe: Recipe | str, start: Start | None = None, *, quantize: bool = False) -> Recipe:
    """The recipe by name; "auto" is the one suited to the start, or to quantization-aware training."""
    if isinstance(recipe, Recipe):
        return recipe
    if recipe != "auto":
        return recipes.named(recipe)
    if start and detector(start.graph):
        return recipes.named("detect")
    side, trained = (min(start.graph.input_shape[:2]), start.origin is not None) if start else (0, False)
    return recipes.named(recipes.suited(side, _SMALL, trained, quantize))


def settled(recipe: Recipe, source: Source, start: Start) -> Recipe:
    """The recipe with all defaults filled in, so that it can be stored and compared."""
    height, width, _ = start.graph.input_shape
    augment = recipe.augment
    if augment == "auto":
        usual: Augment = "small" if min(height, width) <= _SMALL else "photo"
        augment = "detection" if isinstance(source.task, Detection) else usual
    if isinstance(source.task, Detection):
        _check_for_detector(recipe, start.graph)
    if recipe.sparsity:
        slimming.check(start.graph, recipe.quantize)
    if recipe.mosaic and augment != "detection":
        raise DataError("--mosaic is for images with boxes, with --augment detection")
    mirror = source.mirror if recipe.mirror is None else recipe.mirror
    if recipe.train_scale != 1:
        with_resolution(start.graph, (round(height * recipe.train_scale), round(width * recipe.train_scale)))
    factor = 1.0
    if start.origin and recipe.lr is None:
        normed = any(isinstance(node.op, ops.BatchNorm) for node in start.graph) and not recipe.quantize
        factor = GENTLE if normed else GENTLER
    return replace(recipe, augment=augment, mirror=mirror, lr=factor * recipe.peak_lr, weight_decay=recipe.decay)


def _check_for_detector(recipe: Recipe, graph: Graph) -> None:
    """Raises DataError for settings that this detector is not trained with."""
    usual = Recipe()
    for name in ("balance", "quantize", "mixup", "cutmix", "train_scale"):
        if getattr(recipe, name) != getattr(usual, name):
            raise DataError(f"--{name.replace('_', '-')} is not for detectors")
    for name in ("box_loss", "negatives") if decision(graph).anchor_free else ():
        if getattr(recipe, name) != getattr(usual, name):
            raise DataError(f"--{name.replace('_', '-')} is not for anchor-free detectors, whose losses are fixed")
