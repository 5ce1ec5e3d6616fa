"""Named tensors out of a checkpoint file, whoever wrote it. Nothing from the file is executed.

    .pth .pt .bin  torch.load(weights_only=True): tensors and plain containers, no other object
    .safetensors   names and bytes
    .npz           without pickled objects
    .h5            Keras 1 and 2 weight files

Order is the file's. A training checkpoint's outer layers ("state_dict", "model", a common "module." prefix) are taken
off, counters that are no weights left out; where it has averaged weights too (EMA), those are taken.
"""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from smallcnn.errors import FileError, require

Tensors = dict[str, np.ndarray]

_WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model_state_dict", "model", "net")  # averages first
_DEEPEST = 4  # wrappers in each other
_PREFIXES = ("module.", "_orig_mod.")  # of torch.nn.DataParallel and torch.compile
_COUNTERS = ("num_batches_tracked", "n_averaged", "top_level_model_weights")
_MOST_COMPRESSED = 1000  # times the size of its file that a tensor may take in memory


def read_tensors(path: Path) -> Tensors:
    """Name -> float32 array. Raises FileError if the file is missing, damaged, of an unknown kind or needs code run."""
    if not path.is_file():
        raise FileError(f"{path}: {'a folder, not a file' if path.is_dir() else 'no such file'}")
    if path.suffix not in _READERS:
        kind = path.suffix or "a file without suffix"
        raise FileError(f"{path}: no reader for {kind}; there are some for {', '.join(SUFFIXES)} and .tflite")
    try:
        tensors = _READERS[path.suffix](path)
    except FileError as error:
        raise FileError(f"{path}: {error}") from error
    named = {name: value for name, value in tensors.items() if not name.endswith(_COUNTERS)}
    if not named:
        raise FileError(f"{path}: holds no weights")
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in named):
            named = {name.removeprefix(prefix): value for name, value in named.items()}
    for name, value in named.items():
        if value.dtype.kind not in "fiu":
            raise FileError(f"{path}: {name!r} holds {value.dtype}, not numbers")
        if not np.isfinite(value).all():
            raise FileError(f"{path}: {name!r} holds values that are infinite or no numbers")
    return {name: value.astype(np.float32) for name, value in named.items()}


def _torch(path: Path) -> Tensors:
    require("reading a .pth file", "train", "torch")
    import pickle

    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise FileError(
            "refused: damaged, or it holds objects besides tensors, and loading those could run code"
        ) from error
    except Exception as error:  # torch raises whatever its many formats' parsers raise
        raise FileError(f"damaged or not a PyTorch checkpoint ({_first_line(error)})") from error
    for _ in range(_DEEPEST):
        if isinstance(content, Mapping) and (inner := next((key for key in _WRAPPERS if key in content), None)):
            content = content[inner]
    if not isinstance(content, Mapping):
        raise FileError(f"holds a {type(content).__name__}, not a state dict")
    return {str(name): _numpy(name, value) for name, value in content.items() if isinstance(value, torch.Tensor)}


def _numpy(name: object, tensor: Any) -> np.ndarray:
    """A torch tensor as an array; FileError unless it is a plain one with all its numbers in the file."""
    import torch

    plain = tensor.layout == torch.strided and not (tensor.is_meta or tensor.is_quantized)
    if not plain or tensor.is_complex() or tensor.nbytes > tensor.untyped_storage().nbytes():
        raise FileError(f"{str(name)!r} is no plain tensor of numbers")
    array: np.ndarray = tensor.detach().float().numpy()
    return array


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
        require("reading bfloat16 weights", "train", "torch")
        import safetensors.torch

        return {name: _numpy(name, value) for name, value in safetensors.torch.load_file(path).items()}
    except (FileError, ImportError):
        raise
    except Exception as error:  # SafetensorError; KeyError or TypeError for number types numpy lacks
        raise FileError(f"damaged, or not tensors of numbers that numpy knows ({_first_line(error)})") from error


def _npz(path: Path) -> Tensors:
    try:
        with np.load(path, allow_pickle=False) as archive:
            if sum(member.file_size for member in archive.zip.infolist()) > _MOST_COMPRESSED * path.stat().st_size:
                raise FileError("damaged: it claims to hold far more than a file of its size can")
            return {name: np.asarray(archive[name]) for name in archive.files}
    except FileError:
        raise
    except Exception as error:  # whatever zipfile, zlib and numpy's header parser raise, MemoryError among it
        raise FileError("damaged, or not an .npz of plain arrays") from error


def _h5(path: Path) -> Tensors:
    require("reading a Keras .h5 file", "import", "h5py")
    import h5py

    try:
        with h5py.File(path, "r") as file:
            group = file.get("model_weights", file)
            if not {"layer_names", "layer_names0"} & group.attrs.keys():
                raise FileError("an .h5 file, but not Keras weights in the format of Keras 1 and 2")
            layers = _listed(group.attrs, "layer_names")
            datasets = {
                name: group[layer][name] for layer in layers for name in _listed(group[layer].attrs, "weight_names")
            }
            for name, dataset in datasets.items():
                if dataset.nbytes > _MOST_COMPRESSED * path.stat().st_size:
                    raise FileError(f"damaged: {name!r} claims {dataset.nbytes:,} bytes")
            return {name.removesuffix(":0"): np.asarray(dataset) for name, dataset in datasets.items()}
    except FileError:
        raise
    except Exception as error:  # h5py raises whatever the library's many parsers find
        raise FileError(f"damaged or not a Keras .h5 file ({_first_line(error)})") from error


def _listed(attributes: Any, key: str) -> list[str]:
    """Names that Keras stores in an attribute, or, if they are long, in several numbered from 0."""
    parts = [key] if key in attributes else [f"{key}0"]
    while (more := f"{key}{len(parts)}") in attributes:
        parts.append(more)
    return [_text(name) for part in parts for name in attributes[part]]


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:120]


_READERS = {".pth": _torch, ".pt": _torch, ".bin": _torch, ".safetensors": _safetensors, ".npz": _npz, ".h5": _h5}

SUFFIXES = tuple(_READERS)
"""What `read_tensors` reads."""
