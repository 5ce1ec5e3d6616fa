"""Writing files so that a kill or a full disk never leaves half of one."""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from smallcnn.errors import FileError


@contextmanager
def atomic(path: Path | str) -> Iterator[Path]:
    """Gives a path beside `path` to write to, and renames it onto `path` once it is safely on disk.

    On any failure what was at `path` stays as it was. Raises FileError if the place cannot be written.
    """
    path = Path(path)
    beside = _start_beside(path)
    try:
        yield beside
        with beside.open("rb+") as file:
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        raise FileError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            beside.unlink()


def cache_folder() -> Path:
    """$SMALLCNN_CACHE, $XDG_CACHE_HOME/smallcnn, or the usual place of this system."""
    if given := os.environ.get("SMALLCNN_CACHE"):
        return Path(given).expanduser()
    if given := os.environ.get("XDG_CACHE_HOME"):
        return Path(given) / "smallcnn"
    usual = {"win32": "AppData/Local", "darwin": "Library/Caches"}.get(sys.platform, ".cache")
    return Path.home() / usual / "smallcnn"


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
    """Raises FileError now rather than after the work, if a file at `path` could not be written."""
    _start_beside(Path(path)).unlink()


def _start_beside(path: Path) -> Path:
    """An empty file in the same folder."""
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a folder")
        beside = path.with_name(f".{path.name}.{os.getpid()}.part")
        beside.touch()
    except OSError as error:
        raise FileError(f"cannot write {path}: {error.strerror}") from error
    return beside
