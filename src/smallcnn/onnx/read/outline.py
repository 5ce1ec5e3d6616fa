"""Outlines an ONNX file without reading it in full: its metadata, and counts of its parts.

A message of the format is a sequence of fields: a tag (number and kind), then a number, or a length and that many
bytes. Skipping the bytes covers gigabytes in milliseconds and detects a hostile file before it is parsed. Only the
standard library is needed, so `predict` can recognise a foreign file before it loads ONNX Runtime.
"""

import mmap
from collections.abc import Iterator
from pathlib import Path

from smallcnn.errors import FileError

MOST_STEPS = 10_000
"""Limit for the operators of a file; a small CNN has hundreds."""

_MOST_FIELDS = 400_000  # of the file, its graph and its operators together: 40 per operator
_MOST_METADATA = 2**24  # bytes

# numbers of fields in onnx.proto
_GRAPH, _METADATA = 7, 14  # of the model
_NODE = 1  # of the graph
_KEY, _VALUE = 1, 2  # of an entry of the metadata
_BYTES = 2  # the kind of a field with a length

_Content = mmap.mmap | bytes


def metadata(path: Path) -> dict[str, str]:
    """The file's metadata by name. FileError if it cannot be read, is damaged, or is far too large."""
    try:
        check_ordinary(path)
        with path.open("rb") as file:
            if not path.stat().st_size:
                raise FileError("damaged or not an ONNX file: it is empty")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                return outline(content)
    except OSError as error:
        raise FileError(f"{path}: cannot be read ({error.strerror})") from error
    except FileError as error:
        raise FileError(f"{path}: {error}") from None


def check_ordinary(path: Path) -> None:
    """Raises FileError unless the path is a regular file, not a folder, pipe or device."""
    if not path.is_file():
        what = "a folder, not a file" if path.is_dir() else "not a regular file" if path.exists() else "no such file"
        raise FileError(what)


def outline(content: _Content) -> dict[str, str]:
    """The metadata in a file's bytes; FileError if they are damaged or exceed any small CNN's file."""
    entries: dict[str, str] = {}
    fields = _Fields(content)
    nodes = 0
    for number, kind, start, end in fields.of(0, len(content)):
        if kind != _BYTES:
            continue
        if number == _METADATA:
            if end - start > _MOST_METADATA:
                raise FileError(f"has metadata of {end - start:,} bytes; at most {_MOST_METADATA:,} are read")
            entry = {n: bytes(content[a:b]).decode("utf-8", "replace") for n, k, a, b in fields.of(start, end)
                     if k == _BYTES}  # fmt: skip
            entries[entry.get(_KEY, "")] = entry.get(_VALUE, "")
        elif number == _GRAPH:
            for inner, inner_kind, first, last in fields.of(start, end):
                if inner == _NODE and inner_kind == _BYTES:
                    nodes += 1
                    if nodes > MOST_STEPS:
                        raise FileError(f"has more than {MOST_STEPS:,} operators, which is the limit")
                    fields.count(first, last)
    return entries


class _Fields:
    """Walks over messages and counts their fields."""

    def __init__(self, content: _Content) -> None:
        self._content = content
        self._left = _MOST_FIELDS

    def count(self, start: int, end: int) -> None:
        """Skips a message."""
        for _ in self.of(start, end):
            pass

    def of(self, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
        """Number, kind, and where its bytes start and end, of each field of the message between these places."""
        at = start
        while at < end:
            self._left -= 1
            if self._left < 0:
                raise FileError(f"has more than {_MOST_FIELDS:,} entries, far above any small CNN")
            tag, at = self._number(at, end)
            kind = tag & 7
            if kind == 0:
                first = at
                _, at = self._number(at, end)
            elif kind in (1, 5):
                first, at = at, at + (8 if kind == 1 else 4)
            elif kind == _BYTES:
                length, first = self._number(at, end)
                at = first + length
            else:
                raise _damaged()
            if at > end or not tag >> 3:
                raise _damaged()
            yield tag >> 3, kind, first, at

    def _number(self, at: int, end: int) -> tuple[int, int]:
        """A whole number of seven bits a byte, and where it ends."""
        value = 0
        for shift in range(0, 70, 7):
            if at >= end:
                break
            byte = self._content[at]
            at += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value, at
        raise _damaged()


def _damaged() -> FileError:
    return FileError("damaged or not an ONNX file")
