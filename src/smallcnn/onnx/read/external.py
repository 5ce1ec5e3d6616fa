"""Tensors that an ONNX file keeps in another file next to it, as PyTorch's exporter does.

The model gives a path relative to its folder, an offset and a length. Nothing outside that folder is opened, whether by
an absolute path, `..` or a link, and only regular files are opened.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx

from smallcnn.errors import FileError
from smallcnn.ir.checks import shown

_MOST_BYTES = 2**30
"""Limit for all tensors together and for one data file: twice VGG's weights in float32."""


class DataFiles:
    """The files next to a model, opened when a tensor needs one."""

    def __init__(self, folder: Path | None) -> None:
        """`folder` is the model's folder; None for a model in memory, which has no other files."""
        self._folder = folder
        self._left = _MOST_BYTES
        self.files: dict[str, Path] = {}
        """Files already read, by the name in the model."""

    def bytes_of(self, stored: onnx.TensorProto, what: str, size: int) -> np.ndarray:
        """The `size` bytes of a tensor: uint8. FileError naming the file if it is missing, too short, or elsewhere."""
        if self._folder is None:
            raise FileError(f"{what} is stored in another file; save the model in one file")
        entries = {entry.key: entry.value for entry in stored.external_data}
        name = entries.get("location", "")
        path = self.files.get(name) or self._path(name, what)
        offset = _count(entries, "offset", what)
        length = _count(entries, "length", what) if "length" in entries else size
        if length != size:
            raise FileError(f"{what} takes {length} bytes of {shown(name)}, not the {size} of its shape")
        self._left -= size
        if self._left < 0:
            raise FileError(f"keeps more than {_MOST_BYTES:,} bytes in other files, which is the limit")
        try:
            there = path.stat().st_size
            if there > _MOST_BYTES:
                raise FileError(f"{what} is stored in {shown(name)}, {there:,} bytes; at most {_MOST_BYTES:,} are read")
            if offset + size > there:
                raise FileError(
                    f"{what} is at bytes {offset} to {offset + size} of {shown(name)}, "
                    f"which has only {there}; is it complete, and does it belong to this model?"
                )
            # mapped: nothing is read before the shape is checked
            values = np.memmap(path, np.uint8, "r", offset, (size,)) if size else np.empty(0, np.uint8)
        except OSError as error:
            raise FileError(f"{what} is stored in {shown(name)}, which cannot be read ({error.strerror})") from error
        self.files[name] = path
        return values

    def _path(self, name: str, what: str) -> Path:
        """The path of `name`, a file inside the model's folder."""
        assert self._folder is not None
        parts = re.split(r"[/\\]", name)
        if not name or "\0" in name or Path(name).is_absolute() or re.match(r"[A-Za-z]:", name) or not parts[0]:
            raise FileError(f"{what} is stored in {shown(name)}; only files in the model's own folder are read")
        if ".." in parts:
            raise FileError(f"{what} is stored in {shown(name)}, which leaves the model's folder; move it there")
        path = self._folder
        for part in parts:
            path = _entry(path, part)
        if not path.exists():
            raise FileError(f"{what} is stored in {shown(name)}, which is missing; it must be in the model's folder")
        if not path.resolve().is_relative_to(self._folder.resolve()):
            raise FileError(
                f"{what} is stored in {shown(name)}, a link out of the model's folder; put the file itself there"
            )
        if not path.is_file():
            raise FileError(f"{what} is stored in {shown(name)}, which is not a regular file")
        return path


def _entry(folder: Path, name: str) -> Path:
    """`name` in a folder, or the only entry that differs just in case."""
    exact = folder / name
    if os.path.lexists(exact) or not folder.is_dir():
        return exact
    alike = [entry for entry in folder.iterdir() if entry.name.casefold() == name.casefold()]
    return alike[0] if len(alike) == 1 else exact


def _count(entries: Mapping[str, str], key: str, what: str) -> int:
    """A number of bytes; 0 if absent."""
    text = entries.get(key, "0")
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise FileError(f"{what} has {key} {shown(text)}, not a number of bytes")
    return int(text)
