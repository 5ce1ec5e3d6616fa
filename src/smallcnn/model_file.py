"""The network of a model file, .safetensors or .onnx, whoever wrote the latter: what can be compiled."""

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from smallcnn.errors import FileError
from smallcnn.shipped import located

if TYPE_CHECKING:
    from smallcnn.artifact import Artifact
    from smallcnn.data.prepared import Prepared

COMPILED = (".so", ".dll")


def read(path: Path | str, prepared: "Prepared | None" = None) -> "Artifact":
    """Reads the file. `prepared` says how images are prepared for an .onnx file that does not say it itself.

    Raises FileError if the file is missing, damaged, or holds no network that can be read.
    """
    path = located(path)
    if path.suffix.lower() in COMPILED:
        raise FileError(f"{path}: compiled; its network cannot be read back, take the file that it was made from")
    if check_kind(path, (".safetensors", ".onnx")) == ".onnx":
        from smallcnn.onnx import read_onnx

        return read_onnx(path, prepared)
    from smallcnn import artifact

    if prepared is not None:
        raise FileError(f"{path}: says itself how images are prepared, and at which size; that is changed by import")
    model = artifact.load(path)
    artifact.check_finite(model, path)
    return model


def check_kind(path: Path, suffixes: Collection[str]) -> str:
    """The file's suffix, in lower case. Raises FileError if it is none of these, and says what may have been meant."""
    if path.suffix.lower() in suffixes:
        return path.suffix.lower()
    if path.is_dir() and (path / "best.safetensors").is_file():
        raise FileError(f"{path}: a folder; its model is {path / 'best.safetensors'}")
    if not path.exists():
        raise FileError(f"{path}: no such file")
    *others, last = suffixes
    kinds = f"{', '.join(others)} or {last}"
    raise FileError(f"{path}: model files end in {kinds}; `smallcnn import` makes one of public weights")
