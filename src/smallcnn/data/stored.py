"""Images that lie inside larger files; each is read by itself when it is asked for, from any thread."""

import os
import zlib
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Protocol
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from smallcnn.errors import ImageError

_LOCAL_HEADER = 30  # bytes in front of each member of a zip, with a name of no length


class Store(Protocol):
    """A file that holds images."""

    def read(self, at: int, size: int) -> bytes:
        """The image at this place. Raises ImageError if it cannot be read."""


@dataclass(frozen=True, slots=True)
class Stored:
    """One image in a store; `name` for messages, `crc` the CRC-32 of its bytes if it is known."""

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
    """A file on disk that holds images one after the other, as a tar does; `size` in bytes as it should be."""

    def __init__(self, path: Path, size: int) -> None:
        self.path, self.size = path, size

    def read(self, at: int, size: int) -> bytes:
        """The `size` bytes from `at`. The file is opened for each: no two threads meet, and no handle stays open."""
        try:
            with self.path.open("rb", buffering=0) as file:
                if at + size > os.fstat(file.fileno()).st_size:  # before room is made for what is not there
                    raise ImageError(self.shortened())
                file.seek(at)
                content = file.read(size)
        except OSError as error:
            raise ImageError(f"{self.path}: {error.strerror or error}; the images in it are missing") from error
        if len(content) < size:
            raise ImageError(self.shortened())
        return content

    def shortened(self) -> str:
        """One line for a file that ends too early."""
        return f"{self.path}: cut short, {self.size:,} bytes expected; the images beyond its end are missing"


class ZipStore:
    """A zip archive; the place of an image is its number in the list of members."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.zip = ZipFile(path)
        self.members = self.zip.infolist()

    def read(self, at: int, size: int) -> bytes:
        """The member number `at`, unpacked to its `size` bytes."""
        try:
            with self.zip.open(self.members[at]) as file:
                return file.read(size)  # with a size, which bounds what is unpacked also where the member's is a lie
        except Exception as error:  # zipfile and zlib raise many things on damaged data
            raise ImageError(f"{self.path}: {self.members[at].filename}: {' '.join(str(error).split())}") from error

    def unreadable(self, member: ZipInfo) -> str:
        """Why a member cannot be read, in a word; empty if it can."""
        if member.flag_bits & 1:
            return "encrypted"
        # of the others, bzip2 and LZMA are unpacked by Python without a bound, and the rest not at all
        return "" if member.compress_type in (ZIP_STORED, ZIP_DEFLATED) else "compressed in another way than deflate"

    def check_places(self) -> None:
        """Raises BadZipFile if members share bytes, by which a small file could unpack to any size."""
        places = sorted((member.header_offset, member.compress_size) for member in self.members)
        for (start, size), (following, _) in pairwise(places):
            if start + _LOCAL_HEADER + size > following:
                raise BadZipFile("its files overlap")
