"""Pictures in a folder with one sub-folder per class, alone or under train/, val/ and test/; or in such an archive.

Everything below a class folder belongs to the class. Hidden files and folders are passed over; a class may be a link to
a folder, but links to folders inside a class are not followed. What is found, and in which order, depends neither on
the file system nor on the operating system. Inside an archive, folders around all of it are passed over.
"""

import os
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from smallcnn.data.archive import File, files_in
from smallcnn.data.decode import SUFFIXES
from smallcnn.data.split import Split
from smallcnn.errors import DataError

PARTS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}

Read = tuple[tuple[str, ...], dict[str, Split], list[Path]]
"""Class names, parts, and the files in class folders that are not pictures."""


def read_folder(root: Path) -> Read:
    """What is in a folder. Raises DataError or OSError."""
    return _read(_OnDisk(root))


def read_archive(path: Path) -> Read:
    """What is in a tar or zip. Raises DataError."""
    root = _Inside(path, {tuple(name.split("/")): file for name, file in files_in(path).items()})
    while len(around := root.folders()) == 1 and around[0].path.name.lower() not in PARTS and around[0].folders():
        root = around[0]
    return _read(root)


class _Folder(Protocol):
    """A folder, wherever it is; `path` is for its name and messages."""

    path: Path

    def folders(self) -> "Sequence[_Folder]":
        """The visible folders in it, sorted by name."""

    def pictures(self) -> tuple[dict[str, File], list[Path]]:
        """(name below the folder -> picture, sorted by name; other files)."""


def _read(root: _Folder) -> Read:
    parts = _parts(root)
    found = {part: _by_class(folder) for part, folder in parts.items()}
    for part, by_class in found.items():
        if not by_class:
            where = parts[part].path
            raise DataError(f"{where}: no class folders; put the pictures of each class into a folder of its own")
    classes = tuple(sorted(found["train"] if "train" in found else set().union(*found.values())))
    splits, ignored = {}, []
    for part, by_class in found.items():
        where = parts[part].path
        below = "" if where == root.path else f"{where.name}/"
        files: list[File] = []
        labels: list[int] = []
        names: list[str] = []
        for name, (pictures, others) in sorted(by_class.items()):
            ignored += others
            if name not in classes:
                raise DataError(f"{where / name}: class {name!r} has no folder in {parts['train'].path}")
            if part == "train" and not pictures:
                raise DataError(f"{where / name}: no pictures in this class folder")
            files += pictures.values()
            labels += [classes.index(name)] * len(pictures)
            names += [f"{below}{name}/{picture}" for picture in pictures]
        if not files:
            raise DataError(f"{where}: no pictures")
        splits[part] = Split(files, np.array(labels), names)
    return classes, splits, ignored


def _by_class(folder: _Folder) -> dict[str, tuple[dict[str, File], list[Path]]]:
    """Class name -> its pictures, and files that are none."""
    found = {}
    for one in folder.folders():
        if (name := _nfc(one.path.name)) in found:
            raise DataError(f"{folder.path}: two folders called {name!r}, written in two ways of Unicode; rename one")
        found[name] = one.pictures()
    return found


def _parts(root: _Folder) -> dict[str, _Folder]:
    """Part -> the folder that holds its class folders; {"train": root} if `root` does so itself."""
    parts: dict[str, _Folder] = {}
    others = []
    for folder in root.folders():
        part = PARTS.get(folder.path.name.lower())
        if part in parts:
            one, other = parts[part].path.name, folder.path.name
            raise DataError(f"{root.path}: {one} and {other} mean the same part; keep one of them")
        if part:
            parts[part] = folder
        else:
            others.append(folder)
    if not parts or (others and not any(folder.folders() for folder in parts.values())):
        return {"train": root}  # a class may be called "train"
    if strays := [folder.path for folder in others if folder.pictures()[0]]:
        named = ", ".join(folder.path.name for folder in parts.values())
        raise DataError(f"{strays[0]}: pictures beside the parts of the set ({named}); move them out or into a part")
    return parts


class _OnDisk:
    def __init__(self, path: Path) -> None:
        self.path = path

    def folders(self) -> "list[_OnDisk]":
        """Without links that lead back up."""
        here = self.path.resolve()
        found = [d for d in self.path.iterdir() if d.is_dir() and not d.name.startswith(".")]
        down = [d for d in found if not here.is_relative_to(d.resolve())]
        return [_OnDisk(d) for d in sorted(down, key=lambda d: _nfc(d.name))]

    def pictures(self) -> tuple[dict[str, File], list[Path]]:
        pictures: dict[str, File] = {}
        others = []
        for name, entry in _walk(self.path):
            _, dot, kind = entry.name.rpartition(".")  # no question to the file system: ImageNet has 1.3 million
            broken_link = entry.is_symlink() and not Path(entry.path).exists()  # named when it cannot be decoded
            if dot + kind.lower() in SUFFIXES and (broken_link or entry.is_file()):
                pictures[_nfc(name)] = Path(entry.path)
            else:
                others.append(Path(entry.path))
        return dict(sorted(pictures.items())), sorted(others)


def _walk(folder: Path | str, below: str = "") -> Iterator[tuple[str, "os.DirEntry[str]"]]:
    """(name with /, entry) of everything in `folder` and below that is neither hidden nor a folder."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(entry.path, f"{below}{entry.name}/")
            else:
                yield f"{below}{entry.name}", entry


class _Inside:
    """A folder in an archive; `files` by the parts of their names below it, sorted."""

    def __init__(self, path: Path, files: dict[tuple[str, ...], File]) -> None:
        self.path, self.files = path, files

    def folders(self) -> "list[_Inside]":
        found: dict[str, dict[tuple[str, ...], File]] = {}
        for (top, *rest), file in self.files.items():
            if rest:
                found.setdefault(top, {})[tuple(rest)] = file
        return [_Inside(self.path / name, files) for name, files in sorted(found.items())]

    def pictures(self) -> tuple[dict[str, File], list[Path]]:
        named = {"/".join(name): file for name, file in self.files.items()}
        pictures = {name: file for name, file in sorted(named.items()) if Path(name).suffix.lower() in SUFFIXES}
        return pictures, [self.path / name for name in sorted(named.keys() - pictures.keys())]


def _nfc(name: str) -> str:
    return unicodedata.normalize("NFC", name)  # macOS stores accents apart from their letters
