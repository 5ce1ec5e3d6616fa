"""Detects the file kind of a checkpoint by its first bytes and content, never by its name.

`kind_of` returns the supported kinds and gives a specific reason for every other.
"""

import tarfile
import zipfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import IO, Literal

from smallcnn.checkpoints.zips import open_zip, read_member
from smallcnn.errors import FileError
from smallcnn.ir.checks import shown

Kind = Literal["torch", "pickle", "safetensors", "npz", "hdf5", "keras", "tflite", "onnx"]

READ = {
    "torch": "PyTorch",  # as zip archives, since 1.6; before, they were pickles
    "pickle": "pickled tensors or arrays",
    "safetensors": ".safetensors",
    "npz": ".npz",
    "hdf5": "Keras .h5",
    "keras": ".keras",
    "tflite": "TensorFlow Lite",
    "onnx": "ONNX",
}
"""The supported kinds, in words."""

_STATE_DICT = "in Python, torch.save(model.state_dict(), 'weights.pth') writes an importable file"

# unsupported kinds recognised by their first bytes, and the advice for each
_OTHERS = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself; fetch it with: git lfs pull"),
    (b"\x93NUMPY", "one NumPy array; save all weights in one .npz with numpy.savez"),
    (b"\x1f\x8b", "compressed with gzip; unpack it and import its content"),
    (b"BZh", "compressed with bzip2; unpack it and import its content"),
    (b"\xfd7zXZ\x00", "compressed with xz; unpack it and import its content"),
    (b"\x28\xb5\x2f\xfd", "compressed with Zstandard; unpack it and import its content"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive; unpack it and import its content"),
    (b"Rar!", "a RAR archive; unpack it and import its content"),
    (b"GGUF", "a GGUF file, which holds language models"),
    (b"\x7fELF", "a program or a compiled file; import the weights it was made from"),
    (b"MZ", "a program or a compiled file; import the weights it was made from"),
)
_PAGES = (b"<!doctype html", b"<html", b"<?xml")


def kind_of(path: Path) -> Kind:
    """The kind of the file at `path`.

    Raises FileError if it is missing, empty, damaged, or of an unsupported kind, and names it.
    """
    if not path.is_file():
        absent = "a folder, not a file" if path.is_dir() else "not a regular file" if path.exists() else "no such file"
        raise FileError(f"{path}: {absent}")
    try:
        return _kind(path)
    except FileError as error:
        raise FileError(f"{path}: {error}") from error
    except OSError as error:
        raise FileError(f"{path}: cannot be read ({error.strerror or error})") from error


def _kind(path: Path) -> Kind:
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(512)
        if not start:
            raise FileError("damaged: it is empty")
        if start[4:8] == b"TFL3":
            return "tflite"
        if start.startswith(b"\x89HDF\r\n\x1a\n"):
            return "hdf5"
        if start[8:9] == b"{" and int.from_bytes(start[:8], "little") >= 2:
            return "safetensors"
        if _is_pickle(start, file, size):
            return "pickle"
        if _is_onnx(file, size):
            return "onnx"
    if start.startswith(b"PK"):
        return _kind_of_zip(path)
    for beginning, reason in _OTHERS:
        if start.startswith(beginning):
            raise FileError(reason)
    if start.lstrip().lower().startswith(_PAGES):
        raise FileError("a web page, not a checkpoint; the server sent a page instead of the file")
    if reason := _tar(path):
        raise FileError(reason)
    *known, last = READ.values()
    raise FileError(f"damaged or of an unsupported kind; checkpoints are {', '.join(known)} or {last}")


def _is_pickle(start: bytes, file: IO[bytes], size: int) -> bool:
    if start[:1] == b"\x80" and start[1:2] in (b"\2", b"\3", b"\4", b"\5"):
        return True
    if start[:1] not in (b"(", b"}", b"]", b"c"):
        return False
    file.seek(size - 1)  # protocols 0 and 1 have no header; every pickle ends in a full stop
    return file.read(1) == b"."


_MODEL_PROTO = {1: 0, 2: 2, 3: 2, 4: 2, 5: 0, 6: 2, 7: 2, 8: 2, 14: 2, 20: 2, 25: 2, 26: 2}
"""The fields of ONNX's ModelProto with their wire types; 7 is the graph."""


def _is_onnx(file: IO[bytes], size: int) -> bool:
    """Whether its top level is a ModelProto's, checked up to its graph."""
    for field, wire, value in islice(_fields(file, size), 64):
        if _MODEL_PROTO.get(field) != wire:
            return False
        if field == 7 and value:
            return True
    return False


def _fields(file: IO[bytes], size: int) -> Iterator[tuple[int, int, int]]:
    """Number, wire type and value or length of each top-level field of a protocol buffer, up to an invalid one."""
    file.seek(0)
    while (tag := _varint(file)) is not None:
        field, wire = tag >> 3, tag & 7
        value = _varint(file)
        if value is None or wire not in (0, 2) or not field:
            return
        if wire == 2:
            if file.tell() + value > size:
                return
            file.seek(value, 1)
        yield field, wire, value


def _varint(file: IO[bytes]) -> int | None:
    value = 0
    for place in range(10):
        byte = file.read(1)
        if not byte:
            return None
        value |= (byte[0] & 127) << (7 * place)
        if byte[0] < 128:
            return value
    return None


def _kind_of_zip(path: Path) -> Kind:
    with open_zip(path) as archive:
        names = archive.namelist()
        inside = {name.partition("/")[2] for name in names}  # PyTorch puts everything into one folder
        if "data.pkl" in inside and ("constants.pkl" in inside or "bytecode.pkl" in inside):
            raise FileError(f"a TorchScript program, not weights; {_STATE_DICT}, with model = torch.jit.load(FILE)")
        if _is_pt2(archive, names, inside):
            raise FileError(
                f"a program of torch.export (.pt2), not weights; {_STATE_DICT}, with "
                "model = torch.export.load(FILE).module()"
            )
        if ".data/extern_modules" in inside:
            raise FileError(f"a package of torch.package with code, not weights; {_STATE_DICT}")
        if "data.pkl" in inside or "data.pkl" in names:
            return "torch"
        if "model.weights.h5" in names and "config.json" in names:
            return "keras"
        if any(name.endswith(".npy") for name in names):
            return "npz"
        raise FileError(
            "a zip archive without any known kind of weights"
            + (f" (it holds {_listed(names)}); unpack it and import its content" if names else ": it is empty")
        )


def _is_pt2(archive: zipfile.ZipFile, names: list[str], inside: set[str]) -> bool:
    if "serialized_exported_program.json" in inside | set(names):  # PyTorch 2.1 to 2.6
        return True
    said = [name for name in names if name.rpartition("/")[2] == "archive_format" and name.count("/") <= 1]
    return any(read_member(archive, name)[:3] == b"pt2" for name in said)


def _tar(path: Path) -> str:
    """The reason a tar archive is not read; "" if the file is not one."""
    try:
        with tarfile.open(path, "r:") as archive:
            names = [member.name for member in islice(archive, 4)]
    except (tarfile.TarError, OSError, ValueError, OverflowError):
        return ""
    if {"storages", "tensors"} <= {name.removeprefix("./") for name in names}:
        return f"in the format of PyTorch 0.1; {_STATE_DICT}, with model loaded by that version"
    if not names:  # nothing but zeros
        return ""
    return f"a tar archive (it holds {_listed(names)}); unpack it and import its content"


def _listed(names: list[str]) -> str:
    return ", ".join(map(shown, names[:3])) + (", ..." if len(names) > 3 else "")
