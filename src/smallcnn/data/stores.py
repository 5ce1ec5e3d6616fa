"""Images inside larger files, each read on demand and from any thread."""

import os
from itertools import pairwise
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from smallcnn.errors import ImageError

_LOCAL_HEADER = 30  # bytes before each member of a zip, with an empty name


class FileStore:
    """A file on disk with images one after another, such as a tar; `size` is the expected size in bytes."""

    def __init__(self, path: Path, size: int) -> None:
        self.path, self.size = path, size

    def read(self, at: int, size: int) -> bytes:
        """The `size` bytes from `at`. Opens the file for each read, so threads share no handle and none stays open."""
        try:
            with self.path.open("rb", buffering=0) as file:
                if at + size > os.fstat(file.fileno()).st_size:  # before allocating memory for missing bytes
                    raise ImageError(self.shortened())
                file.seek(at)
                content = file.read(size)
        except OSError as error:
            raise ImageError(f"{self.path}: {error.strerror or error}; the images in it are missing") from error
        if len(content) < size:
            raise ImageError(self.shortened())
        return content

    def shortened(self) -> str:
        """The message for a truncated file."""
        return f"{self.path}: cut short, {self.size:,} bytes expected; the images beyond its end are missing"


class ZipStore:
    """A zip archive; the place of an image is its index in the list of members."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.zip = ZipFile(path)
        self.members = self.zip.infolist()

    def read(self, at: int, size: int) -> bytes:
        """The member with index `at`, unpacked to `size` bytes."""
        try:
            with self.zip.open(self.members[at]) as file:
                return file.read(size)  # the size bounds the unpacking even if the member's own is false
        except Exception as error:  # zipfile and zlib raise many things on damaged data
            raise ImageError(f"{self.path}: {self.members[at].filename}: {' '.join(str(error).split())}") from error

    def unreadable(self, member: ZipInfo) -> str:
        """The reason why a member cannot be read; empty if it can."""
        if member.flag_bits & 1:
            return "encrypted"
        # Python unpacks bzip2 and LZMA without a bound, and other methods not at all
        return "" if member.compress_type in (ZIP_STORED, ZIP_DEFLATED) else "compressed in another way than deflate"

    def check_places(self) -> None:
        """Raises BadZipFile if members overlap, which lets a small file unpack to any size."""
        places = sorted((member.header_offset, member.compress_size) for member in self.members)
        for (start, size), (following, _) in pairwise(places):
            if start + _LOCAL_HEADER + size > following:
                raise BadZipFile("its files overlap")
