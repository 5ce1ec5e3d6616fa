"""What is kept from one command to the next: downloads, kernels, measurements. That it cannot be kept is never fatal.

The folder may be read-only, full, absent, or a file: then what would lie there is made anew, in a folder that lasts as
long as the process, and one line on stderr says so.
"""

import os
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TypeVar

from smallcnn.errors import WriteError
from smallcnn.files import write

T = TypeVar("T")


def cache_folder() -> Path:
    """$SMALLCNN_CACHE, $XDG_CACHE_HOME/smallcnn, or the usual place of this system."""
    if given := os.environ.get("SMALLCNN_CACHE"):
        return Path(given).expanduser()
    if given := os.environ.get("XDG_CACHE_HOME"):
        return Path(given) / "smallcnn"
    usual = {"win32": "AppData/Local", "darwin": "Library/Caches"}.get(sys.platform, ".cache")
    with suppress(RuntimeError):  # a user without a home
        return Path.home() / usual / "smallcnn"
    return passing_folder()


def recalled(path: Path) -> bytes | None:
    """The content of a file of the cache; None if it is not there or cannot be read."""
    try:
        return path.read_bytes()
    except OSError:
        return None


def keep(path: Path, content: bytes) -> None:
    """Puts a file into the cache, if that can be done."""
    try:
        write(path, content)
    except WriteError as error:
        _note(error)


def kept(path: Path, make: Callable[[], bytes]) -> Path:
    """Where the file `path` of the cache is, made now if it is not there; elsewhere if the cache cannot hold it."""
    if recalled(path) is not None:
        return path
    content = make()
    return in_cache(path.parent, lambda folder: write(folder / path.name, content))


def in_cache(folder: Path, work: Callable[[Path], T]) -> T:
    """What `work` does in `folder` of the cache; or, if it cannot write there, in a passing one.

    Raises WriteError if it can write in neither.
    """
    try:
        return work(folder)
    except WriteError as error:
        _note(error)
    return work(passing_folder() / folder.name)


@cache
def passing_folder() -> Path:
    """A folder that is removed when the process ends."""
    _passing.append(tempfile.TemporaryDirectory(prefix="smallcnn-", ignore_cleanup_errors=True))
    return Path(_passing[-1].name)


_passing: list[tempfile.TemporaryDirectory[str]] = []
"""Each is removed with its object; two threads may have made one at once."""


def _note(error: WriteError) -> None:
    """Once: what follows from it is the same for every file."""
    if not _noted:
        _noted.append(True)
        print(f"note: {error}; continuing without the cache ($SMALLCNN_CACHE)", file=sys.stderr)


_noted: list[bool] = []
