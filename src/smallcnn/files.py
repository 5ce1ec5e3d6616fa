"""Writing files so that a kill or a full disk never leaves half of one."""

import os
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
    beside = _beside(path)
    try:
        beside.touch()  # a place that cannot be written is found here, whatever the writer makes of it
        yield beside
        with beside.open("rb+") as file:
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        raise FileError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            beside.unlink()


def check_writable(path: Path | str) -> None:
    """Raises FileError now rather than after the work, if a file at `path` could not be written."""
    path = Path(path)
    probe = _beside(path)
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise FileError(f"cannot write {path}: {error.strerror}") from error


def _beside(path: Path) -> Path:
    if path.is_dir():
        raise FileError(f"cannot write {path}: it is a folder")
    return path.with_name(f".{path.name}.{os.getpid()}.part")
