"""Weights of a file of named tensors, matched by name, by kind or by order."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from smallcnn import zoo
from smallcnn.checkpoints.assumptions import assumed, conventions, usual_images
from smallcnn.checkpoints.kinds import READ
from smallcnn.checkpoints.layouts import OWN, Layout
from smallcnn.checkpoints.match_keras import by_kind, is_automatic, keras_ends, numbered
from smallcnn.checkpoints.match_names import built_for, channels_read, in_order, lay, missing_tail, rows
from smallcnn.checkpoints.match_origins import ORDER, match
from smallcnn.checkpoints.provenance import imported, labels_of, without_background
from smallcnn.checkpoints.read import Tensors, Weights
from smallcnn.errors import FileError
from smallcnn.foreign.labels import usual_of_objects
from smallcnn.image import imagenet
from smallcnn.image.fit import Preprocessing
from smallcnn.image.overrides import Overrides
from smallcnn.ir.graph import Graph
from smallcnn.ir.predictors import detector, object_classes
from smallcnn.model.model import Model
from smallcnn.reference.initial import initial_weights
from smallcnn.tasks.classification import Classification
from smallcnn.tasks.detection import Detection
from smallcnn.tasks.task import Task

_IN_ORDER = ("torch", "pickle", "npz")  # kinds of files that keep the order in which layers were made


@dataclass(frozen=True)
class Wanted:
    """What the user asks of an import, see `importing.import_checkpoint`."""

    origin: str | None
    fresh_head: bool
    keep_background: bool
    labels: Sequence[str] | None
    overrides: Overrides


def from_tensors(path: Path, found: Weights, model: zoo.Configuration, wanted: Wanted) -> Model:
    """From a file of named tensors."""
    notes, plane = list(found.notes), wanted.overrides.plane
    resolution = {} if plane is None else {"resolution": plane}
    if wanted.origin == ORDER and found.kind in ("hdf5", "keras"):
        return _by_kind(path, found, model, wanted)
    if wanted.origin == ORDER:
        if found.kind not in _IN_ORDER:
            raise FileError(f"a {READ[found.kind]} file sorts its tensors by name, so their order is lost")
        layout, model = conventions(model, found.tensors)
        tensors = list(found.tensors.values())
        classes, channels = rows(tensors[-1]), channels_read(tensors[0])
        graph = model.build(classes=classes, channels=channels, **resolution)
        weights = in_order(graph, found.tensors)
        usual = usual_images(layout, graph)
        notes.append(assumed(model, wanted.overrides.over(usual)))
        return _made(graph, weights, usual, wanted, path, model, ORDER, [], notes)
    if wanted.origin in (None, "keras") and found.kind in ("hdf5", "keras", "npz") and is_automatic(found.tensors):
        return _by_kind(path, found, model, wanted)
    matched = match(found.tensors, model, wanted.origin)
    layout, model, own = matched.layout, matched.model, matched.tensors
    notes += matched.notes
    usual_classes = len(wanted.labels or imagenet.labels())
    graph, classes = built_for(layout, model, own, classes=usual_classes, **resolution)
    tail = missing_tail(layout, graph, own)
    try:
        weights = lay(layout, graph, own, without=tail if wanted.fresh_head else ())
    except FileError as error:
        if tail and not wanted.fresh_head and _fits_without(layout, graph, own, tail):
            raise FileError(
                f"{error}; it lacks {', '.join(tail)}: if the head was cut off, --fresh-head initialises a new one"
            ) from error
        raise
    if wanted.fresh_head and not tail:
        raise FileError("it has the whole network, including the head: drop --fresh-head")
    if wanted.fresh_head:
        initial = initial_weights(graph)
        weights = {name: weights.get(name, initial[name]) for name in graph.weights}
    if classes == len(imagenet.labels()) + 1 and not wanted.keep_background and not detector(graph):
        graph, weights = without_background(graph, weights)
    usual = usual_images(layout, graph)
    if layout.origin == OWN or graph.input_shape[2] == 1:
        notes.append(assumed(model, wanted.overrides.over(usual)))
    return _made(graph, weights, usual, wanted, path, model, layout.origin, tail, notes)


def _by_kind(path: Path, found: Weights, model: zoo.Configuration, wanted: Wanted) -> Model:
    """From Keras weights with automatic names: layers of each kind in execution order."""
    resolution = {} if wanted.overrides.plane is None else {"resolution": wanted.overrides.plane}
    tensors = numbered(found.tensors) if found.kind == "npz" else found.tensors
    channels, classes, bias = keras_ends(tensors)
    if "bias" in model.options and "bias" not in model.given:
        model = replace(model, options=model.options | {"bias": bias})
    graph = model.build(classes=classes or len(wanted.labels or imagenet.labels()), channels=channels, **resolution)
    weights, fresh = by_kind(graph, tensors, fresh_head=wanted.fresh_head)
    usual = Preprocessing(graph.input_shape[:2], (0.5,) * channels, (0.5,) * channels)
    notes = [
        *found.notes,
        "its layers were matched by kind, in execution order",
        assumed(model, wanted.overrides.over(usual)),
    ]
    return _made(graph, weights, usual, wanted, path, model, "keras", fresh, notes)


def _fits_without(layout: Layout, graph: Graph, tensors: Tensors, tail: list[str]) -> bool:
    try:
        lay(layout, graph, tensors, without=tail)
    except FileError:
        return False
    return True


def _made(
    graph: Graph,
    weights: dict[str, np.ndarray],
    usual: Preprocessing,
    wanted: Wanted,
    path: Path,
    model: zoo.Configuration,
    origin: str,
    fresh: list[str],
    notes: list[str],
) -> Model:
    task: Task
    if classes := object_classes(graph):
        task = Detection(labels_of(classes, wanted.labels, usual_of_objects(classes)))
    else:
        task = Classification(labels_of(graph.output_shape[0], wanted.labels))
    return Model(graph, weights, task, wanted.overrides.over(usual), imported([path], model, origin, fresh, notes))
