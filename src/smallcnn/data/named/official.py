"""Definition of a named set, and copies of its official files, from a user's folder or by download."""

import hashlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from smallcnn.data.split import Split
from smallcnn.errors import DataError, FileError
from smallcnn.system.cache import cache_folder
from smallcnn.system.fetch import Report, fetch

Contents = tuple[tuple[str, ...], dict[str, Split]]
"""Class names and splits."""


@dataclass(frozen=True)
class OfficialFile:
    """A file as published: `size` in bytes, and its SHA-256, or its MD5 if no SHA-256 is known."""

    url: str
    size: int | None
    sha256: str | None = None
    md5: str | None = None

    @property
    def name(self) -> str:
        """The file's name."""
        return self.url.rpartition("/")[2]


@dataclass(frozen=True)
class NamedSet:
    """A named set. `read` reads it from a copy of its `files`; `mirror`: an image keeps its class when mirrored.

    `classes` is the number of classes.
    """

    read: "Callable[[Copy], Contents]"
    files: tuple[OfficialFile, ...]
    classes: int
    mirror: bool
    licence: str
    citation: str


class NoCopyError(DataError):
    """The given folder does not contain the official files."""


@dataclass(frozen=True)
class Copy:
    """The files of the set `name`: those in `root`, or without a root downloaded into the cache."""

    name: str
    files: tuple[OfficialFile, ...]
    root: Path | None
    licence: str

    def find(self, name: str, *unpacked: str) -> Path:
        """The official file `name`, verified; or its `unpacked` form in `root`, unverified.

        Raises NoCopyError if `root` has neither, DataError if the file is not the official one, FileError if it cannot
        be downloaded.
        """
        (file,) = (file for file in self.files if file.name == name)
        if self.root is None:
            return self._download(file)
        for wanted in (*unpacked, name):
            if found := _search(self.root, wanted):
                if wanted == name and (flaw := _flaw(found, file)):
                    raise DataError(f"{found}: not the official file: {flaw}")
                return found
        raise NoCopyError(f"{self.root} has no {' or '.join((name, *unpacked))}")

    def _download(self, file: OfficialFile) -> Path:
        with _bar(f"{file.name} from {urlsplit(file.url).hostname} ({self.name}; licence: {self.licence})") as report:
            path = fetch(
                file.url, size=file.size, sha256=file.sha256, cache=cache_folder() / "data" / self.name, report=report
            )
        if file.sha256 is None and (flaw := _flaw(path, file)):
            path.unlink()
            raise FileError(f"{file.url} is not the expected file: {flaw}; it was removed")
        return path


def _search(root: Path, name: str) -> Path | None:
    """The file or folder `name`: `root` itself, or up to three levels below it."""
    if root.name == name:
        return root
    return next((found for down in ("", "*/", "*/*/") for found in sorted(root.glob(down + name))), None)


def _flaw(path: Path, file: OfficialFile) -> str | None:
    """The difference between a file and the official one; None if there is none."""
    if file.size is not None and (found := path.stat().st_size) != file.size:
        return f"it has {found:,} bytes, expected {file.size:,}"
    kind, expected = ("SHA-256", file.sha256) if file.sha256 else ("MD5", file.md5)
    with path.open("rb") as opened:
        digest = hashlib.file_digest(opened, kind.replace("-", "").lower()).hexdigest()
    return None if digest == expected else f"its {kind} is {digest}, expected {expected}"


@contextmanager
def _bar(what: str) -> Iterator[Report]:
    """Shows a line and, on a terminal, a progress bar on stderr, once the first byte has arrived."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not sys.stderr.isatty(), transient=True) as bar:
        task = bar.add_task(what, total=None, start=False)

        def report(done: int, total: int | None) -> None:
            if not bar.tasks[0].started:
                console.print(f"fetching {what}")
                bar.start_task(task)
            bar.update(task, completed=done, total=total)

        yield report
