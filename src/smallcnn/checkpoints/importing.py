"""Imports a public checkpoint as a model file: weights, graph, labels, preprocessing and provenance."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from smallcnn import zoo
from smallcnn.checkpoints.assumptions import assumed, assumed_images, conventions, place, shaping, usual_images
from smallcnn.checkpoints.catalogue import Checkpoint
from smallcnn.checkpoints.fitting import recognised
from smallcnn.checkpoints.keras_file import open_keras
from smallcnn.checkpoints.kinds import READ, kind_of
from smallcnn.checkpoints.layouts import OWN, Layout, layouts_of, own
from smallcnn.checkpoints.match_keras import by_kind, is_automatic, keras_ends, numbered
from smallcnn.checkpoints.match_layers import lay_layers
from smallcnn.checkpoints.match_names import (
    Placed,
    channels_of,
    channels_read,
    classes_of,
    in_order,
    lay,
    listed,
    missing_tail,
    rows,
)
from smallcnn.checkpoints.read import Tensors, Weights, read_weights
from smallcnn.checkpoints.tflite import TFLite, read_layers
from smallcnn.errors import FileError, GraphError, closest
from smallcnn.foreign.labels import usual_labels
from smallcnn.image import imagenet
from smallcnn.image.fit import Preprocessing
from smallcnn.image.overrides import Overrides
from smallcnn.ir.checks import shown
from smallcnn.ir.graph import Graph
from smallcnn.keras.reading import read_keras
from smallcnn.model.model import Model
from smallcnn.onnx.read.reading import read_onnx
from smallcnn.reference.initial import initial_weights
from smallcnn.tasks.classification import Classification, classification
from smallcnn.tasks.labels import checked_labels
from smallcnn.tflite import read_tflite
from smallcnn.transform.adapt import with_classes
from smallcnn.transform.fold import fold_graph

ORDER = "order"
"""The origin that ignores names and takes tensors in file order."""

_IN_ORDER = ("torch", "pickle", "npz")  # kinds of files that keep the order in which layers were made


def import_checkpoint(
    files: Sequence[Path | str],
    model: str | None = None,
    *,
    origin: str | None = None,
    fresh_head: bool = False,
    keep_background: bool = False,
    labels: Sequence[str] | None = None,
    prepared: Overrides | None = None,
) -> Model:
    """Reads public weights of `model`, a registry name with options such as "mobilenet_v2:width=0.5".

    Without `model`, the registered network that the file's names and shapes fit is used.

    Several files are consecutive parts of one network. `origin` names the layout where names alone are ambiguous, or is
    "order": tensors are taken one by one in file order, checked only by kind and shape, with the padding, epsilon, mean
    and standard deviation of PyTorch. With `fresh_head`, missing layers at the end start from initial weights. `labels`
    are required unless the classes are ImageNet's 1,000.

    Decisions and assumptions are listed in the artifact's facts, under "imported", as "notes".

    TensorFlow's 1,001st class, "background", is dropped unless `keep_background`. 8-bit files become float networks
    with their saturation as clips.

    Raises FileError with both sides if the file does not fit the network, GraphError for a wrong `model`.
    """
    paths, chosen = [Path(file) for file in files], None if model is None else zoo.parse(model)
    prepared = prepared or Overrides()
    kinds = {kind_of(path) for path in paths}
    if kinds == {"tflite"} and (origin or fresh_head):
        raise FileError("a .tflite file is matched layer by layer and in full: origin and fresh head do not apply")
    if kinds == {"tflite"} and chosen is not None:
        return _from_layers(paths, chosen, keep_background, labels, prepared)
    if len(paths) != 1:
        only = "; name the network with --as" if kinds == {"tflite"} else "; give one file"
        raise FileError(f"only a .tflite network may be split over several files{only}")
    if chosen is None and not (origin or fresh_head) and (made := _described(paths[0], prepared)):
        return _whole(made, paths[0], "tflite" if kinds == {"tflite"} else "keras", keep_background, labels)
    found = read_weights(paths[0])
    try:
        if chosen is None:
            chosen, note = recognised(found.tensors)
            found = replace(found, notes=(*found.notes, note))
        return _from_tensors(paths[0], found, chosen, origin, fresh_head, keep_background, labels, prepared)
    except FileError as error:
        said = [str(error), *_but_fits(found.tensors, chosen), *found.notes]
        raise FileError(f"{paths[0]}: {'; '.join(said)}") from error


def _but_fits(tensors: Tensors, model: zoo.Model | None) -> list[str]:
    """An addition to an error: the network that the file does fit, if it differs from `model`."""
    if model is None:
        return []
    try:
        right, _ = recognised(tensors)
    except FileError:
        return []
    same = (right.name, shaping(right)) == (model.name, shaping(model))
    return [] if same else [f"the file fits {right}"]


def import_onnx(
    path: Path | str,
    *,
    keep_background: bool = False,
    labels: Sequence[str] | None = None,
    prepared: Overrides | None = None,
) -> Model:
    """Reads an ONNX file, which describes its own network; see `smallcnn.onnx.read_onnx` and `import_checkpoint`.

    Raises FileError if the file is missing, damaged, or needs an operator the graph lacks.
    """
    path = Path(path)
    return _whole(read_onnx(path, prepared), path, "onnx", keep_background, labels)


def _described(path: Path, prepared: Overrides) -> Model | None:
    """The network described by a TensorFlow Lite or Keras file; None if it holds only weights."""
    kind = kind_of(path)
    if kind == "tflite":
        return read_tflite(path, prepared)
    if kind not in ("hdf5", "keras"):
        return None
    try:
        with open_keras(path) as stored:
            if stored.description is None:
                return None
            return read_keras(stored, path.stem.removesuffix(".weights"), prepared)
    except (FileError, GraphError) as error:
        raise FileError(f"{path}: {error}") from error


def _whole(
    made: Model,
    path: Path,
    origin: str,
    keep_background: bool,
    labels: Sequence[str] | None,
) -> Model:
    """A file's own network, with the requested labels and its provenance."""
    try:
        if labels is not None:
            made = replace(made, task=_named(made, _labels(len(made.labels), labels)))
        elif made.labels[:1] == (imagenet.BACKGROUND,) and not keep_background:
            graph, weights = _without_background(made.graph, dict(made.weights))
            made = replace(made, graph=graph, weights=weights, task=_named(made, made.labels[1:]))
    except (FileError, GraphError) as error:
        raise FileError(f"{path}: {error}") from error
    facts: dict[str, Any] = {"model": made.graph.name, "origin": origin, "files": [_digest(path)], "fresh": []}
    said = made.facts.get("keras") or made.facts.get("tflite")
    if said and said["images"] == "assumed":
        facts["notes"] = [assumed_images(made.preprocessing)]
    return replace(made, facts=made.facts | {"imported": facts})


def _named(made: Model, labels: tuple[str, ...]) -> Classification:
    """The classifier's task with other labels."""
    return replace(classification(made.task, "import"), labels=labels)


def import_known(known: Checkpoint, path: Path) -> Model:
    """The network of a checkpoint in the catalogue, from its file at `path`."""
    usual = known.preprocessing
    height, _ = usual.size
    by_name = path.suffix != ".tflite"  # those files state their own preparation
    prepared = Overrides(height, usual.mean, usual.std, usual.crop, usual.interpolation) if by_name else None
    made = import_checkpoint([path], known.model, origin=known.layout, prepared=prepared)
    published = {"name": known.name, "origin": known.origin, "licence": known.licence, "url": known.url}
    accuracy = {"top1": known.top1, "top5": known.top5}
    return replace(made, facts=made.facts | {"published": published | accuracy})


def _from_layers(
    paths: Sequence[Path],
    model: zoo.Model,
    keep_background: bool,
    labels: Sequence[str] | None,
    prepared: Overrides,
) -> Model:
    """From TensorFlow Lite files."""
    files = [read_layers(path) for path in paths]
    first = files[0]
    if prepared.plane not in (None, first.input_shape[:2]):
        raise FileError(
            f"{paths[0]}: made for {first.input_shape[0]} pixels, which import cannot change; train --from can"
        )
    last = files[-1].layers[-1]
    if last.weight is None:
        raise FileError(f"{paths[-1]}: its last layer is not a classifier; is a later file missing?")
    classes = len(last.weight)
    if classes == len(imagenet.labels()) + 1 and not keep_background:
        files[-1] = _without_first_class(files[-1])
        classes -= 1
    resolution, channels = first.input_shape[:2], first.input_shape[2]
    try:
        graph = fold_graph(model.build(resolution=resolution, classes=classes, channels=channels))
        graph, weights = lay_layers(graph, files)
    except (FileError, GraphError) as error:
        raise FileError(f"{', '.join(map(str, paths))}: {error}") from error
    mean, std = 0.5, 0.5
    if first.grid:  # byte p stands for scale * (p - zero)
        mean, std = first.grid.zero / 255, 1 / (255 * first.grid.scale)
    usual = Preprocessing(resolution, (mean,) * channels, (std,) * channels)
    facts = _facts(paths, model, "tflite", [])
    return Model(graph, weights, Classification(_labels(classes, labels)), prepared.over(usual), facts)


def _without_first_class(file: TFLite) -> TFLite:
    last = file.layers[-1]
    assert last.weight is not None
    bias = None if last.bias is None else last.bias[1:]
    return replace(file, layers=(*file.layers[:-1], replace(last, weight=last.weight[1:], bias=bias)))


def _from_tensors(
    path: Path,
    found: Weights,
    model: zoo.Model,
    origin: str | None,
    fresh_head: bool,
    keep_background: bool,
    labels: Sequence[str] | None,
    prepared: Overrides,
) -> Model:
    """From a file of named tensors."""
    notes, resolution = list(found.notes), {} if prepared.plane is None else {"resolution": prepared.plane}
    if origin == ORDER and found.kind in ("hdf5", "keras"):
        return _by_kind(path, found, model, fresh_head, labels, prepared)
    if origin == ORDER:
        if found.kind not in _IN_ORDER:
            raise FileError(f"a {READ[found.kind]} file sorts its tensors by name, so their order is lost")
        layout, model = conventions(model, found.tensors)
        classes, channels = (
            rows(next(reversed(found.tensors.values()))),
            channels_read(next(iter(found.tensors.values()))),
        )
        graph = model.build(classes=classes, channels=channels, **resolution)
        weights = in_order(graph, found.tensors)
        usual = usual_images(layout, graph)
        notes.append(assumed(model, prepared.over(usual)))
        return _artifact(graph, weights, labels, usual, prepared, path, model, ORDER, [], notes)
    if origin in (None, "keras") and found.kind in ("hdf5", "keras", "npz") and is_automatic(found.tensors):
        return _by_kind(path, found, model, fresh_head, labels, prepared)
    layout, model, tensors = _layout(found.tensors, model, origin, notes)
    classes = classes_of(layout, model, tensors) or len(labels or imagenet.labels())
    channels = channels_of(layout, model, tensors)
    graph = model.build(classes=classes, channels=channels, **resolution)
    tail = missing_tail(layout, graph, tensors)
    try:
        weights = lay(layout, graph, tensors, without=tail if fresh_head else ())
    except FileError as error:
        if tail and not fresh_head and _fits_without(layout, graph, tensors, tail):
            raise FileError(
                f"{error}; it lacks {', '.join(tail)}: if the head was cut off, --fresh-head initialises a new one"
            ) from error
        raise
    if fresh_head and not tail:
        raise FileError("it has the whole network, including the head: drop --fresh-head")
    if fresh_head:
        initial = initial_weights(graph)
        weights = {name: weights.get(name, initial[name]) for name in graph.weights}
    if classes == len(imagenet.labels()) + 1 and not keep_background:
        graph, weights = _without_background(graph, weights)
    usual = usual_images(layout, graph)
    if layout.origin == OWN or channels == 1:
        notes.append(assumed(model, prepared.over(usual)))
    return _artifact(graph, weights, labels, usual, prepared, path, model, layout.origin, tail, notes)


def _by_kind(
    path: Path,
    found: Weights,
    model: zoo.Model,
    fresh_head: bool,
    labels: Sequence[str] | None,
    prepared: Overrides,
) -> Model:
    """From Keras weights with automatic names: layers of each kind in execution order."""
    resolution = {} if prepared.plane is None else {"resolution": prepared.plane}
    tensors = numbered(found.tensors) if found.kind == "npz" else found.tensors
    channels, classes, bias = keras_ends(tensors)
    if "bias" in model.options and "bias" not in model.given:
        model = replace(model, options=model.options | {"bias": bias})
    graph = model.build(classes=classes or len(labels or imagenet.labels()), channels=channels, **resolution)
    weights, fresh = by_kind(graph, tensors, fresh_head=fresh_head)
    usual = Preprocessing(graph.input_shape[:2], (0.5,) * channels, (0.5,) * channels)
    notes = [*found.notes, "its layers were matched by kind, in execution order", assumed(model, prepared.over(usual))]
    return _artifact(graph, weights, labels, usual, prepared, path, model, "keras", fresh, notes)


def _fits_without(layout: Layout, graph: Graph, tensors: Tensors, tail: list[str]) -> bool:
    try:
        lay(layout, graph, tensors, without=tail)
    except FileError:
        return False
    return True


def _without_background(graph: Graph, weights: dict[str, np.ndarray]) -> tuple[Graph, dict[str, np.ndarray]]:
    """Without the first of TensorFlow's 1,001 classes."""
    fewer = with_classes(graph, graph.output_shape[0] - 1)
    return fewer, {
        name: value if value.shape == fewer.weights[name].shape else value[1:] for name, value in weights.items()
    }


def _artifact(
    graph: Graph,
    weights: dict[str, np.ndarray],
    labels: Sequence[str] | None,
    usual: Preprocessing,
    prepared: Overrides,
    path: Path,
    model: zoo.Model,
    origin: str,
    fresh: list[str],
    notes: list[str],
) -> Model:
    facts = _facts([path], model, origin, fresh, notes)
    return Model(graph, weights, Classification(_labels(graph.output_shape[0], labels)), prepared.over(usual), facts)


def _layout(
    tensors: Tensors, model: zoo.Model, origin: str | None, notes: list[str]
) -> tuple[Layout, zoo.Model, Tensors]:
    """The layout that has the file's names, the model it implies, and the tensors under those names.

    Raises FileError if no layout or several layouts have the file's names.
    """
    known = [*layouts_of(model.name), own(model.name)]
    origins = [layout.origin for layout in known]
    if origin is not None and origin not in origins:
        raise FileError(f"no origin {origin!r} of {model.name}; {closest(origin, [*origins, ORDER])}")
    where = [(place(layout, model, tensors), layout) for layout in known if origin in (None, layout.origin)]
    most = max(place.count for place, _ in where)
    best = [(place, layout) for place, layout in where if place.count == most]
    if not most:
        public = [name for name in dict.fromkeys(origins) if name != OWN]
        whose = f"are not those of {' or '.join(public)} for" if public else "match no known layout of"
        raise FileError(
            f"its names ({listed(list(tensors))}) {whose} {model.name}; "
            f"--origin {ORDER} ignores names, if the file has its layers in execution order"
        )
    if len(best) > 1:  # torchvision's GoogLeNet has our names except for its last layer
        best = [(place, layout) for place, layout in best if layout.origin != OWN]
    if len(best) > 1:
        raise FileError(
            "its names fit several origins, which differ in padding or epsilon; choose one with --origin: "
            + " or ".join(layout.origin for _, layout in best)
        )
    ((spot, layout),) = best
    inside, others = spot.of(tensors)
    notes += _told(spot, others)
    return layout, _as_implied(model, layout), inside


def _told(place: Placed, others: list[str]) -> list[str]:
    """Notes on where the weights were found among other tensors."""
    rivals = [
        f"as many names fit below {' and '.join(map(shown, place.rivals))}; used those below {shown(place.prefix)}"
    ]
    left = [f"ignored, not part of the network: {listed(others)}"]
    return rivals * bool(place.rivals) + left * bool(others)


def _as_implied(model: zoo.Model, layout: Layout) -> zoo.Model:
    """The model with the options these weights need; FileError if a given option conflicts."""
    for key, value in layout.implies.items():
        if key in model.given and model.options[key] != value:
            raise FileError(f"weights of {layout.origin} need {key}={value}, not {key}={model.options[key]}")
    return replace(model, options=model.options | layout.implies)


def _labels(classes: int, labels: Sequence[str] | None) -> tuple[str, ...]:
    """The given labels, ImageNet's, or numbers."""
    if labels is not None:
        if len(set(labels)) != len(labels):
            raise FileError("two labels are the same")
        if len(labels) != classes:
            kept = "; --keep-background keeps the first" if len(labels) == classes + 1 else ""
            raise FileError(f"{len(labels)} labels for {classes} classes{kept}")
        return checked_labels(list(labels))
    return usual_labels(classes)


def _facts(
    paths: Sequence[Path], model: zoo.Model, origin: str, fresh: list[str], notes: Sequence[str] = ()
) -> dict[str, Any]:
    files = [_digest(path) for path in paths]
    return {"imported": {"model": str(model), "origin": origin, "files": files, "fresh": fresh, "notes": list(notes)}}


def _digest(path: Path) -> dict[str, str]:
    with path.open("rb") as file:
        return {"name": path.name, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
