"""The kinds of model file: what reads each, and what may be done with it."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from smallcnn.errors import FileError
from smallcnn.model.shipped import located
from smallcnn.system.files import check_regular

if TYPE_CHECKING:
    from smallcnn.image.overrides import Overrides
    from smallcnn.model.model import Model


@dataclass(frozen=True)
class Kind:
    """A kind of model file, known by its suffix.

    `engines` run it, the default first. `reader` names the function (path, overrides) -> Model, as module:function; it
    is None if the network cannot be read back, so that nothing can be made from it. `trainable` files hold weights and
    graph as they were trained: training and export start from them.
    """

    suffix: str
    engines: tuple[str, ...]
    reader: str | None = None
    trainable: bool = False


KINDS = {
    kind.suffix: kind
    for kind in (
        Kind(".safetensors", ("onnxruntime", "openvino", "torch"), "smallcnn.model.kinds:read_own", trainable=True),
        Kind(".onnx", ("onnxruntime", "openvino"), "smallcnn.onnx:read_onnx"),
        Kind(".so", ("compiled",)),
        Kind(".dll", ("compiled",)),
    )
}

SUFFIXES = tuple(KINDS)
COMPILED = tuple(suffix for suffix, kind in KINDS.items() if kind.engines == ("compiled",))


def read(path: Path | str, overrides: "Overrides | None" = None) -> "Model":
    """Reads the network of a file. `overrides` give the preprocessing of an .onnx file that does not contain it.

    Raises FileError if the file is missing, damaged, or contains no readable network.
    """
    path = located(path)
    readable = [suffix for suffix, kind in KINDS.items() if kind.reader]
    if path.suffix.lower() in KINDS.keys() - readable:
        raise FileError(f"{path}: compiled; its network cannot be read back, use the file it was compiled from")
    reader = KINDS[check_kind(path, readable)].reader
    assert reader is not None
    module, _, function = reader.partition(":")
    read_one: Callable[[Path, Overrides | None], Model] = getattr(import_module(module), function)
    return read_one(path, overrides)


def read_own(path: Path, overrides: "Overrides | None" = None) -> "Model":
    """Reads a .safetensors model file, which contains its own preprocessing. Raises FileError, as `read`."""
    from smallcnn.model import store

    if overrides is not None:
        raise FileError(
            f"{path}: contains its own preprocessing and input size; only `smallcnn import` can change them"
        )
    model = store.load(path)
    store.check_finite(model, path)
    return model


def check_kind(path: Path, suffixes: Collection[str] = SUFFIXES) -> str:
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
