"""Writing files so that a kill or a full disk never leaves half of one."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from smallcnn.errors import FileError, WriteError


@contextmanager
def atomic(path: Path | str) -> Iterator[Path]:
    """Gives a path beside `path` to write to, and renames it onto `path` once it is safely on disk.

    On any failure what was at `path` stays as it was. Raises WriteError if the place cannot be written.
    """
    path = Path(path)
    beside = _start_beside(path)
    try:
        yield beside
        with beside.open("rb+") as file:
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        raise WriteError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            beside.unlink()


def make_folder(path: Path) -> None:
    """The folder and those above it, where they are not there yet. Raises WriteError."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(f"cannot make the folder {path}: {error.strerror}") from error


def write(path: Path, content: bytes) -> Path:
    """Puts the file there in one piece, in a folder made if there is none; gives its path. Raises WriteError."""
    make_folder(path.parent)
    with atomic(path) as beside:
        beside.write_bytes(content)
    return path


def remove_leftovers(folder: Path) -> None:
    """Removes what writers that were killed left beside their files. Nobody else may be writing there."""
    for leftover in folder.glob(".*.part"):
        with suppress(OSError):
            leftover.unlink()


def check_regular(path: Path, error: type[FileError] = FileError) -> None:
    """Raises `error` for a pipe, socket or device, which could be waited for without end."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise error(f"{path}: a pipe, socket or device, not a regular file")


def check_writable(path: Path | str) -> None:
    """Raises WriteError now rather than after the work, if a file at `path` could not be written."""
    _start_beside(Path(path)).unlink()


def _start_beside(path: Path) -> Path:
    """An empty file in the same folder."""
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a folder")
        beside = path.with_name(f".{path.name}.{os.getpid()}.part")
        beside.touch()
    except OSError as error:
        raise WriteError(f"cannot write {path}: {error.strerror}") from error
    return beside
