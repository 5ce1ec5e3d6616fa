"""Lists the files in a folder, a tar (plain or compressed) or a zip; nothing is ever unpacked to disk.

A plain tar and a zip are read file by file, on demand. A compressed tar can only be read from the start, so its images
are kept in memory. An archive's own figures are checked before anything is unpacked: a small one that would fill the
memory is refused.
"""

import bz2
import gzip
import io
import lzma
import posixpath
import stat
import struct
import tarfile
import unicodedata
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO
from zipfile import BadZipFile, ZipInfo

from smallcnn.data.left_out import LeftOut, is_annotation_name, is_image_name, is_skipped
from smallcnn.data.stores import FileStore, ZipStore
from smallcnn.errors import DataError
from smallcnn.image.stored import Stored

File = Path | Stored | bytes
"""A file on disk, a file inside an archive, or its content."""

TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")

LARGEST = 128 << 20
"""Largest image in an archive, in bytes: 45 million pixels uncompressed."""

LARGEST_ANNOTATION = 512 << 20
"""Largest file of annotations, in bytes: COCO's instances_train2017.json has 470 million."""

_MOST_IN_MEMORY = 768 << 20
_SWOLLEN, _FREELY = 200, 128 << 20  # photographs hardly compress in an archive; the first 128 MB are not checked

_LINKS = 20  # longest chain of links

_DAMAGES = (
    tarfile.TarError, BadZipFile, EOFError, zlib.error, lzma.LZMAError, struct.error, OSError, ValueError,
    NotImplementedError, MemoryError, OverflowError,
)  # fmt: skip


def is_archive(path: Path) -> bool:
    """Whether `path` is a tar or a zip, by name."""
    return path.is_file() and path.name.lower().endswith((*TARS, ".zip"))


def files_in(path: Path, left_out: LeftOut | None = None) -> dict[str, File]:
    """Path with / -> file, sorted, for all ordinary files that are not hidden and not in a skipped folder.

    With `left_out`, which collects skipped files, only images and files that may describe them are read; of other files
    just the names.
    Raises DataError if `path` is a damaged archive, or would unpack to far more than its size.
    """
    only_used, left_out = left_out is not None, left_out or LeftOut()
    if path.is_dir():
        found: dict[str, File] = {file.relative_to(path).as_posix(): file for file in path.rglob("*") if file.is_file()}
    else:
        try:
            inside = _Inside(path, left_out, only_used)
            _read_zip(inside) if path.suffix.lower() == ".zip" else _read_tar(inside)
            found = inside.with_links()
        except DataError:
            raise
        except _DAMAGES as error:
            why = " ".join(str(error).split()) or type(error).__name__
            raise DataError(f"{path}: not a whole, readable archive ({why}); get it again") from error
    return {name: file for name, file in sorted(found.items()) if _is_visible(path, name, left_out)}


def content(file: File) -> bytes:
    """The content of a file. Raises ImageError or OSError if it cannot be read."""
    if isinstance(file, bytes):
        return file
    return file.read_bytes() if isinstance(file, Path) else file.read()


def tar_members(file: BinaryIO) -> Iterator[tarfile.TarInfo]:
    """The ordinary files in a plain tar. At the end raises tarfile.TarError if the tar is truncated."""
    return (member for member in all_members(file) if member.isreg() and not member.issparse())


def all_members(file: BinaryIO) -> Iterator[tarfile.TarInfo]:
    """All members of a plain tar, including links and folders. Raises as `tar_members` does."""
    file.seek(0)
    tar = tarfile.open(fileobj=file, mode="r:")  # noqa: SIM115
    yield from tar
    file.seek(tar.offset)
    if file.read(512) != bytes(512):  # a tar ends with blocks of zeros; tarfile also accepts half a header
        raise tarfile.ReadError("unexpected end of data")


def check_swelling(path: Path, packed: int, unpacked: int) -> None:
    """Raises DataError if `packed` bytes of an archive unpack to far more than images would."""
    if unpacked > max(_FREELY, _SWOLLEN * packed):
        raise DataError(
            f"{path}: its {max(packed / 1e6, 0.1):,.1f} MB unpack to {unpacked / 1e6:,.0f} MB or more, unlike images; "
            "if it is no zip bomb, unpack it and give the folder"
        )


def _is_visible(path: Path, name: str, left_out: LeftOut) -> bool:
    *folders, base = name.split("/")
    for depth, folder in enumerate(folders, 1):
        if is_skipped(folder):
            left_out.folder(path.joinpath(*folders[:depth]))
            return False
    if base[0] == ".":
        left_out.file(path / name)
        return False
    return True


def _plain(name: str) -> str:
    """A normalised name below the archive's root. Nothing is unpacked, so ../../x is just an odd name."""
    name = posixpath.normpath(unicodedata.normalize("NFC", name))
    while name.startswith(("/", "../")):
        name = name.removeprefix("/").removeprefix("../")
    return name


class _Inside:
    """The contents of an archive: files, links, and skipped files."""

    def __init__(self, path: Path, left_out: LeftOut, only_used: bool) -> None:
        self.path, self.left_out, self.only_used = path, left_out, only_used
        self._files: dict[str, File] = {}
        self._links: dict[str, str] = {}
        self._replaced = 0

    def name(self, name: str) -> str:
        """The file's name for messages."""
        return f"{self.path.name}/{name}"

    def wants(self, name: str, size: int, unreadable: str = "") -> bool:
        """Whether to read the file; notes images that cannot be used."""
        if not self.only_used:
            return True
        if not is_image_name(name):
            described = is_annotation_name(posixpath.basename(name) or ".")
            return described and size <= LARGEST_ANNOTATION and not unreadable
        if not unreadable and size > LARGEST:
            unreadable = f"larger than {LARGEST >> 20} MB"
        if unreadable:
            self.left_out.file(self.path / _plain(name), unreadable)
        return not unreadable

    def add(self, name: str, file: File) -> None:
        """Adds a file. A later one of the same name replaces it, as when a tar is unpacked."""
        name = _plain(name)
        if name in (".", ".."):
            return
        if name in self._files or name in self._links:
            self._replaced += 1
            self.left_out.file(self.path / name / str(self._replaced), "replaced by another of the same name")
        self._links.pop(name, None)
        self._files[name] = file

    def link(self, name: str, to: str) -> None:
        """Adds another name for the file `to`, if that is in the archive."""
        self._links[_plain(name)] = _plain(to)

    def with_links(self) -> dict[str, File]:
        """All files by name, links resolved."""
        found = dict(self._files)
        for name in self._links:
            to = name
            for _ in range(_LINKS):  # links may lead to links, and in circles
                to = self._links.get(to, to)
            if to in self._files:
                found[name] = self._files[to]
            else:
                self.left_out.file(self.path / name, "linking out of the archive")
        return found


def _read_zip(inside: _Inside) -> None:
    store = ZipStore(inside.path)
    chosen: list[tuple[int, ZipInfo]] = []
    for number, member in enumerate(store.members):
        name = member.filename.replace("\\", "/") if member.create_system == 0 else member.filename  # MS-DOS
        if member.is_dir() or name.endswith("/"):
            continue
        if stat.S_ISLNK(member.external_attr >> 16):
            if member.file_size <= 4096 and not store.unreadable(member):
                to = store.read(number, member.file_size).decode("utf-8", "replace")
                inside.link(name, posixpath.join(posixpath.dirname(name), to))
        elif inside.wants(name, member.file_size, store.unreadable(member)):
            chosen.append((number, member))
            inside.add(name, Stored(store, number, member.file_size, inside.name(name)))
        elif not is_image_name(name):
            inside.add(name, b"")
    check_swelling(inside.path, inside.path.stat().st_size, sum(member.file_size for _, member in chosen))
    store.check_places()


def _read_tar(inside: _Inside) -> None:
    with inside.path.open("rb") as file:
        start = file.read(512)
        file.seek(0)
        if stream := _unpacking(file, start):
            _read_compressed_tar(inside, _Bounded(stream, file, inside.path))
            return
        store = FileStore(inside.path, inside.path.stat().st_size)
        for member in all_members(file):
            if member.isreg() and not member.issparse():
                if inside.wants(member.name, member.size):
                    stored = Stored(store, member.offset_data, member.size, inside.name(member.name))
                    inside.add(member.name, stored)
                elif not is_image_name(member.name):
                    inside.add(member.name, b"")
            else:
                _add_other(inside, member)


def _unpacking(file: BinaryIO, start: bytes) -> io.BufferedIOBase | None:
    """The decompressed stream of the file, by its first bytes; None if it is not compressed."""
    if start.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=file)
    if start.startswith(b"BZ"):
        return bz2.BZ2File(file)
    return lzma.LZMAFile(file) if start.startswith(b"\xfd7zXZ") else None


def _read_compressed_tar(inside: _Inside, stream: "_Bounded") -> None:
    total = 0
    tar = tarfile.open(fileobj=stream, mode="r|")  # noqa: SIM115
    for member in tar:
        if not member.isreg() or member.issparse():
            _add_other(inside, member)
        elif inside.wants(member.name, member.size):
            total += member.size
            if total > _MOST_IN_MEMORY:
                limit = _MOST_IN_MEMORY >> 20
                raise DataError(
                    f"{inside.path}: more than {limit} MB of images in a compressed tar, which are kept in memory; "
                    "decompress it to a .tar, or unpack it"
                )
            opened = tar.extractfile(member)
            inside.add(member.name, opened.read() if opened else b"")
        elif not is_image_name(member.name):
            inside.add(member.name, b"")
    while stream.read(1 << 20):  # read to the end, to verify the checksum there
        pass


def _add_other(inside: _Inside, member: tarfile.TarInfo) -> None:
    """Adds a tar member that is not a plain file: a link, a device, a folder."""
    if member.islnk():
        inside.link(member.name, member.linkname)
    elif member.issym():
        inside.link(member.name, posixpath.join(posixpath.dirname(member.name), member.linkname))
    elif not member.isdir():
        kind = "sparse" if member.issparse() else "special (pipe, socket or device)"
        inside.left_out.file(inside.path / _plain(member.name), kind)


class _Bounded(io.RawIOBase):
    """A decompressed stream, read once from start to end and checked for its ratio to the packed size."""

    def __init__(self, stream: io.BufferedIOBase, packed: BinaryIO, path: Path) -> None:
        self._stream, self._packed, self._path, self._given = stream, packed, path, 0

    def read(self, size: int = -1) -> bytes:
        """Reads at most `size` bytes."""
        found = self._stream.read(min(size, 1 << 20) if size >= 0 else 1 << 20)
        self._given += len(found)
        check_swelling(self._path, self._packed.tell(), self._given)
        return found
