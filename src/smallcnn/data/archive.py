"""The files in a folder, a tar (plain or compressed) or a zip, by name; nothing is ever unpacked to disk.

A plain tar and a zip are read file by file when a picture is asked for. A compressed tar can only be read from the
beginning, so its files are kept in memory.
"""

import lzma
import tarfile
import unicodedata
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO
from zipfile import BadZipFile

from smallcnn.data.stored import FileStore, Stored, ZipStore
from smallcnn.errors import DataError

File = Path | Stored | bytes
"""A file on disk, one inside an archive, or its content."""

TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_MOST_IN_MEMORY = 4 << 30


def is_archive(path: Path) -> bool:
    """Whether `path` is a tar or a zip, by its name."""
    return path.is_file() and path.name.lower().endswith((*TARS, ".zip"))


def files_in(path: Path) -> dict[str, File]:
    """Name with / -> file, sorted by name, of all ordinary files that are not hidden.

    Raises DataError if `path` is no whole archive.
    """
    if path.is_dir():
        found: dict[str, File] = {file.relative_to(path).as_posix(): file for file in path.rglob("*") if file.is_file()}
    else:
        try:
            found = dict(_in_zip(path) if path.suffix.lower() == ".zip" else _in_tar(path))
        except (tarfile.TarError, BadZipFile, EOFError, zlib.error, lzma.LZMAError, OSError) as error:
            why = " ".join(str(error).split()) or type(error).__name__
            raise DataError(f"{path}: not a whole, readable archive ({why}); get it again") from error
    visible = {_plain(name): file for name, file in found.items()}
    return {name: file for name, file in sorted(visible.items()) if not any(p[:1] == "." for p in name.split("/"))}


def content(file: File) -> bytes:
    """What is in a file. Raises ImageError or OSError if it cannot be read."""
    if isinstance(file, bytes):
        return file
    return file.read_bytes() if isinstance(file, Path) else file.read()


def tar_members(file: BinaryIO) -> Iterator[tarfile.TarInfo]:
    """The ordinary files in a plain tar. Raises tarfile.TarError, in the end, if it is cut short."""
    file.seek(0)
    tar = tarfile.open(fileobj=file, mode="r:")  # noqa: SIM115
    for member in tar:
        if member.isreg() and not member.issparse():
            yield member
    file.seek(tar.offset)
    if file.read(512) != bytes(512):  # a tar ends with blocks of zeros; tarfile takes half a header for the end too
        raise tarfile.ReadError("unexpected end of data")


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name.removeprefix("./"))


def _in_zip(path: Path) -> Iterator[tuple[str, File]]:
    store = ZipStore(path)
    for number, member in enumerate(store.members):
        if not member.is_dir():
            name = member.filename
            yield name, Stored(store, number, member.file_size, f"{path.name}/{name}")


def _in_tar(path: Path) -> Iterator[tuple[str, File]]:
    with path.open("rb") as file:
        try:
            tarfile.open(fileobj=file, mode="r:")  # noqa: SIM115  (closing it does nothing to the file)
        except tarfile.ReadError:
            file.seek(0)
            yield from _in_compressed_tar(path, tarfile.open(fileobj=file, mode="r:*"))  # noqa: SIM115
            return
        store = FileStore(path, path.stat().st_size)
        for member in tar_members(file):
            yield member.name, Stored(store, member.offset_data, member.size, f"{path.name}/{member.name}")


def _in_compressed_tar(path: Path, tar: tarfile.TarFile) -> Iterator[tuple[str, File]]:
    total = 0
    for member in tar:
        if member.isreg() and (opened := tar.extractfile(member)):
            total += member.size
            if total > _MOST_IN_MEMORY:
                limit = _MOST_IN_MEMORY >> 30
                raise DataError(
                    f"{path}: more than {limit} GB in a compressed tar; unpack it, or decompress it to a .tar"
                )
            yield member.name, opened.read()
    while tar.fileobj and tar.fileobj.read(1 << 20):  # to the end, where the checksum of all of it is
        pass
