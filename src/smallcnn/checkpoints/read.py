"""Named tensors out of a checkpoint file, whoever wrote it. Nothing from the file is executed.

    .pth .pt      torch.load(weights_only=True): tensors and plain containers, no other object
    .safetensors  names and bytes
    .npz          without pickled objects
    .h5           Keras 1 and 2 weight files

Order is the file's. A training checkpoint's outer layers ("state_dict", "model", a common "module." prefix) are taken
off, counters that are no weights left out.
"""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from smallcnn.errors import FileError, closest, require

Tensors = dict[str, np.ndarray]

_WRAPPERS = ("state_dict", "model_state_dict", "model", "net")
_COUNTERS = ("num_batches_tracked", "top_level_model_weights")


def read_tensors(path: Path) -> Tensors:
    """Name -> float32 array. Raises FileError if the file is missing, damaged, of an unknown kind or needs code run."""
    if not path.is_file():
        raise FileError(f"{path}: {'a folder, not a file' if path.is_dir() else 'no such file'}")
    if path.suffix not in _READERS:
        raise FileError(
            f"{path}: no reader for {path.suffix or 'a file without suffix'}; {closest(path.suffix, SUFFIXES)}"
        )
    tensors = _READERS[path.suffix](path)
    named = {name: value for name, value in tensors.items() if not name.endswith(_COUNTERS)}
    if not named:
        raise FileError(f"{path}: holds no weights")
    for name, value in named.items():
        if value.dtype.kind not in "fiu":
            raise FileError(f"{path}: {name!r} holds {value.dtype}, not numbers")
    if all(name.startswith("module.") for name in named):  # torch.nn.DataParallel
        named = {name.removeprefix("module."): value for name, value in named.items()}
    return {name: value.astype(np.float32) for name, value in named.items()}


def _torch(path: Path) -> Tensors:
    require("reading a .pth file", "train", "torch")
    import pickle

    import torch

    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise FileError(
            f"{path}: refused: it holds objects besides tensors, which could run code when loaded, or it is damaged "
            f"({_first_line(error)})"
        ) from error
    except Exception as error:  # torch raises whatever its many formats' parsers raise
        raise FileError(f"{path}: damaged or not a PyTorch checkpoint ({_first_line(error)})") from error
    while isinstance(content, Mapping) and (inner := next((key for key in _WRAPPERS if key in content), None)):
        content = content[inner]
    if not isinstance(content, Mapping):
        raise FileError(f"{path}: holds a {type(content).__name__}, not a state dict")
    return {
        str(name): value.detach().float().numpy() for name, value in content.items() if isinstance(value, torch.Tensor)
    }


def _safetensors(path: Path) -> Tensors:
    import safetensors.numpy

    try:
        return safetensors.numpy.load_file(path)
    except Exception as error:  # SafetensorError; KeyError or TypeError for number types numpy lacks
        raise FileError(f"{path}: damaged, or not float tensors that numpy knows ({_first_line(error)})") from error


def _npz(path: Path) -> Tensors:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError, AttributeError) as error:
        raise FileError(f"{path}: damaged, or not an .npz of plain arrays ({_first_line(error)})") from error


def _h5(path: Path) -> Tensors:
    require("reading a Keras .h5 file", "import", "h5py")
    import h5py

    try:
        with h5py.File(path, "r") as file:
            group = file.get("model_weights", file)
            if "layer_names" not in group.attrs:
                raise FileError(f"{path}: an .h5 file, but not Keras weights in the format of Keras 1 and 2")
            return {
                name.removesuffix(":0"): np.asarray(layer[name])
                for layer in (group[_text(layer)] for layer in group.attrs["layer_names"])
                for name in map(_text, layer.attrs["weight_names"])
            }
    except (OSError, KeyError, ValueError, RuntimeError) as error:
        if isinstance(error, FileError):
            raise
        raise FileError(f"{path}: damaged or not a Keras .h5 file ({_first_line(error)})") from error


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:120]


_READERS = {".pth": _torch, ".pt": _torch, ".bin": _torch, ".safetensors": _safetensors, ".npz": _npz, ".h5": _h5}

SUFFIXES = tuple(_READERS)
"""What `read_tensors` reads."""
