"""The network of a model file, .safetensors or .onnx, whoever wrote the latter: what can be compiled."""

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from smallcnn.errors import FileError
from smallcnn.files import check_regular
from smallcnn.shipped import located

if TYPE_CHECKING:
    from smallcnn.artifact import Artifact

COMPILED = (".so", ".dll")


def read(path: Path | str) -> "Artifact":
    """Reads the file. Raises FileError if it is missing, damaged, or holds no network that can be read."""
    path = located(path)
    if path.suffix in COMPILED:
        raise FileError(f"{path}: compiled; its network cannot be read back, take the file that it was made from")
    if check_kind(path, (".safetensors", ".onnx")) == ".onnx":
        from smallcnn.onnx import read_onnx

        return read_onnx(path)
    from smallcnn import artifact

    model = artifact.load(path)
    artifact.check_finite(model, path)
    return model


def check_kind(path: Path, suffixes: Collection[str]) -> str:
    """The file's suffix. Raises FileError if it is none of these, and says what the user may have meant."""
    check_regular(path)
    if path.suffix in suffixes:
        return path.suffix
    if path.is_dir() and (path / "best.safetensors").is_file():
        raise FileError(f"{path}: a folder; its model is {path / 'best.safetensors'}")
    if not path.exists():
        raise FileError(f"{path}: no such file")
    *others, last = suffixes
    kinds = f"{', '.join(others)} or {last}"
    raise FileError(f"{path}: model files end in {kinds}; `smallcnn import` makes one of public weights")
