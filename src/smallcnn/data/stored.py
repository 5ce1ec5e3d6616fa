"""Pictures that lie inside larger files; each is read by itself when it is asked for, from any thread."""

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from zipfile import ZipFile

from smallcnn.errors import ImageError


class Store(Protocol):
    """A file that holds pictures."""

    def read(self, at: int, size: int) -> bytes:
        """The picture at this place. Raises ImageError if it cannot be read."""


@dataclass(frozen=True, slots=True)
class Stored:
    """One picture in a store; `name` for messages, `crc` the CRC-32 of its bytes if it is known."""

    store: Store
    at: int
    size: int
    name: str
    crc: int | None = None

    def read(self) -> bytes:
        """Its bytes. Raises ImageError if they cannot be read or are not those it was stored with."""
        content = self.store.read(self.at, self.size)
        if self.crc is not None and zlib.crc32(content) != self.crc:
            raise ImageError(f"{self.name}: damaged where it is stored (another CRC-32 than when it was written)")
        return content


class FileStore:
    """A file on disk that holds pictures one after the other, as a tar does; `size` in bytes as it should be."""

    def __init__(self, path: Path, size: int) -> None:
        self.path, self.size = path, size

    def read(self, at: int, size: int) -> bytes:
        """The `size` bytes from `at`. The file is opened for each: no two threads meet, and no handle stays open."""
        try:
            with self.path.open("rb", buffering=0) as file:
                file.seek(at)
                content = file.read(size)
        except OSError as error:
            raise ImageError(f"{self.path}: {error.strerror or error}; the pictures in it are missing") from error
        if len(content) < size:
            raise ImageError(self.shortened())
        return content

    def shortened(self) -> str:
        """One line for a file that ends too early."""
        return f"{self.path}: cut short, {self.size:,} bytes expected; the pictures beyond its end are missing"


class ZipStore:
    """A zip archive; the place of a picture is its number in the list of members."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.zip = ZipFile(path)
        self.members = self.zip.infolist()

    def read(self, at: int, size: int) -> bytes:  # noqa: ARG002
        """The member number `at`, unpacked to its `size` bytes."""
        try:
            return self.zip.read(self.members[at])
        except Exception as error:  # zipfile and zlib raise many things on damaged data
            raise ImageError(f"{self.path}: {self.members[at].filename}: {' '.join(str(error).split())}") from error
