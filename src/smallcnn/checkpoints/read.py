"""Named tensors out of a checkpoint file, whoever wrote it. Nothing from the file is executed.

    PyTorch        zip archives and older files of torch.save, pickles of tensors and arrays: read by a machine of our
                   own, which builds tensors and plain containers and nothing else (`pickles`, `torch_files`)
    .safetensors   names and bytes
    .npz           without pickled objects
    .h5 .keras     Keras' files, in the order the layers run where they describe that (`keras_file`)

The file's content says which it is (`kinds`), its name does not matter. Order is the file's. A training checkpoint's
outer layers ("state_dict", "model") are taken off and counters that are no weights left out (`state_dict`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from smallcnn.checkpoints.keras_file import keras_tensors
from smallcnn.checkpoints.kinds import READ, Kind, kind_of
from smallcnn.checkpoints.state_dict import MOST_TENSORS, choose, is_counter, unwrapped
from smallcnn.checkpoints.tensors import widened
from smallcnn.checkpoints.torch_files import opened
from smallcnn.checkpoints.zips import open_zip
from smallcnn.checks import shown
from smallcnn.errors import FileError

Tensors = dict[str, np.ndarray]

_ALWAYS_ALLOWED = 64 * 2**20  # bytes that tensors may take, however small the file
_COUNTERS = ("top_level_model_weights",)  # Keras'


@dataclass(frozen=True)
class Weights:
    """The float32 tensors of a file in its order, and what was decided about which of its weights are taken."""

    kind: Kind
    tensors: Tensors
    notes: tuple[str, ...] = ()


def read_weights(path: Path) -> Weights:
    """Raises FileError if the file is missing, damaged, of a kind without named tensors, or holds no weights."""
    kind = kind_of(path)
    try:
        notes: tuple[str, ...] = ()
        if kind in ("torch", "pickle"):
            tensors, notes = _torch(path, kind)
        elif kind in _READERS:
            tensors = _READERS[kind](path)
        else:
            raise FileError(f"{READ[kind]}: has a network of its own, and no weights by name")
        named = {
            name: _checked(name, value)
            for name, value in tensors.items()
            if not (name.endswith(_COUNTERS) or is_counter(name))
        }
        if not named:
            raise FileError("holds no weights")
        if len(named) > MOST_TENSORS:
            raise FileError(f"holds more than {MOST_TENSORS:,} tensors, which no network here has")
        return Weights(kind, unwrapped(named), notes)
    except FileError as error:
        raise FileError(f"{path}: {error}") from error
    except OSError as error:
        raise FileError(f"{path}: cannot be read ({error.strerror or error})") from error
    except MemoryError as error:
        raise FileError(f"{path}: too large for this machine's memory") from error


def read_tensors(path: Path) -> Tensors:
    """The tensors of `read_weights` alone."""
    return read_weights(path).tensors


def _checked(name: str, value: np.ndarray) -> np.ndarray:
    """The numbers as float32. Raises FileError if they are none, or not finite."""
    if value.dtype.kind not in "fiu":
        raise FileError(f"{shown(name)} holds {value.dtype}, not numbers")
    single = _float32(value)
    if not np.isfinite(single).all():
        raise FileError(f"{shown(name)} holds values that are infinite or no numbers")
    return single


def _float32(value: np.ndarray) -> np.ndarray:
    """Itself, or a copy if it is of another type or lies in the file."""
    with np.errstate(over="ignore"):  # the result is infinite, which is found out
        return np.require(value, np.float32, "W")


def _torch(path: Path, kind: Kind) -> tuple[Tensors, tuple[str, ...]]:
    with opened(path, kind) as content:
        chosen = choose(content)
        if sum(value.stored_bytes() for value in chosen.tensors.values()) > _most_bytes(path):
            raise FileError("damaged: its tensors take far more than a file of its size can hold")
        tensors = {}
        for name, value in chosen.tensors.items():
            try:
                tensors[name] = _float32(value.array())
            except FileError as error:
                raise FileError(f"{shown(name)} is {error}") from error
    return tensors, chosen.notes


def _most_bytes(path: Path) -> int:
    """What the tensors of a file may take, each as it is stored: parts of the network may share theirs."""
    return 2 * path.stat().st_size + _ALWAYS_ALLOWED


def _safetensors(path: Path) -> Tensors:
    import safetensors.numpy
    from safetensors import safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            if "smallcnn.graph" in (file.metadata() or {}):
                raise FileError("is smallcnn's own model file already, with nothing to import")
            kinds = {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118  (no mapping)
        if "BF16" not in kinds:
            return safetensors.numpy.load_file(path)
        held: list[tuple[str, Any]] = safetensors.deserialize(path.read_bytes())  # type: ignore[no-untyped-call]
        return {name: _of_safetensors(**one) for name, one in held}
    except (FileError, ImportError):
        raise
    except Exception as error:  # SafetensorError; KeyError or TypeError for number types numpy lacks
        raise FileError(f"damaged, or not tensors of numbers that numpy knows ({_first_line(error)})") from error


def _of_safetensors(dtype: str, shape: list[int], data: bytes) -> np.ndarray:
    """One tensor of a file that has bfloat16, which NumPy lacks."""
    if dtype == "BF16":
        return widened(np.frombuffer(data, "<u2")).reshape(shape)
    return np.frombuffer(data, _NUMPY[dtype]).reshape(shape)


def _npz(path: Path) -> Tensors:
    try:
        with open_zip(path), np.load(path, allow_pickle=False) as archive:
            return {name: np.asarray(archive[name]) for name in archive.files}
    except FileError:
        raise
    except Exception as error:  # whatever zipfile, zlib and numpy's header parser raise, MemoryError among it
        raise FileError("damaged, or not an .npz of plain arrays") from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:120]


_NUMPY = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U8": "u1"}
_READERS: dict[Kind, Callable[[Path], Tensors]] = {
    "safetensors": _safetensors,
    "npz": _npz,
    "hdf5": keras_tensors,
    "keras": keras_tensors,
}
