"""Opens Keras files: the network's description, if any, and the weights.

.h5 .hdf5      Keras 1 and 2, also written by 3: a description in an attribute, weights in groups
.weights.h5    Keras 3: weights in groups
.keras         a zip archive of config.json and such weights
"""

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from smallcnn.checkpoints.kinds import kind_of
from smallcnn.checkpoints.zips import open_zip, read_member
from smallcnn.errors import FileError, require
from smallcnn.keras.description import describe
from smallcnn.keras.reading import Stored
from smallcnn.keras.survey import survey
from smallcnn.keras.weights import Tensors, damaged, named, text

_LONGEST = 64 * 2**20  # bytes of a description; large networks take a few hundred kilobytes


@contextmanager
def open_keras(path: Path) -> Iterator[Stored]:
    """The opened file; `description` is None if it has weights only. FileError if it is damaged or of another kind."""
    require("reading a Keras file", "import", "h5py")
    import h5py

    kind = kind_of(path)
    if kind not in ("hdf5", "keras"):
        raise FileError("not a Keras file")
    size = path.stat().st_size
    if kind == "keras":
        with open_zip(path) as archive:
            description, about = (_parsed(read_member(archive, name)) for name in ("config.json", "metadata.json"))
            content: Any = io.BytesIO(read_member(archive, "model.weights.h5"))
        said = about.get("keras_version", "3") if isinstance(about, dict) else "3"
    else:
        content = path
    survey(content, size, Tensors(size).allowed)
    with damaged():
        file = h5py.File(content, "r")
    with file:
        if kind == "hdf5":
            with damaged():
                stored = file.attrs.get("model_config")
                holder = file.get("model_weights", file)
                said = text(file.attrs.get("keras_version", holder.attrs.get("keras_version", "2")))
            description = None if stored is None else _parsed(stored)
        yield Stored(description, file, size, _major(str(said)))


def keras_tensors(path: Path) -> dict[str, np.ndarray]:
    """The weights by "layer/tensor", in execution order if the file describes it."""
    with open_keras(path) as stored:
        model = None if stored.description is None else describe(stored.description)
        found = named(stored.weights, Tensors(stored.size), model)
    if not found:
        raise FileError("holds no weights")
    return {name: value.astype(np.float32) for name, value in found.items()}


def _parsed(stored: Any) -> Any:
    if len(stored) > _LONGEST:
        raise FileError(f"its description takes {len(stored):,} bytes")
    try:
        return json.loads(stored)
    except (ValueError, RecursionError, TypeError) as error:
        raise FileError("damaged: its description is not JSON") from error


def _major(version: str) -> int:
    number = version.partition(".")[0]
    return int(number) if number.isdecimal() and len(number) < 3 else 2
