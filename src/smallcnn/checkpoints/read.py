"""Reads named tensors from a checkpoint file of any origin. Nothing from the file is executed.

    PyTorch        zip archives and older files of torch.save, pickles of tensors and arrays: read by our own
                   machine, which builds only tensors and plain containers (`pickles`, `torch_files`)
    .safetensors   names and bytes
    .npz           without pickled objects
    .h5 .keras     Keras' files, in execution order if they describe it (`keras_file`)

The content determines the kind (`kinds`), not the name. Tensors keep the file's order. Outer layers of a training
checkpoint ("state_dict", "model") are removed, and counters that are not weights are dropped (`state_dict`).
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
from smallcnn.errors import FileError
from smallcnn.ir.checks import shown

Tensors = dict[str, np.ndarray]

_ALWAYS_ALLOWED = 64 * 2**20  # bytes that tensors may take, however small the file
_COUNTERS = ("top_level_model_weights",)  # Keras'


@dataclass(frozen=True)
class Weights:
    """The float32 tensors of a file in file order, and notes on which of its weights were used."""

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
            raise FileError(f"{READ[kind]}: describes a network itself and has no named weights")
        named = {
            name: _checked(name, value)
            for name, value in tensors.items()
            if not (name.endswith(_COUNTERS) or is_counter(name))
        }
        if not named:
            raise FileError("holds no weights")
        if len(named) > MOST_TENSORS:
            raise FileError(f"holds more than {MOST_TENSORS:,} tensors, more than any network here has")
        return Weights(kind, unwrapped(named), notes)
    except FileError as error:
        raise FileError(f"{path}: {error}") from error
    except OSError as error:
        raise FileError(f"{path}: cannot be read ({error.strerror or error})") from error
    except MemoryError as error:
        raise FileError(f"{path}: too large for this machine's memory") from error


def read_tensors(path: Path) -> Tensors:
    """Only the tensors of `read_weights`."""
    return read_weights(path).tensors


def _checked(name: str, value: np.ndarray) -> np.ndarray:
    """The numbers as float32. Raises FileError if they are not numbers or not finite."""
    if value.dtype.kind not in "fiu":
        raise FileError(f"{shown(name)} holds {value.dtype}, not numbers")
    single = _float32(value)
    if not np.isfinite(single).all():
        raise FileError(f"{shown(name)} holds values that are infinite or NaN")
    return single


def _float32(value: np.ndarray) -> np.ndarray:
    """The array itself, or a copy if it has another type or is mapped from the file."""
    with np.errstate(over="ignore"):  # an infinite result is detected later
        return np.require(value, np.float32, "W")


def _torch(path: Path, kind: Kind) -> tuple[Tensors, tuple[str, ...]]:
    with opened(path, kind) as content:
        chosen = choose(content)
        if sum(value.stored_bytes() for value in chosen.tensors.values()) > _most_bytes(path):
            raise FileError("damaged: its tensors are far larger than its file")
        tensors = {}
        for name, value in chosen.tensors.items():
            try:
                tensors[name] = _float32(value.array())
            except FileError as error:
                raise FileError(f"{shown(name)} is {error}") from error
    return tensors, chosen.notes


def _most_bytes(path: Path) -> int:
    """The byte limit for a file's tensors, each as stored: parts of the network may share theirs."""
    return 2 * path.stat().st_size + _ALWAYS_ALLOWED


def _safetensors(path: Path) -> Tensors:
    import safetensors.numpy
    from safetensors import safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            if "smallcnn.format" in (file.metadata() or {}):
                raise FileError("is already a smallcnn model file; there is nothing to import")
            kinds = {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118  (no mapping)
        if "BF16" not in kinds:
            return safetensors.numpy.load_file(path)
        held: list[tuple[str, Any]] = safetensors.deserialize(path.read_bytes())  # type: ignore[no-untyped-call]
        return {name: _of_safetensors(**one) for name, one in held}
    except (FileError, ImportError):
        raise
    except Exception as error:  # SafetensorError; KeyError or TypeError for number types numpy lacks
        raise FileError(f"damaged, or its tensors have types that numpy lacks ({_first_line(error)})") from error


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
