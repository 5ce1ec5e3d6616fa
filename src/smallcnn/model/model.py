"""The model file: weights, graph, labels, preprocessing and facts in one .safetensors.

Tensors are the graph's weights by name, float32. The header's metadata holds, each as text,

    smallcnn.format          version of this layout, "1"
    smallcnn.graph           the graph as JSON
    smallcnn.labels          JSON list, one name per class
    smallcnn.preprocessing   JSON object, see `Preprocessing`
    smallcnn.ending          function from outputs to answers, see `tasks.ending`; "softmax" if absent
    smallcnn.facts           JSON object: origin of the weights (recipe, data, accuracy, versions)

The file contains everything needed to run the network; nothing is looked up and nothing in it is executed.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from smallcnn.data.labels import checked_labels
from smallcnn.errors import FileError, SmallcnnError
from smallcnn.image.fit import Preprocessing
from smallcnn.ir.graph import Graph
from smallcnn.model import tensor_file
from smallcnn.reference.initial import check_weights
from smallcnn.system.files import atomic
from smallcnn.tasks.ending import Ending, check_ending
from smallcnn.transform.adapt import with_input_turned

FORMAT = "1"


@dataclass(frozen=True)
class Artifact:
    """A network with everything needed to use it. Raises FileError if the parts do not fit each other."""

    graph: Graph
    weights: Mapping[str, np.ndarray]
    labels: tuple[str, ...]
    preprocessing: Preprocessing
    facts: dict[str, Any] = field(default_factory=dict)
    ending: Ending = "softmax"

    def __post_init__(self) -> None:
        check_weights(self.graph, self.weights, FileError)
        check_ending(self.ending)
        if self.graph.output_shape != (len(self.labels),):
            raise FileError(f"{len(self.labels)} labels for an output of shape {self.graph.output_shape}")
        height, width, channels = self.graph.input_shape
        if self.preprocessing.size != (height, width) or self.preprocessing.channels != channels:
            raise FileError(
                f"preprocessing to {(*self.preprocessing.size, self.preprocessing.channels)} "
                f"for an input of shape {self.graph.input_shape}"
            )

    def __repr__(self) -> str:
        return f"<Artifact {self.graph.name}: {len(self.labels)} classes, {len(self.weights)} tensors, {self.ending}>"

    def in_rgb(self) -> "Artifact":
        """The same network with RGB input, for files that take images as decoded."""
        if self.preprocessing.order == "rgb":
            return self
        graph, weights = with_input_turned(self.graph, self.weights)
        mean, std = self.preprocessing.mean[::-1], self.preprocessing.std[::-1]
        preprocessing = replace(self.preprocessing, mean=mean, std=std, order="rgb")
        return replace(self, graph=graph, weights=weights, preprocessing=preprocessing)


def check_finite(artifact: Artifact, where: Path | str) -> None:
    """Raises FileError, prefixed with `where`, that names the first tensor with infinite or NaN values."""
    for name, value in artifact.weights.items():
        if not np.isfinite(value).all():
            raise FileError(f"{where}: {name} has values that are infinite or not numbers; the model is broken")


def save(artifact: Artifact, path: Path | str) -> None:
    """Writes the file atomically. Raises FileError if it cannot be written."""
    import safetensors.numpy

    metadata = {
        "smallcnn.format": FORMAT,
        "smallcnn.graph": artifact.graph.to_json(),
        "smallcnn.labels": json.dumps(artifact.labels),
        "smallcnn.preprocessing": artifact.preprocessing.to_json(),
        "smallcnn.facts": json.dumps(artifact.facts),
    }
    if artifact.ending != "softmax":
        metadata["smallcnn.ending"] = artifact.ending
    tensors = {name: np.ascontiguousarray(value, np.float32) for name, value in artifact.weights.items()}
    with atomic(path) as temporary:
        temporary.write_bytes(tensor_file.ordered(safetensors.numpy.save(tensors, metadata)))


def load(path: Path | str) -> Artifact:
    """Reads a file written by `save`. Raises FileError if it is missing, damaged, foreign or from a newer version."""
    from safetensors import SafetensorError

    try:
        return _read(Path(path))
    except (SafetensorError, OSError, RecursionError) as error:
        raise FileError(f"{path}: damaged or not a .safetensors file ({error})") from error
    except SmallcnnError as error:
        raise FileError(f"{path}: {error}") from error


def _read(path: Path) -> Artifact:
    from safetensors import safe_open

    if not path.is_file():
        raise FileError("a folder, not a file" if path.is_dir() else "no such file")
    with safe_open(path, framework="numpy") as file:
        metadata: dict[str, str] = file.metadata() or {}
        if "smallcnn.graph" not in metadata:
            raise FileError("a .safetensors file, but not smallcnn's: it holds weights without a graph")
        version = metadata.get("smallcnn.format")
        if version != FORMAT:
            raise FileError(f"written in format {version!r}, this smallcnn reads {FORMAT!r}")
        graph = Graph.from_json(metadata["smallcnn.graph"])
        stored = file.keys()
        if len(stored) > 2 * len(graph.weights) + 100:  # fewer are listed by name below
            raise FileError(f"{len(stored):,} tensors for a network that stores {len(graph.weights):,}")
        for name in stored:
            if (kind := file.get_slice(name).get_dtype()) != "F32":
                raise FileError(f"{name!r} is stored as {kind}, not F32")
        weights = {name: file.get_tensor(name) for name in stored}
    labels, facts = _json(metadata, "labels"), _json(metadata, "facts")
    if not isinstance(facts, dict):
        raise FileError("its facts are not a JSON object")
    preprocessing = Preprocessing.from_json(_text(metadata, "preprocessing"))
    ordered = {name: weights.pop(name) for name in graph.weights if name in weights} | weights
    ending = check_ending(metadata.get("smallcnn.ending", "softmax"))
    return Artifact(graph, ordered, checked_labels(labels), preprocessing, facts, ending)


def _json(metadata: Mapping[str, str], key: str) -> Any:
    text = _text(metadata, key)
    try:
        return json.loads(text)
    except ValueError as error:
        raise FileError(f"its {key} are not JSON: {error}") from error


def _text(metadata: Mapping[str, str], key: str) -> str:
    if f"smallcnn.{key}" not in metadata:
        raise FileError(f"its metadata lack 'smallcnn.{key}'")
    return metadata[f"smallcnn.{key}"]
