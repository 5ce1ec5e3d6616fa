"""Reads the network of a model file: .safetensors, or .onnx from any program."""

from collections.abc import Callable, Collection
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from smallcnn.errors import FileError
from smallcnn.model.shipped import located
from smallcnn.system.files import check_regular

if TYPE_CHECKING:
    from smallcnn.image.overrides import Overrides
    from smallcnn.model.model import Model

COMPILED = (".so", ".dll")


def read(path: Path | str, prepared: "Overrides | None" = None) -> "Model":
    """Reads the file. `prepared` gives the preprocessing of an .onnx file that does not contain it.

    Raises FileError if the file is missing, damaged, or contains no readable network.
    """
    path = located(path)
    if path.suffix.lower() in COMPILED:
        raise FileError(f"{path}: compiled; its network cannot be read back, use the file it was compiled from")
    if check_kind(path, (".safetensors", ".onnx")) == ".onnx":
        read_onnx: Callable[[Path, Overrides | None], Model] = import_module("smallcnn.onnx").read_onnx
        return read_onnx(path, prepared)
    from smallcnn.model import store

    if prepared is not None:
        raise FileError(
            f"{path}: contains its own preprocessing and input size; only `smallcnn import` can change them"
        )
    model = store.load(path)
    store.check_finite(model, path)
    return model


def check_kind(path: Path, suffixes: Collection[str]) -> str:
    """The file's suffix in lower case. Raises FileError, with a hint, if it is not among `suffixes`."""
    check_regular(path)
    if path.suffix.lower() in suffixes:
        return path.suffix.lower()
    if path.is_dir() and (path / "best.safetensors").is_file():
        raise FileError(f"{path}: a folder; its model is {path / 'best.safetensors'}")
    if not path.exists():
        raise FileError(f"{path}: no such file")
    *others, last = suffixes
    kinds = f"{', '.join(others)} or {last}"
    raise FileError(f"{path}: model files end in {kinds}; `smallcnn import` turns public weights into one")
