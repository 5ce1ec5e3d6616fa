"""Remote shards: each is fetched whole when one of its images is read, and cached until room is needed.

http and https go through `system.fetch`; other addresses (s3:, gs:, pipe: and a command) through webdataset's
`gopen`. The cache holds $SMALLCNN_SHARD_CACHE gigabytes, 10 by default; the least recently used shards go first.
"""

import hashlib
import os
import re
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from smallcnn.data.stores import FileStore
from smallcnn.errors import DataError, FileError, ImageError, MissingExtra
from smallcnn.system.cache import cache_folder, in_cache, passing_folder
from smallcnn.system.fetch import fetch
from smallcnn.system.files import atomic, make_folder
from smallcnn.system.places import is_fetched, scheme

_GIGABYTES = 10.0
_TRY_AGAIN = 300.0  # seconds before retrying a failed shard: a retry for each of its images would take forever
_TOUCH = 60.0  # seconds between updates of a shard's time of use


def is_remote(source: str) -> bool:
    """Whether `source` is an address and not a path."""
    return bool(scheme(source))


def read_whole(url: str) -> bytes:
    """The content of a small file, not cached. Raises FileError."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            return _get(url, Path(folder), None, None).read_bytes()
        except FileError as error:  # drops the advice to put the file into this temporary folder
            raise FileError(str(error).partition("; if you can get")[0]) from error


class RemoteStore:
    """One shard at `url`; `size` in bytes and `sha256` are verified if known."""

    def __init__(self, url: str, size: int | None = None, sha256: str | None = None) -> None:
        self.url, self.size, self.sha256 = url, size, sha256
        self._lock = threading.Lock()
        self._path: Path | None = None
        self._problem, self._failed_at, self._touched_at = "", 0.0, 0.0

    def read(self, at: int, size: int) -> bytes:
        """The `size` bytes from `at`."""
        path = self.local()
        try:
            return FileStore(path, self.size or 0).read(at, size)
        except ImageError:
            if path.exists():
                raise
        return FileStore(self.local(), self.size or 0).read(at, size)  # it was removed from the cache in between

    def local(self) -> Path:
        """The shard's path, fetched if necessary. Raises ImageError; for some minutes after a failure, at once."""
        with self._lock:
            now = time.monotonic()
            if self._path and self._path.exists():
                if now - self._touched_at > _TOUCH:
                    self._touched_at = now
                    with suppress(OSError):
                        os.utime(self._path)
                return self._path
            if self._problem and now - self._failed_at < _TRY_AGAIN:
                raise ImageError(self._problem)
            folder = cache_folder() / "shards"
            try:
                path = in_cache(folder, lambda kept: _get(self.url, kept, self.size, self.sha256))
            except (FileError, MissingExtra) as error:
                self._problem, self._failed_at = f"shard {self.url}: {error}", time.monotonic()
                raise ImageError(self._problem) from error
            self._path, self._touched_at = path, now
            with suppress(OSError):
                os.utime(path)
            _make_room(folder if folder in path.parents else passing_folder(), path)
            return path


def _get(url: str, folder: Path, size: int | None, sha256: str | None) -> Path:
    if is_fetched(url):
        return fetch(url, size=size, sha256=sha256, cache=folder)
    path = folder / "other" / hashlib.sha256(url.encode()).hexdigest()
    if not path.is_file():
        make_folder(path.parent)
        with atomic(path) as temporary:
            with temporary.open("wb") as file:
                for chunk in _stream(url):
                    file.write(chunk)
            _verify(temporary, url, size, sha256)
    return path


def _stream(url: str) -> Iterator[bytes]:
    try:
        from webdataset.gopen import gopen  # type: ignore[import-untyped]
    except ImportError as error:
        raise MissingExtra(f"reading {url}", "train") from error
    try:
        with gopen(url, "rb") as stream:
            while chunk := stream.read(1 << 20):
                yield chunk
    except Exception as error:  # a failing command, an unknown scheme
        why = " ".join(str(error).split())
        ended = re.search(r"exit (\d+) \(read\)", why)  # from a long description of the process
        raise FileError(f"{url}: " + (f"the command ended with exit code {ended[1]}" if ended else why)) from error


def _verify(path: Path, url: str, size: int | None, sha256: str | None) -> None:
    if size is not None and (found := path.stat().st_size) != size:
        raise FileError(f"{url} is not the expected file: it has {found:,} bytes, expected {size:,}")
    if sha256:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != sha256:
            raise FileError(f"{url} is not the expected file: its SHA-256 is {digest}, expected {sha256}")


def _make_room(folder: Path, keep: Path) -> None:
    """Removes the least recently used shards until the rest fits; never `keep`."""
    given = os.environ.get("SMALLCNN_SHARD_CACHE", "")
    try:
        most = float(given or _GIGABYTES) * 1e9
    except ValueError:
        most = -1.0
    if not most >= 0:
        raise DataError(f"SMALLCNN_SHARD_CACHE is {given!r}; it must be a number of gigabytes")
    found = []
    for path in folder.rglob("*"):
        with suppress(OSError):  # another process removes too
            if path.is_file() and not path.name.startswith("."):
                status = path.stat()
                found.append((status.st_mtime, status.st_size, path))
    total = sum(size for _, size, _ in found)
    for _, size, path in sorted(found):
        if total <= most:
            return
        if path != keep:
            with suppress(OSError):
                path.unlink()
            total -= size
