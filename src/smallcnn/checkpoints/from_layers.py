"""Weights of TensorFlow Lite files, matched layer by layer."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from smallcnn import zoo
from smallcnn.checkpoints.match_layers import lay_layers
from smallcnn.checkpoints.provenance import imported, labels_of
from smallcnn.checkpoints.tflite import TFLite, read_layers
from smallcnn.errors import FileError, GraphError
from smallcnn.image import imagenet
from smallcnn.image.fit import Preprocessing
from smallcnn.image.overrides import Overrides
from smallcnn.model.model import Model
from smallcnn.tasks.classification import Classification
from smallcnn.transform.fold import fold_graph


def from_layers(
    paths: Sequence[Path],
    model: zoo.Configuration,
    keep_background: bool,
    labels: Sequence[str] | None,
    overrides: Overrides,
) -> Model:
    """The network of TensorFlow Lite files, each a consecutive part of it.

    Raises FileError if a file does not fit `model`.
    """
    files = [read_layers(path) for path in paths]
    first = files[0]
    if overrides.plane not in (None, first.input_shape[:2]):
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
    facts = imported(paths, model, "tflite", [])
    return Model(graph, weights, Classification(labels_of(classes, labels)), overrides.over(usual), facts)


def _without_first_class(file: TFLite) -> TFLite:
    last = file.layers[-1]
    assert last.weight is not None
    bias = None if last.bias is None else last.bias[1:]
    return replace(file, layers=(*file.layers[:-1], replace(last, weight=last.weight[1:], bias=bias)))
