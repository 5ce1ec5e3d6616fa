"""The folders of a data set, on disk or in an archive, seen alike."""

import os
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from smallcnn.data.archive import File
from smallcnn.data.left_out import LeftOut, is_annotation_name, is_image_name, is_skipped
from smallcnn.errors import DataError

SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
DEEPEST = 8  # folders around a set; links may lead in circles


class Folder(Protocol):
    """A folder on disk or in an archive; `path` is for names and messages, `left_out` collects skipped files."""

    path: Path
    left_out: LeftOut
    packed: bool
    """Whether it is in an archive, where a folder around the whole set is usual and has no meaning."""

    def folders(self) -> "Sequence[Folder]":
        """The sub-folders, sorted by name, without those that programs make."""

    def loose(self) -> Sequence[Path]:
        """The files directly in it."""

    def images(self) -> dict[str, File]:
        """Name below the folder -> image, sorted by name."""

    def annotations(self) -> dict[str, File]:
        """Name below the folder -> file that may describe images, sorted by name."""

    def file(self, name: str) -> File:
        """A file directly in it."""


def by_split(root: Folder) -> tuple[dict[str, Folder], list[Folder]]:
    """Split -> the folder of its name in `root`, and the other folders. Raises DataError for two of one split."""
    splits: dict[str, Folder] = {}
    others = []
    for folder in root.folders():
        split = SPLITS.get(folder.path.name.lower())
        if split in splits:
            one, other = splits[split].path.name, folder.path.name
            raise DataError(f"{root.path}: {one} and {other} mean the same split; keep one of them")
        if split:
            splits[split] = folder
        else:
            others.append(folder)
    return splits, others


def check_strays(splits: dict[str, Folder], others: Sequence[Folder]) -> None:
    """Raises DataError if there are images in other folders than those of the splits."""
    if strays := [folder.path for folder in others if folder.images()]:
        named = ", ".join(folder.path.name for folder in splits.values())
        raise DataError(f"{strays[0]}: images next to the splits ({named}); move them out or into a split")


def around(given: Folder, root: Folder) -> list[str]:
    """A note on the folders around a set, which have no meaning in an archive."""
    same = root.packed or root is given
    return [] if same else [f"the data set is {root.path}, the only one in {given.path}"]


class OnDisk:
    """A folder on disk."""

    packed = False

    def __init__(self, path: Path, left_out: LeftOut) -> None:
        self.path, self.left_out = path, left_out

    def folders(self) -> "list[OnDisk]":
        """The sub-folders, without links that lead back up."""
        here = self.path.resolve()
        found = []
        with os.scandir(self.path) as entries:
            for path in [Path(entry.path) for entry in entries if _is_folder(entry)]:
                if is_skipped(path.name):
                    self.left_out.folder(path)
                elif not here.is_relative_to(path.resolve()):
                    found.append(OnDisk(path, self.left_out))
        return sorted(found, key=lambda folder: nfc(folder.path.name))

    def loose(self) -> list[Path]:
        """The files directly in it."""
        with os.scandir(self.path) as entries:
            return [Path(entry.path) for entry in entries if not _is_folder(entry)]

    def file(self, name: str) -> File:
        """A file directly in it."""
        return self.path / name

    def images(self) -> dict[str, File]:
        """All images below; other files are counted as left out."""
        images: dict[str, File] = {}
        for name, entry in self._walk(self.path):
            path = Path(entry.path)
            if entry.name[0] == ".":
                self.left_out.file(path)
            elif _is_folder(entry):
                self.left_out.file(path, "linking to a folder")
            elif not is_image_name(entry.name):
                self.left_out.file(path)
            elif (
                entry.is_symlink() and not path.exists()
            ) or entry.is_file():  # a broken link later fails with its name
                images[nfc(name)] = path
            else:
                self.left_out.file(path, "special (pipe, socket or device)")
        return dict(sorted(images.items()))

    def annotations(self) -> dict[str, File]:
        """All files below that may describe images, by suffix."""
        found = {
            nfc(name): Path(entry.path)
            for name, entry in self._walk(self.path)
            if is_annotation_name(entry.name) and entry.is_file()
        }
        return dict(sorted(found.items()))

    def _walk(self, folder: Path) -> "Iterator[tuple[str, os.DirEntry[str]]]":
        """(path with /, entry) of everything in `folder` and below that is not a folder."""
        waiting = [(str(folder), "")]
        while waiting:
            where, below = waiting.pop()
            with os.scandir(where) as entries:
                for entry in entries:
                    if not entry.is_dir(follow_symlinks=False):
                        yield f"{below}{entry.name}", entry
                    elif is_skipped(entry.name):
                        self.left_out.folder(Path(entry.path))
                    else:
                        waiting.append((entry.path, f"{below}{entry.name}/"))


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    """Whether the entry is a folder or a link to one; a link to itself is not."""
    return Path(entry.path).is_dir() if entry.is_symlink() else entry.is_dir()


class InArchive:
    """A folder in an archive, with `files` by the components of their paths below it, sorted."""

    packed = True

    def __init__(self, path: Path, files: dict[tuple[str, ...], File], left_out: LeftOut) -> None:
        self.path, self.files, self.left_out = path, files, left_out

    def folders(self) -> "list[InArchive]":
        """The sub-folders."""
        found: dict[str, dict[tuple[str, ...], File]] = {}
        for (top, *rest), file in self.files.items():
            if rest:
                found.setdefault(top, {})[tuple(rest)] = file
        return [InArchive(self.path / name, files, self.left_out) for name, files in sorted(found.items())]

    def loose(self) -> list[Path]:
        """The files directly in it."""
        return [self.path / name[0] for name in self.files if len(name) == 1]

    def file(self, name: str) -> File:
        """A file directly in it."""
        return self.files[name,]

    def images(self) -> dict[str, File]:
        """All images below; other files are counted as left out."""
        for name in self.files:
            if not is_image_name(name[-1]):
                self.left_out.file(self.path.joinpath(*name))
        images = {"/".join(name): file for name, file in self.files.items() if is_image_name(name[-1])}
        return dict(sorted(images.items()))

    def annotations(self) -> dict[str, File]:
        """All files below that may describe images, by suffix."""
        found = {"/".join(name): file for name, file in self.files.items() if is_annotation_name(name[-1])}
        return dict(sorted(found.items()))


def nfc(name: str) -> str:
    """A file name as most systems spell it."""
    return unicodedata.normalize("NFC", name)  # macOS stores accents separately from their letters
