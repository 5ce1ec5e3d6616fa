"""The model file: weights, graph, task, preprocessing and facts in one .safetensors.

Tensors are the graph's weights by name, each in its own number type, and `scales`, float32: one for each output of the
weights whose grid the graph's JSON omits, in the order of the graph. The header's metadata holds, each as text,

    smallcnn.format          version of this layout, "2"
    smallcnn.graph           the graph as JSON
    smallcnn.task            JSON object, see `tasks.task`
    smallcnn.preprocessing   JSON object, see `Preprocessing`
    smallcnn.facts           JSON object: origin of the weights (recipe, data, accuracy, versions)

Format 1 is read too. It had classifiers only: instead of the task `smallcnn.labels`, a JSON list, and
`smallcnn.ending`, "softmax" if absent; all its tensors were float32.

The file contains everything needed to run the network; nothing is looked up and nothing in it is executed.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from smallcnn.errors import FileError, SmallcnnError
from smallcnn.image.fit import Preprocessing
from smallcnn.ir.checks import shown
from smallcnn.ir.graph import Graph
from smallcnn.ir.types import Number
from smallcnn.model import tensor_file
from smallcnn.model.metadata import FORMAT, check_format, facts_of, task_of, text_of
from smallcnn.model.model import Model
from smallcnn.system.files import atomic
from smallcnn.tasks import kinds


def check_finite(model: Model, where: Path | str) -> None:
    """Raises FileError, prefixed with `where`, that names the first tensor with infinite or NaN values."""
    for name, value in model.weights.items():
        if not np.isfinite(value).all():
            raise FileError(f"{where}: {name} has values that are infinite or not numbers; the model is broken")


def save(model: Model, path: Path | str) -> None:
    """Writes the file atomically. Raises FileError if it cannot be written."""
    import safetensors.numpy

    graph, scales = model.graph.to_json_and_scales()
    metadata = {
        "smallcnn.format": FORMAT,
        "smallcnn.graph": graph,
        "smallcnn.task": kinds.to_json(model.task),
        "smallcnn.preprocessing": model.preprocessing.to_json(),
        "smallcnn.facts": json.dumps(model.facts.to_json()),
    }
    numbers = {name: weight.tensor.number for name, weight in model.graph.weights.items()}
    tensors = {name: np.ascontiguousarray(value, numbers[name]) for name, value in model.weights.items()}
    if scales:
        tensors[_SCALES] = np.array(scales, np.float32)
    with atomic(path) as temporary:
        temporary.write_bytes(tensor_file.ordered(safetensors.numpy.save(tensors, metadata)))


def load(path: Path | str) -> Model:
    """Reads a file written by `save`. Raises FileError if it is missing, damaged, foreign or from a newer version."""
    from safetensors import SafetensorError

    try:
        return _read(Path(path))
    except (SafetensorError, OSError, RecursionError) as error:
        raise FileError(f"{path}: damaged or not a .safetensors file ({error})") from error
    except SmallcnnError as error:
        raise FileError(f"{path}: {error}") from error


def _read(path: Path) -> Model:
    from safetensors import safe_open

    if not path.is_file():
        raise FileError("a folder, not a file" if path.is_dir() else "no such file")
    with safe_open(path, framework="numpy") as file:
        metadata: dict[str, str] = file.metadata() or {}
        if "smallcnn.graph" not in metadata:
            raise FileError("a .safetensors file, but not smallcnn's: it holds weights without a graph")
        check_format(metadata)
        graph = Graph.from_json(metadata["smallcnn.graph"], _scales(file))
        stored = [name for name in file.keys() if name != _SCALES]  # noqa: SIM118
        if len(stored) > 2 * len(graph.weights) + 100:  # fewer are listed by name below
            raise FileError(f"{len(stored):,} tensors for a network that stores {len(graph.weights):,}")
        for name in stored:
            wanted = _KINDS[graph.weights[name].tensor.number] if name in graph.weights else "F32"
            if (kind := file.get_slice(name).get_dtype()) != wanted:
                raise FileError(f"{name!r} is stored as {kind}, not {wanted}")
        weights = {name: file.get_tensor(name) for name in stored}
    preprocessing = Preprocessing.from_json(text_of(metadata, "preprocessing"))
    ordered = {name: weights.pop(name) for name in graph.weights if name in weights} | weights
    return Model(graph, ordered, task_of(metadata), preprocessing, facts_of(metadata))


def _scales(file: Any) -> Iterable[float]:
    """The scales of an open file; none if it has no such tensor. Raises FileError if that is no vector of float32."""
    if _SCALES not in file.keys():  # noqa: SIM118
        return ()
    part = file.get_slice(_SCALES)
    if (kind := part.get_dtype()) != "F32" or len(part.get_shape()) != 1:
        raise FileError(f"{_SCALES!r} is stored as {kind} {shown(tuple(part.get_shape()))}, not as a vector of F32")
    return file.get_tensor(_SCALES)


_SCALES = "scales"  # weights have a dot in their names
_KINDS: dict[Number, str] = {"float32": "F32", "uint8": "U8", "int8": "I8", "int32": "I32"}
"""The names of number types in a .safetensors file."""
