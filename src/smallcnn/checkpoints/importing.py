"""Imports a public checkpoint as a model file: weights, graph, labels, preprocessing and provenance."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from smallcnn import zoo
from smallcnn.checkpoints.assumptions import assumed_images, shaping
from smallcnn.checkpoints.catalogue import Checkpoint
from smallcnn.checkpoints.fitting import recognised
from smallcnn.checkpoints.from_layers import from_layers
from smallcnn.checkpoints.from_tensors import Wanted, from_tensors
from smallcnn.checkpoints.keras_file import open_keras
from smallcnn.checkpoints.kinds import Kind, kind_of
from smallcnn.checkpoints.provenance import digest, labels_of, with_labels, without_background
from smallcnn.checkpoints.read import Tensors, read_weights
from smallcnn.errors import FileError, GraphError
from smallcnn.foreign.labels import told_apart
from smallcnn.image import imagenet
from smallcnn.image.overrides import Overrides
from smallcnn.keras.reading import read_keras
from smallcnn.model.model import Model
from smallcnn.onnx.read.reading import read_onnx
from smallcnn.tasks.detection import Detection
from smallcnn.tflite import read_tflite


def import_checkpoint(
    files: Sequence[Path | str],
    model: str | None = None,
    *,
    origin: str | None = None,
    fresh_head: bool = False,
    keep_background: bool = False,
    labels: Sequence[str] | None = None,
    overrides: Overrides | None = None,
    integer: bool = True,
) -> Model:
    """Reads public weights of `model`, a registry name with options such as "mobilenet_v2:width=0.5".

    ONNX, TensorFlow Lite and Keras files describe their network. For other files without `model`, the registered
    network that the file's names and shapes fit is used.

    Several files are consecutive parts of one network. `origin` names the layout where names alone are ambiguous, or is
    "order": tensors are taken one by one in file order, checked only by kind and shape, with the padding, epsilon, mean
    and standard deviation of PyTorch. With `fresh_head`, missing layers at the end start from initial weights. `labels`
    are required unless the classes are ImageNet's 1,000.

    Decisions and assumptions are listed in the model's facts, under "imported", as "notes".

    TensorFlow's 1,001st class, "background", is dropped unless `keep_background`. Quantized ONNX and TensorFlow Lite
    files become networks of whole numbers. Without `integer`, or with a `model`, they become float ones with clips for
    their saturation.

    Raises FileError with both sides if the file does not fit the network, GraphError for a wrong `model`.
    """
    paths, chosen = [Path(file) for file in files], None if model is None else zoo.parse(model)
    overrides = overrides or Overrides()
    kinds = {kind_of(path) for path in paths}
    _check_takes(kinds, len(paths), chosen, others=bool(origin or fresh_head))
    if kinds == {"tflite"} and chosen is not None:
        return from_layers(paths, chosen, keep_background, labels, overrides)
    if chosen is None and not (origin or fresh_head) and (made := _described(paths[0], overrides, integer=integer)):
        return _whole(made, paths[0], keep_background, labels)
    found = read_weights(paths[0])
    try:
        if chosen is None:
            chosen, note = recognised(found.tensors)
            found = replace(found, notes=(*found.notes, note))
        return from_tensors(paths[0], found, chosen, Wanted(origin, fresh_head, keep_background, labels, overrides))
    except FileError as error:
        said = [str(error), *_but_fits(found.tensors, chosen), *found.notes]
        raise FileError(f"{paths[0]}: {'; '.join(said)}") from error


def _check_takes(kinds: set[Kind], files: int, model: zoo.Configuration | None, *, others: bool) -> None:
    """Raises FileError if files of these kinds take no model, no other option, or no second file."""
    if kinds == {"onnx"} and (model or others or files > 1):
        raise FileError(
            "an .onnx file is a whole network: it takes no --as, --origin or --fresh-head, and no second file"
        )
    if kinds == {"tflite"} and others:
        raise FileError("a .tflite file is matched layer by layer and in full: origin and fresh head do not apply")
    if files != 1 and not (kinds == {"tflite"} and model):
        only = "; name the network with --as" if kinds == {"tflite"} else "; give one file"
        raise FileError(f"only a .tflite network may be split over several files{only}")


def _but_fits(tensors: Tensors, model: zoo.Configuration | None) -> list[str]:
    """An addition to an error: the network that the file does fit, if it differs from `model`."""
    if model is None:
        return []
    try:
        right, _ = recognised(tensors)
    except FileError:
        return []
    same = (right.name, shaping(right)) == (model.name, shaping(model))
    return [] if same else [f"the file fits {right}"]


def _described(path: Path, overrides: Overrides, *, integer: bool) -> Model | None:
    """The network described by an ONNX, TensorFlow Lite or Keras file; None if it holds only weights."""
    kind = kind_of(path)
    if kind == "onnx":
        return read_onnx(path, overrides, integer=integer)
    if kind == "tflite":
        return read_tflite(path, overrides, integer=integer)
    if kind not in ("hdf5", "keras"):
        return None
    try:
        with open_keras(path) as stored:
            if stored.description is None:
                return None
            return read_keras(stored, path.stem.removesuffix(".weights"), overrides)
    except (FileError, GraphError) as error:
        raise FileError(f"{path}: {error}") from error


def _whole(made: Model, path: Path, keep_background: bool, labels: Sequence[str] | None) -> Model:
    """A file's own network, with the requested labels and its provenance."""
    origin = kind if (kind := kind_of(path)) in ("onnx", "tflite") else "keras"
    try:
        if labels is not None:
            known = told_apart(labels) if isinstance(made.task, Detection) else labels  # some classes may have none
            made = replace(made, task=with_labels(made, labels_of(len(made.labels), known)))
        elif made.labels[:1] == (imagenet.BACKGROUND,) and not keep_background:
            graph, weights = without_background(made.graph, dict(made.weights))
            made = replace(made, graph=graph, weights=weights, task=with_labels(made, made.labels[1:]))
    except (FileError, GraphError) as error:
        raise FileError(f"{path}: {error}") from error
    facts: dict[str, Any] = {"model": made.graph.name, "origin": origin, "files": [digest(path)], "fresh": []}
    said = made.facts.keras or made.facts.tflite
    if said and said["images"] == "assumed":
        facts["notes"] = [assumed_images(made.preprocessing)]
    return replace(made, facts=replace(made.facts, imported=facts))


def import_known(known: Checkpoint, path: Path) -> Model:
    """The network of a checkpoint in the catalogue, from its file at `path`."""
    usual = known.preprocessing
    height, _ = usual.size
    by_name = path.suffix != ".tflite"  # those files state their own preparation
    overrides = Overrides(height, usual.mean, usual.std, usual.crop, usual.interpolation) if by_name else None
    made = import_checkpoint([path], known.model, origin=known.layout, overrides=overrides)
    published = {"name": known.name, "origin": known.origin, "licence": known.licence, "url": known.url}
    accuracy = {"top1": known.top1, "top5": known.top5}
    return replace(made, facts=replace(made.facts, published=published | accuracy))
