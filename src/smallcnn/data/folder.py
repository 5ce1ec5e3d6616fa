"""Images in a folder with one sub-folder per class, directly or under train/, val/ and test/; or in such an archive.

Everything below a class folder belongs to the class, except hidden files and folders that programs keep for themselves.
A class may be a link to a folder, but links to folders inside a class are not followed. The result and its order do not
depend on the file system or the operating system. A single folder around the whole set is skipped.
"""

import os
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from smallcnn.data.archive import File, files_in
from smallcnn.data.left_out import LeftOut, is_image_name, is_skipped
from smallcnn.data.split import Split
from smallcnn.data.targets import Classes
from smallcnn.errors import DataError, ImageError

PARTS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_DEEPEST = 8  # folders around a set; links may lead in circles


@dataclass(frozen=True)
class Read:
    """Class names, splits, and skipped files; each of the `notes` is a line on something unexpected.

    `untrainable` names a class without training images, if there is one.
    """

    classes: tuple[str, ...]
    splits: dict[str, Split]
    left_out: LeftOut
    notes: tuple[str, ...] = ()
    untrainable: str = ""


def read_folder(root: Path) -> Read:
    """Reads a folder. Raises DataError or OSError."""
    return _read(_OnDisk(root, LeftOut()))


def read_archive(path: Path) -> Read:
    """Reads a tar or zip. Raises DataError."""
    left_out = LeftOut()
    files = files_in(path, left_out)
    if left_out.files and not files:
        raise DataError(f"{path}: no usable file in it ({left_out.line()})")
    return _read(_Inside(path, {tuple(name.split("/")): file for name, file in files.items()}, left_out))


def images_in(folder: Path) -> tuple[list[Path], LeftOut]:
    """All images in a folder and below, sorted, ignoring classes. Raises ImageError if there are none."""
    left_out = LeftOut()
    try:
        found = [file for file in _OnDisk(folder, left_out).images().values() if isinstance(file, Path)]
    except OSError as error:
        raise ImageError(f"{error.filename or folder}: {error.strerror or error}") from error
    if not found:
        raise ImageError(f"{folder}: no images in this folder" + _because(left_out))
    return found, left_out


class _Folder(Protocol):
    """A folder on disk or in an archive; `path` is for names and messages, `left_out` collects skipped files."""

    path: Path
    left_out: LeftOut
    packed: bool
    """Whether it is in an archive, where a folder around the whole set is usual and has no meaning."""

    def folders(self) -> "Sequence[_Folder]":
        """The sub-folders, sorted by name, without those that programs make."""

    def loose(self) -> Sequence[Path]:
        """The files directly in it."""

    def images(self) -> dict[str, File]:
        """Name below the folder -> image, sorted by name."""


def _read(root: _Folder) -> Read:
    left_out, given = root.left_out, root
    root = _meant(given)
    notes = [] if root.packed or root is given else [f"the data set is {root.path}, the only one in {given.path}"]
    folders = _splits(root)
    for folder in {folder.path: folder for folder in (given, root, *folders.values())}.values():
        for path in folder.loose():
            left_out.file(path, "outside the class folders" if is_image_name(path.name) else "")
    found = {key: _by_class(folder) for key, folder in folders.items()}
    for key, by_class in found.items():
        if not by_class:
            where = folders[key].path
            raise DataError(
                f"{where}: no class folders; put the images of each class into a separate folder" + _because(left_out)
            )
    classes = tuple(sorted({name for by_class in found.values() for name, images in by_class.items() if images}))
    place = {name: i for i, name in enumerate(classes)}
    splits, untrainable = {}, ""
    for key, by_class in found.items():
        where = folders[key].path
        below = "" if where == root.path else f"{where.name}/"
        files: list[File] = []
        labels: list[int] = []
        names: list[str] = []
        for name, images in sorted(by_class.items()):
            if not images:
                notes.append(
                    f"{where / name}: no images in this class folder" + _because(left_out.inside(where / name))
                )
                untrainable = untrainable or notes[-1] * (key == "train")
                continue
            if name not in found.get("train", by_class):
                untrainable = untrainable or f"{where / name}: class {name!r} has no folder in {folders['train'].path}"
            files += images.values()
            labels += [place[name]] * len(images)
            names += [f"{below}{name}/{image}" for image in images]
        if not files:
            raise DataError(f"{where}: no images" + _because(left_out))
        splits[key] = Split(files, Classes(np.array(labels)), names)
    return Read(classes, splits, left_out, tuple(notes), untrainable)


def _because(left_out: LeftOut) -> str:
    line = left_out.line()
    return f" ({line})" if line else ""


def _meant(root: _Folder) -> _Folder:
    """`root`, or the only folder below it that is already split: photos/flowers for photos/flowers/train."""
    here = root
    for _ in range(_DEEPEST):
        folders = here.folders()
        if any(folder.path.name.lower() in PARTS for folder in folders):
            break
        sets = [folder for folder in folders if _is_split(folder)]
        others = [folder.path.name for folder in folders if folder not in sets and sets and folder.images()]
        if len(sets) > 1 or others:
            named = ", ".join(folder.path.name for folder in sets[:3])
            count = "are data sets" if len(sets) > 1 else "is a data set"
            alongside = f", next to folders of images ({', '.join(others[:3])})" if others else ""
            raise DataError(
                f"{here.path}: ambiguous folder: {named} {count} with train, val or test{alongside}; "
                f"give one folder, such as {sets[0].path}"
            )
        if sets:
            return sets[0]
        if len(folders) != 1 or not folders[0].folders():
            break
        here = folders[0]
    return here if root.packed else root


def _is_split(folder: _Folder) -> bool:
    """Whether it holds train/, val/ or test/ with class folders in them."""
    return any(inner.path.name.lower() in PARTS and inner.folders() for inner in folder.folders())


def _by_class(folder: _Folder) -> dict[str, dict[str, File]]:
    """Class name -> its images."""
    found = {}
    for inner in folder.folders():
        if (name := _nfc(inner.path.name)) in found:
            raise DataError(f"{folder.path}: two folders called {name!r}, in different Unicode forms; rename one")
        found[name] = inner.images()
    return found


def _splits(root: _Folder) -> dict[str, _Folder]:
    """Split -> the folder that contains its class folders; {"train": root} if `root` contains them itself."""
    splits: dict[str, _Folder] = {}
    others = []
    for folder in root.folders():
        split = PARTS.get(folder.path.name.lower())
        if split in splits:
            one, other = splits[split].path.name, folder.path.name
            raise DataError(f"{root.path}: {one} and {other} mean the same split; keep one of them")
        if split:
            splits[split] = folder
        else:
            others.append(folder)
    if not splits or (others and not any(folder.folders() for folder in splits.values())):
        return {"train": root}  # a class may be called "train"
    if strays := [folder.path for folder in others if folder.images()]:
        named = ", ".join(folder.path.name for folder in splits.values())
        raise DataError(f"{strays[0]}: images next to the splits ({named}); move them out or into a split")
    return splits


class _OnDisk:
    packed = False

    def __init__(self, path: Path, left_out: LeftOut) -> None:
        self.path, self.left_out = path, left_out

    def folders(self) -> "list[_OnDisk]":
        """The sub-folders, without links that lead back up."""
        here = self.path.resolve()
        found = []
        with os.scandir(self.path) as entries:
            for path in [Path(entry.path) for entry in entries if _is_folder(entry)]:
                if is_skipped(path.name):
                    self.left_out.folder(path)
                elif not here.is_relative_to(path.resolve()):
                    found.append(_OnDisk(path, self.left_out))
        return sorted(found, key=lambda folder: _nfc(folder.path.name))

    def loose(self) -> list[Path]:
        with os.scandir(self.path) as entries:
            return [Path(entry.path) for entry in entries if not _is_folder(entry)]

    def images(self) -> dict[str, File]:
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
                images[_nfc(name)] = path
            else:
                self.left_out.file(path, "special (pipe, socket or device)")
        return dict(sorted(images.items()))

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


class _Inside:
    """A folder in an archive; `files` by the components of their paths below it, sorted."""

    packed = True

    def __init__(self, path: Path, files: dict[tuple[str, ...], File], left_out: LeftOut) -> None:
        self.path, self.files, self.left_out = path, files, left_out

    def folders(self) -> "list[_Inside]":
        found: dict[str, dict[tuple[str, ...], File]] = {}
        for (top, *rest), file in self.files.items():
            if rest:
                found.setdefault(top, {})[tuple(rest)] = file
        return [_Inside(self.path / name, files, self.left_out) for name, files in sorted(found.items())]

    def loose(self) -> list[Path]:
        return [self.path / name[0] for name in self.files if len(name) == 1]

    def images(self) -> dict[str, File]:
        for name in self.files:
            if not is_image_name(name[-1]):
                self.left_out.file(self.path.joinpath(*name))
        images = {"/".join(name): file for name, file in self.files.items() if is_image_name(name[-1])}
        return dict(sorted(images.items()))


def _nfc(name: str) -> str:
    return unicodedata.normalize("NFC", name)  # macOS stores accents separately from their letters
