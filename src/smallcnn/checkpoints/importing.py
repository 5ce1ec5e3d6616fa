"""A public checkpoint -> a model file that classifies: weights, graph, labels, preprocessing, where it came from."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from smallcnn import zoo
from smallcnn.adapt import with_classes
from smallcnn.artifact import Artifact
from smallcnn.checkpoints.catalogue import Checkpoint
from smallcnn.checkpoints.layouts import Layout, layouts_of
from smallcnn.checkpoints.match_layers import lay_layers
from smallcnn.checkpoints.match_names import in_order, lay, missing_tail, shared
from smallcnn.checkpoints.read import Tensors, read_tensors
from smallcnn.checkpoints.tflite import TFLite, read_tflite
from smallcnn.data import imagenet
from smallcnn.data.prepared import Prepared
from smallcnn.data.preprocessing import Preprocessing
from smallcnn.errors import FileError, GraphError, closest
from smallcnn.fold import fold_graph
from smallcnn.graph import Graph
from smallcnn.onnx.reading import read_onnx, usual_labels
from smallcnn.weights import initial_weights

ORDER = "order"
"""As an origin: names are ignored, tensors are taken in the order of the file."""

_IN_ORDER = (".pth", ".pt", ".bin", ".npz")  # files that keep the order in which layers were made


def import_checkpoint(
    files: Sequence[Path | str],
    model: str,
    *,
    origin: str | None = None,
    fresh_head: bool = False,
    keep_background: bool = False,
    labels: Sequence[str] | None = None,
    prepared: Prepared | None = None,
) -> Artifact:
    """Reads public weights of `model`, a registry name with options such as "mobilenet_v2:width=0.5".

    Several files are parts of one network, in order. `origin` names the layout where names alone do not tell, or is
    "order": take the tensors one by one in the file's order, kinds and shapes as the only check. With `fresh_head`,
    layers at the end that the file lacks start from initial weights. `labels` are needed where the classes are not
    ImageNet's 1,000.

    TensorFlow's 1,001st class, "background", is dropped unless `keep_background`. 8-bit files become float networks
    with their saturation as clips.

    Raises FileError with both sides if the file does not fit the network, GraphError for a wrong `model`.
    """
    paths, chosen = [Path(file) for file in files], zoo.parse(model)
    prepared = prepared or Prepared()
    if {path.suffix for path in paths} == {".tflite"}:
        if origin or fresh_head:
            raise FileError("a .tflite file is laid out layer by layer, and whole: no origin, no fresh head")
        return _from_layers(paths, chosen, keep_background, labels, prepared)
    if len(paths) != 1:
        raise FileError("only .tflite networks come in several files; give one file")
    tensors = read_tensors(paths[0])
    try:
        return _from_tensors(paths[0], tensors, chosen, origin, fresh_head, keep_background, labels, prepared)
    except FileError as error:
        raise FileError(f"{paths[0]}: {error}") from error


def import_onnx(
    path: Path | str,
    *,
    keep_background: bool = False,
    labels: Sequence[str] | None = None,
    prepared: Prepared | None = None,
) -> Artifact:
    """Reads an ONNX file, which says itself which network it is; see `smallcnn.onnx.read_onnx` and `import_checkpoint`.

    Raises FileError if the file is missing, damaged, or holds what a graph has no operator for.
    """
    path = Path(path)
    made = read_onnx(path, prepared)
    try:
        if labels is not None:
            made = replace(made, labels=_labels(len(made.labels), labels))
        elif made.labels[:1] == (imagenet.BACKGROUND,) and not keep_background:
            graph, weights = _without_background(made.graph, dict(made.weights))
            made = replace(made, graph=graph, weights=weights, labels=made.labels[1:])
    except (FileError, GraphError) as error:
        raise FileError(f"{path}: {error}") from error
    facts: dict[str, Any] = {"model": made.graph.name, "origin": "onnx", "files": [_digest(path)], "fresh": []}
    return replace(made, facts=made.facts | {"imported": facts})


def import_known(known: Checkpoint, path: Path) -> Artifact:
    """The network of a checkpoint in the catalogue, from its file at `path`."""
    usual = known.preprocessing
    height, _ = usual.size
    by_name = path.suffix != ".tflite"  # those files say themselves what they want
    prepared = Prepared(height, usual.mean, usual.std, usual.crop, usual.interpolation) if by_name else None
    made = import_checkpoint([path], known.model, origin=known.layout, prepared=prepared)
    published = {"name": known.name, "origin": known.origin, "licence": known.licence, "url": known.url}
    accuracy = {"top1": known.top1, "top5": known.top5}
    return replace(made, facts=made.facts | {"published": published | accuracy})


def _from_layers(
    paths: Sequence[Path],
    model: zoo.Model,
    keep_background: bool,
    labels: Sequence[str] | None,
    prepared: Prepared,
) -> Artifact:
    """From TensorFlow Lite files."""
    files = [read_tflite(path) for path in paths]
    first = files[0]
    if prepared.plane not in (None, first.input_shape[:2]):
        raise FileError(
            f"{paths[0]}: made for {first.input_shape[0]} pixels, which is fixed here; train --from can change it"
        )
    last = files[-1].layers[-1]
    if last.weight is None:
        raise FileError(f"{paths[-1]}: its last layer is no classifier; are there more files to come after it?")
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
    return Artifact(graph, weights, _labels(classes, labels), prepared.over(usual), facts)


def _without_first_class(file: TFLite) -> TFLite:
    last = file.layers[-1]
    assert last.weight is not None
    bias = None if last.bias is None else last.bias[1:]
    return replace(file, layers=(*file.layers[:-1], replace(last, weight=last.weight[1:], bias=bias)))


def _from_tensors(
    path: Path,
    tensors: Tensors,
    model: zoo.Model,
    origin: str | None,
    fresh_head: bool,
    keep_background: bool,
    labels: Sequence[str] | None,
    prepared: Prepared,
) -> Artifact:
    """From a file of named tensors."""
    resolution = {} if prepared.plane is None else {"resolution": prepared.plane}
    if origin == ORDER:
        if path.suffix not in _IN_ORDER:
            raise FileError(f"a {path.suffix} file sorts its tensors, so their order says nothing")
        classes = _rows(next(reversed(tensors.values())))
        graph = model.build(classes=classes, **resolution)
        weights = in_order(graph, tensors)
        return _artifact(graph, weights, labels, Preprocessing(graph.input_shape[:2]), prepared, path, model, ORDER, [])
    layout, model = _layout(tensors, model, origin)
    classes = _classes(layout, model, tensors) or len(labels or imagenet.labels())
    graph = model.build(classes=classes, **resolution)
    tail = missing_tail(layout, graph, tensors)
    try:
        weights = lay(layout, graph, tensors, without=tail if fresh_head else ())
    except FileError as error:
        if tail and not fresh_head and _fits_without(layout, graph, tensors, tail):
            raise FileError(
                f"{error}; it has nothing for {', '.join(tail)}: if that is a head cut off, --fresh-head starts it anew"
            ) from error
        raise
    if fresh_head and not tail:
        raise FileError("it has all of the network, also its head: leave --fresh-head out")
    if fresh_head:
        initial = initial_weights(graph)
        weights = {name: weights.get(name, initial[name]) for name in graph.weights}
    if classes == len(imagenet.labels()) + 1 and not keep_background:
        graph, weights = _without_background(graph, weights)
    usual = Preprocessing(graph.input_shape[:2], layout.mean, layout.std, layout.crop, layout.interpolation)
    return _artifact(graph, weights, labels, usual, prepared, path, model, layout.origin, tail)


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


def _rows(value: np.ndarray) -> int:
    if not value.shape or not value.shape[0]:
        raise FileError("its last tensor is no classifier's")
    return len(value)


def _artifact(
    graph: Graph,
    weights: dict[str, np.ndarray],
    labels: Sequence[str] | None,
    usual: Preprocessing,
    prepared: Prepared,
    path: Path,
    model: zoo.Model,
    origin: str,
    fresh: list[str],
) -> Artifact:
    facts = _facts([path], model, origin, fresh)
    return Artifact(graph, weights, _labels(graph.output_shape[0], labels), prepared.over(usual), facts)


def _layout(tensors: Tensors, model: zoo.Model, origin: str | None) -> tuple[Layout, zoo.Model]:
    """The layout whose names the file has, and the model as it implies; FileError if none has them, or several."""
    known = layouts_of(model.name)
    if not known:
        raise FileError(f"no public weights of {model.name} are known; --origin {ORDER} takes tensors by their order")
    origins = [layout.origin for layout in known]
    if origin is not None and origin not in origins:
        raise FileError(f"no origin {origin!r} of {model.name}; {closest(origin, [*origins, ORDER])}")
    asked = [layout for layout in known if origin in (None, layout.origin)]
    counted = [(shared(layout, zoo.Model(model.name, model.options | layout.implies).build(), tensors), layout)
               for layout in asked]  # fmt: skip
    most = max(count for count, _ in counted)
    best = [layout for count, layout in counted if count == most]
    if not most:
        some = " ".join(", ".join(list(tensors)[:3]).split())
        raise FileError(
            f"its names ({some}, ...) are none that {' or '.join(origins)} give {model.name}; "
            f"--origin {ORDER} ignores names, if the file has the layers in the order they run"
        )
    if len(best) > 1:
        raise FileError(
            "its names fit several origins, which differ in padding or epsilon; say which with --origin: "
            + " or ".join(layout.origin for layout in best)
        )
    return best[0], _as_implied(model, best[0])


def _as_implied(model: zoo.Model, layout: Layout) -> zoo.Model:
    """The model with the options these weights need; FileError if another was asked for."""
    for key, value in layout.implies.items():
        if key in model.given and model.options[key] != value:
            raise FileError(f"weights of {layout.origin} need {key}={value}, not {key}={model.options[key]}")
    return replace(model, options=model.options | layout.implies)


def _classes(layout: Layout, model: zoo.Model, tensors: Tensors) -> int | None:
    """The number of classes the file's classifier has; None if it has no classifier."""
    graph = model.build()
    node, own = list(layout.names(graph).items())[-1]
    stored = layout.of_file(tensors).get(own["weight"])
    if stored is None:
        return None
    if stored.ndim not in (2, 4):
        raise FileError(f"{own['weight']} is {stored.shape}, no classifier's")
    return _rows(layout.scheme.ours(graph, graph[node], "weight", stored))


def _labels(classes: int, labels: Sequence[str] | None) -> tuple[str, ...]:
    """Those given, ImageNet's, or numbers."""
    if labels is not None:
        if len(set(labels)) != len(labels):
            raise FileError("two labels are the same")
        if len(labels) != classes:
            kept = "; --keep-background keeps the first" if len(labels) == classes + 1 else ""
            raise FileError(f"{len(labels)} labels for {classes} classes{kept}")
        return tuple(labels)
    return usual_labels(classes)


def _facts(paths: Sequence[Path], model: zoo.Model, origin: str, fresh: list[str]) -> dict[str, Any]:
    files = [_digest(path) for path in paths]
    return {"imported": {"model": str(model), "origin": origin, "files": files, "fresh": fresh}}


def _digest(path: Path) -> dict[str, str]:
    return {"name": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
