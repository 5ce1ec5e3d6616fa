"""The cache between commands: downloads, kernels, measurements. A cache that cannot be written is never fatal.

The folder may be read-only, full, absent, or a file. Its contents are then made again in a temporary folder that lasts
as long as the process, and one line on stderr says so.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TypeVar

from smallcnn.errors import WriteError
from smallcnn.system.files import write

T = TypeVar("T")


def cache_folder() -> Path:
    """$SMALLCNN_CACHE, $XDG_CACHE_HOME/smallcnn, or the usual cache folder of this system."""
    if given := os.environ.get("SMALLCNN_CACHE"):
        return Path(given).expanduser()
    if given := os.environ.get("XDG_CACHE_HOME"):
        return Path(given) / "smallcnn"
    usual = {"win32": "AppData/Local", "darwin": "Library/Caches"}.get(sys.platform, ".cache")
    with suppress(RuntimeError):  # a user without a home
        return Path.home() / usual / "smallcnn"
    return passing_folder()


def recalled(path: Path, within: float | None = None) -> bytes | None:
    """The content of a file in the cache; None if it is missing, cannot be read or was not written `within` seconds."""
    try:
        if within is not None and not 0 <= time.time() - path.stat().st_mtime <= within:
            return None
        return path.read_bytes()
    except OSError:
        return None


def keep(path: Path, content: bytes) -> None:
    """Writes a file to the cache, if possible."""
    try:
        write(path, content)
    except WriteError as error:
        _note(error)


def kept(path: Path, make: Callable[[], bytes]) -> Path:
    """The path of the cached file `path`, made if missing; it is elsewhere if the cache cannot be written."""
    if recalled(path) is not None:
        return path
    content = make()
    return in_cache(path.parent, lambda folder: write(folder / path.name, content))


def in_cache(folder: Path, work: Callable[[Path], T]) -> T:
    """The result of `work` on `folder` in the cache or, if it cannot write there, on a temporary folder.

    Raises WriteError if it can write to neither.
    """
    try:
        return work(folder)
    except WriteError as error:
        _note(error)
    return work(passing_folder() / folder.name)


@cache
def passing_folder() -> Path:
    """A temporary folder that is removed when the process ends."""
    _passing.append(tempfile.TemporaryDirectory(prefix="smallcnn-", ignore_cleanup_errors=True))
    return Path(_passing[-1].name)


_passing: list[tempfile.TemporaryDirectory[str]] = []
"""A folder is removed with its object; two threads may each have made one."""


def _note(error: WriteError) -> None:
    """Prints the note once, as the consequence is the same for every file."""
    if not _noted:
        _noted.append(True)
        print(f"note: {error}; continuing without the cache ($SMALLCNN_CACHE)", file=sys.stderr)


_noted: list[bool] = []
