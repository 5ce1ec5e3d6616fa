"""Atomic file writing: a kill or a full disk never leaves half a file."""

import errno
import glob
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex

from smallcnn.errors import FileError, WriteError


@contextmanager
def atomic(path: Path | str) -> Iterator[Path]:
    """Yields a temporary path next to `path` to write to, and renames it to `path` once it is safely on disk.

    On failure, the file at `path` is unchanged. Raises WriteError if the folder cannot be written.
    """
    path = Path(path)
    temporary = _start_temporary(path)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise WriteError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def make_folder(path: Path) -> None:
    """Makes the folder and its parents if missing. Raises WriteError."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(f"cannot make the folder {path}: {error.strerror}") from error


def write(path: Path, content: bytes) -> Path:
    """Writes the file atomically, makes its folder if missing, and returns the path. Raises WriteError."""
    make_folder(path.parent)
    with atomic(path) as temporary:
        temporary.write_bytes(content)
    return path


def remove_leftovers(folder: Path, name: str | None = None) -> None:
    """Removes temporary files left by killed writers, of one file if `name` is given.

    No other process may be writing there: it would fail, and the file it meant to replace stay as it is.
    """
    for leftover in folder.glob(f".{'*' if name is None else glob.escape(name)}.*.part"):
        with suppress(OSError):
            leftover.unlink()


def check_regular(path: Path, error: type[FileError] = FileError) -> None:
    """Raises `error` for a pipe, socket or device, which could block forever."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise error(f"{path}: a pipe, socket or device, not a regular file")


def check_suffix(path: Path | str, suffix: str, what: str) -> Path:
    """The path of a file to write. Raises FileError unless it ends in `suffix`, so that no other file is replaced."""
    path = Path(path)
    if path.suffix.lower() != suffix:
        raise FileError(f"{path}: {what}'s name ends in {suffix}")
    return path


def check_apart(out: Path | str, *sources: Path | str) -> None:
    """Raises FileError if a file to write is one of those that it is made from."""
    for source in map(Path, sources):
        if Path(out).resolve() == source.resolve():
            raise FileError(f"{out}: would replace the file that it is made from; choose another --out")


def check_writable(path: Path | str) -> None:
    """Raises WriteError before the work, if a file at `path` cannot be written."""
    _start_temporary(Path(path)).unlink()


def _start_temporary(path: Path) -> Path:
    """Makes an empty temporary file in the same folder."""
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a folder")
        temporary = path.with_name(f".{path.name}.{token_hex(4)}.part")
        temporary.touch(exist_ok=False)
    except OSError as error:
        raise WriteError(f"cannot write {path}: {error.strerror}") from error
    return temporary
