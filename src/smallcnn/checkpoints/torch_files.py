"""Reads the files of torch.save and pickle.dump: a zip archive since PyTorch 1.6, before that pickles, then storages.

Neither PyTorch nor anything the file names is imported or called. Storages are located at once, and read when one of
their tensors is needed.
"""

import io
import mmap
import struct
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from smallcnn.checkpoints.kinds import Kind
from smallcnn.checkpoints.pickles import Builder, Named, load
from smallcnn.checkpoints.tensors import BUILDERS, Storage, storage
from smallcnn.checkpoints.zips import open_zip, read_member
from smallcnn.errors import FileError

_MAGIC = 0x1950A86A20F9469CFC6C  # the first value in files before PyTorch 1.6
_LARGEST_PICKLE = 64 * 2**20  # bytes; it holds names and shapes, about 100 kB
_LARGEST_FILE = 600 * 2**20  # bytes of a file that consists of pickles; VGG-16 is the largest network here
_MOST_PICKLED = 5000  # storages nested as files; a network with its optimizer has about 1,000
_STEPS_OF_STORAGE = 100  # pickle steps for one of them; typically about 20


@contextmanager
def opened(path: Path, kind: Kind) -> Iterator[object]:
    """The file's content, with `Numbers` as tensors; their numbers can be read inside the context only."""
    if kind == "torch":
        with open_zip(path) as archive:
            yield _of_archive(archive)
        return
    if path.stat().st_size > _LARGEST_FILE:
        raise FileError(f"a pickle of more than {_LARGEST_FILE:,} bytes, which is the limit")
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)  # closed with the last view of it
    yield _of_stream(mapped, memoryview(mapped), BUILDERS | {"torch.storage._load_from_bytes": _Pickled()})


def _of_archive(archive: zipfile.ZipFile) -> object:
    names = set(archive.namelist())
    pickled = min((name for name in names if name.rpartition("/")[2] == "data.pkl"), key=len)
    folder = pickled.removesuffix("data.pkl")
    if archive.getinfo(pickled).file_size > _LARGEST_PICKLE:
        raise FileError("damaged: its list of tensors is longer than any network's")
    swapped = f"{folder}byteorder" in names and read_member(archive, f"{folder}byteorder") == b"big"
    read = lru_cache(maxsize=1)(partial(read_member, archive))  # one storage may hold many tensors

    def persistent(identity: Any) -> Storage:
        word, kind, name, _device, count, *_ = identity
        if word != "storage" or not isinstance(name, str):
            raise FileError("damaged: it refers to something other than a storage")
        return storage(kind, count, partial(read, f"{folder}data/{name[:100]}"), swapped=swapped)

    return load(io.BytesIO(read_member(archive, pickled)), BUILDERS, persistent)


def _of_stream(file: Any, held: memoryview, builders: Mapping[str, Builder], **limit: int) -> object:
    """One pickle, or PyTorch's four with the storages after them."""
    found: dict[str, _Stored] = {}

    def persistent(identity: Any) -> object:
        word, kind, name, *rest = identity
        if word == "module":  # the class of a whole network, with its source code
            return kind if isinstance(kind, Named) else None
        if word != "storage" or not isinstance(name, str | int):
            raise FileError("damaged: it refers to something other than a storage")
        _device, count, view = (*rest, None)[:3]
        one = found.setdefault(str(name)[:100], _Stored(kind, count))
        if view is None:
            return storage(kind, count, one.read)
        _name, offset, size = view
        whole = storage(kind, count, one.read)
        if not (isinstance(offset, int) and isinstance(size, int) and 0 <= offset <= offset + size <= whole.count):
            raise FileError("damaged: a tensor that reaches beyond its storage")
        return storage(kind, size, lambda: memoryview(one.read())[offset * whole.item_bytes :])

    content = load(file, builders, persistent, **limit)
    if content != _MAGIC:
        return content
    for _ in ("version", "system"):
        load(file, {}, persistent, **limit)
    content = load(file, builders, persistent, **limit)
    order = load(file, {}, persistent, **limit)
    _locate(found, order, held, file.tell())
    return content


class _Stored:
    """A storage after the pickles: its type, size, and its bytes once located."""

    def __init__(self, kind: object, count: object) -> None:
        self.bytes = memoryview(b"")
        self.size = (whole := storage(kind, count, self.read)).count * whole.item_bytes
        self.item_bytes = whole.item_bytes

    def read(self) -> memoryview:
        return self.bytes


def _locate(found: Mapping[str, _Stored], order: object, held: memoryview, at: int) -> None:
    """Locates the storages, in the order of the last pickle; each starts with its count in eight bytes."""
    for name in order if isinstance(order, list) else ():
        one = found.get(str(name)[:100])
        if one is None or at + 8 > len(held):
            raise FileError("damaged: its storages are cut off or overwritten")
        (count,) = struct.unpack_from("<q", held, at)
        end = at + 8 + count * one.item_bytes
        if count < 0 or count * one.item_bytes < one.size or end > len(held):
            raise FileError("damaged: its storages are cut off or overwritten")
        one.bytes = held[at + 8 : end]
        at = end


class _Pickled:
    """torch.storage._load_from_bytes: pickle.dump writes each storage as a PyTorch file of its own, in bytes."""

    def __init__(self) -> None:
        self.done: dict[int, tuple[object, object]] = {}  # by identity: a pickle may pass the same bytes many times

    def __call__(self, held: object) -> object:
        if id(held) not in self.done:
            data = held.encode("latin-1") if isinstance(held, str) else held  # older protocols write bytes as text
            if len(self.done) == _MOST_PICKLED or not isinstance(data, bytes):
                raise FileError("damaged: a storage that is not bytes, or larger than any checkpoint's")
            made = _of_stream(io.BytesIO(data), memoryview(data), BUILDERS, most_steps=_STEPS_OF_STORAGE)
            self.done[id(held)] = held, made
        return self.done[id(held)][1]
