"""The model file: weights, graph, task, preprocessing and facts in one .safetensors.

Tensors are the graph's weights by name, each in its own number type, and `scales`, float32: one for each output of the
weights whose grid the graph's JSON omits, in the order of the graph. The header's metadata holds, each as text,

    smallcnn.format          version of this layout, "2"
    smallcnn.graph           the graph as JSON
    smallcnn.task            JSON object, see `tasks.task`
    smallcnn.preprocessing   JSON object, see `Preprocessing`
    smallcnn.facts           JSON object: origin of the weights (recipe, data, accuracy, versions)

A packed file has format "3". Its tensors are `packed`, uint8, the weights by `codecs`, one after the other in the order
of the graph; `text`, uint8, the deflated JSON object of the entries above, format 2, and

    smallcnn.packed          JSON list: codec and bytes of each weight

and `scales` as above. Loading it gives the same weights, bit by bit.

Format 1 is read too. It had classifiers only: instead of the task `smallcnn.labels`, a JSON list, and
`smallcnn.ending`, "softmax" if absent; all its tensors were float32.

The file contains everything needed to run the network; nothing is looked up and nothing in it is executed.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from smallcnn.errors import FileError, SmallcnnError
from smallcnn.image.fit import Preprocessing
from smallcnn.ir.checks import shown
from smallcnn.ir.graph import Graph
from smallcnn.ir.types import Number
from smallcnn.model import tensor_file
from smallcnn.model.codecs.deflated import deflate_text, inflate
from smallcnn.model.codecs.packing import Packed, pack, unpack
from smallcnn.model.metadata import FORMAT, FORMATS, check_format, facts_of, task_of, text_of
from smallcnn.model.model import Model
from smallcnn.system.files import atomic
from smallcnn.tasks import kinds


def check_finite(model: Model, where: Path | str) -> None:
    """Raises FileError, prefixed with `where`, that names the first tensor with infinite or NaN values."""
    for name, value in model.weights.items():
        if not np.isfinite(value).all():
            raise FileError(f"{where}: {name} has values that are infinite or not numbers; the model is broken")


def save(model: Model, path: Path | str, *, packed: bool = False) -> None:
    """Writes the file atomically, with `packed` in as few bytes as the codecs find. Raises FileError if it cannot.

    Weights of more than a MiB that would take less than a 256th of their bytes are not packed: see `codecs.packing`.
    """
    with atomic(path) as temporary:
        temporary.write_bytes(content(model, packed=packed))


def content(model: Model, *, packed: bool = False) -> bytes:
    """The bytes of the file that `save` writes."""
    import safetensors.numpy

    graph, scales = model.graph.to_json_and_scales()
    metadata = {
        "smallcnn.format": FORMAT,
        "smallcnn.graph": graph,
        "smallcnn.task": kinds.to_json(model.task),
        "smallcnn.preprocessing": model.preprocessing.to_json(),
        "smallcnn.facts": json.dumps(model.facts.to_json()),
    }
    made = pack(model.graph, model.weights) if packed else None
    if made:
        codecs, stream = made
        metadata["smallcnn.packed"] = json.dumps([one.to_json() for one in codecs], separators=(",", ":"))
        text = deflate_text(json.dumps(metadata, separators=(",", ":")).encode())
        tensors = {_TEXT: np.frombuffer(text, np.uint8), _PACKED: np.frombuffer(stream, np.uint8)}
        metadata = {"smallcnn.format": _PACKED_FORMAT}
    else:
        numbers = {name: weight.tensor.number for name, weight in model.graph.weights.items()}
        tensors = {name: np.ascontiguousarray(value, numbers[name]) for name, value in model.weights.items()}
    if scales:
        tensors[_SCALES] = np.array(scales, np.float32)
    return tensor_file.ordered(safetensors.numpy.save(tensors, metadata))


def load(path: Path | str) -> Model:
    """Reads a file written by `save`. Raises FileError if it is missing, damaged, foreign or from a newer version."""
    from safetensors import SafetensorError

    try:
        return _read(Path(path))
    except (SafetensorError, OSError, RecursionError) as error:
        raise FileError(f"{path}: damaged or not a .safetensors file ({error})") from error
    except SmallcnnError as error:
        raise FileError(f"{path}: {error}") from error


def parts(path: Path | str) -> dict[str, int]:
    """The bytes of a packed file by what they hold: `text`, `scales` and each codec. Empty if it is not packed.

    Raises FileError for a file that cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            if (file.metadata() or {}).get("smallcnn.format") != _PACKED_FORMAT:
                return {}
            found = {_TEXT: len(_vector(file, _TEXT, "U8"))}
            if scales := 4 * len(list(_scales(file))):
                found[_SCALES] = scales
            for one in _codecs(_text(file)):
                found[one.codec.kind] = found.get(one.codec.kind, 0) + one.bytes
            return found
    except (SafetensorError, OSError) as error:
        raise FileError(f"{path}: damaged or not a .safetensors file ({error})") from error


def _read(path: Path) -> Model:
    from safetensors import safe_open

    if not path.is_file():
        raise FileError("a folder, not a file" if path.is_dir() else "no such file")
    with safe_open(path, framework="numpy") as file:
        metadata: dict[str, str] = file.metadata() or {}
        packed = metadata.get("smallcnn.format") == _PACKED_FORMAT
        if packed:
            metadata = _text(file)
        if "smallcnn.graph" not in metadata:
            raise FileError("a .safetensors file, but not smallcnn's: it holds weights without a graph")
        check_format(metadata, FORMATS if packed else (*FORMATS, _PACKED_FORMAT))
        graph = Graph.from_json(metadata["smallcnn.graph"], _scales(file))
        stored = [name for name in file.keys() if name != _SCALES]  # noqa: SIM118
        if packed:
            if surplus := set(stored) - {_PACKED, _TEXT}:
                raise FileError(f"a packed file has no tensor {shown(min(surplus))}")
            weights = unpack(graph, _codecs(metadata), _vector(file, _PACKED, "U8").tobytes())
        else:
            weights = _plain(file, graph, stored)
    preprocessing = Preprocessing.from_json(text_of(metadata, "preprocessing"))
    ordered = {name: weights.pop(name) for name in graph.weights if name in weights} | weights
    return Model(graph, ordered, task_of(metadata), preprocessing, facts_of(metadata))


def _plain(file: Any, graph: Graph, stored: list[str]) -> dict[str, np.ndarray]:
    """The weights of a file that is not packed, in its order."""
    if len(stored) > 2 * len(graph.weights) + 100:  # fewer are listed by name below
        raise FileError(f"{len(stored):,} tensors for a network that stores {len(graph.weights):,}")
    for name in stored:
        wanted = _KINDS[graph.weights[name].tensor.number] if name in graph.weights else "F32"
        if (kind := file.get_slice(name).get_dtype()) != wanted:
            raise FileError(f"{name!r} is stored as {kind}, not {wanted}")
    return {name: file.get_tensor(name) for name in stored}


def _text(file: Any) -> dict[str, str]:
    """The entries of a packed file. Raises FileError if they are missing or damaged."""
    entries = _json(inflate(_vector(file, _TEXT, "U8").tobytes(), _MOST_TEXT), "text is")
    if not (isinstance(entries, dict) and all(isinstance(text, str) for text in entries.values())):
        raise FileError("its text is no JSON object of texts")
    return entries


def _json(text: str | bytes, what: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FileError(f"its {what} not JSON: {error}") from error


def _codecs(metadata: Mapping[str, str]) -> list[Packed]:
    """The codec of each weight. Raises FileError."""
    records = _json(text_of(metadata, "packed"), "codecs are")
    if not isinstance(records, list):
        raise FileError(f"its codecs are {shown(records)}, not a list")
    return [Packed.from_json(record) for record in records]


def _scales(file: Any) -> Iterable[float]:
    """The scales of an open file; none if it has no such tensor. Raises FileError if that is no vector of float32."""
    return _vector(file, _SCALES, "F32") if _SCALES in file.keys() else ()  # noqa: SIM118


def _vector(file: Any, name: str, kind: str) -> np.ndarray:
    """A tensor of an open file. Raises FileError if it is missing, or no vector of this number type."""
    if name not in file.keys():  # noqa: SIM118
        raise FileError(f"it has no tensor {name!r}")
    part = file.get_slice(name)
    if (found := part.get_dtype()) != kind or len(part.get_shape()) != 1:
        raise FileError(f"{name!r} is stored as {found} {shown(tuple(part.get_shape()))}, not as a vector of {kind}")
    vector: np.ndarray = file.get_tensor(name)
    return vector


_PACKED_FORMAT = "3"
_SCALES, _PACKED, _TEXT = "scales", "packed", "text"  # weights have a dot in their names
_MOST_TEXT = 2**26
_KINDS: dict[Number, str] = {"float32": "F32", "uint8": "U8", "int8": "I8", "int32": "I32"}
"""The names of number types in a .safetensors file."""
