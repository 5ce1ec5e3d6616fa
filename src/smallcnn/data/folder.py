"""Pictures in a folder with one sub-folder per class, alone or under train/, val/ and test/.

Everything below a class folder belongs to the class. Hidden files and folders are passed over; a class may be a link to
a folder, but links to folders inside a class are not followed. What is found, and in which order, depends neither on
the file system nor on the operating system.
"""

import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from smallcnn.data.decode import SUFFIXES
from smallcnn.data.split import Split
from smallcnn.errors import DataError

_PARTS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


def read_folder(root: Path) -> tuple[tuple[str, ...], dict[str, Split], list[Path]]:
    """(class names, parts, files in class folders that are not pictures). Raises DataError or OSError."""
    parts = _parts(root)
    found = {part: {_nfc(d.name): _pictures(d) for d in _folders(folder)} for part, folder in parts.items()}
    for part, by_class in found.items():
        if not by_class:
            raise DataError(f"{parts[part]}: no class folders; put the pictures of each class into a folder of its own")
    classes = tuple(sorted(found["train"] if "train" in found else set().union(*found.values())))
    splits, ignored = {}, []
    for part, by_class in found.items():
        below = "" if parts[part] == root else f"{parts[part].name}/"
        paths: list[Path] = []
        labels: list[int] = []
        names: list[str] = []
        for name, (pictures, others) in sorted(by_class.items()):
            ignored += others
            if name not in classes:
                raise DataError(f"{parts[part] / name}: class {name!r} has no folder in {parts['train']}")
            if part == "train" and not pictures:
                raise DataError(f"{parts[part] / name}: no pictures in this class folder")
            paths += pictures.values()
            labels += [classes.index(name)] * len(pictures)
            names += [f"{below}{name}/{picture}" for picture in pictures]
        if not paths:
            raise DataError(f"{parts[part]}: no pictures")
        splits[part] = Split(paths, np.array(labels), names)
    return classes, splits, ignored


def _parts(root: Path) -> dict[str, Path]:
    """Part -> the folder that holds its class folders; {"train": root} if `root` does so itself."""
    parts: dict[str, Path] = {}
    others = []
    for folder in _folders(root):
        part = _PARTS.get(folder.name.lower())
        if part in parts:
            raise DataError(f"{root}: {parts[part].name} and {folder.name} mean the same part; keep one of them")
        if part:
            parts[part] = folder
        else:
            others.append(folder)
    if not parts or (others and not any(_folders(folder) for folder in parts.values())):
        return {"train": root}  # a class may be called "train"
    if strays := [folder for folder in others if _pictures(folder)[0]]:
        named = ", ".join(folder.name for folder in parts.values())
        raise DataError(f"{strays[0]}: pictures beside the parts of the set ({named}); move them out or into a part")
    return parts


def _folders(folder: Path) -> list[Path]:
    """The folders in `folder`, without hidden ones and links that lead back up."""
    here = folder.resolve()
    found = [d for d in folder.iterdir() if d.is_dir() and not d.name.startswith(".")]
    return sorted((d for d in found if not here.is_relative_to(d.resolve())), key=lambda d: _nfc(d.name))


def _pictures(folder: Path) -> tuple[dict[str, Path], list[Path]]:
    """(name below `folder` -> picture, sorted by name; other files)."""
    pictures, others = {}, []
    for name, entry in _files(folder):
        path = Path(entry.path)
        broken_link = entry.is_symlink() and not path.exists()  # named when it cannot be decoded
        if path.suffix.lower() in SUFFIXES and (broken_link or path.is_file()):
            pictures[_nfc(name)] = path
        else:
            others.append(path)
    return dict(sorted(pictures.items())), sorted(others)


def _files(folder: Path | str, below: str = "") -> Iterator[tuple[str, "os.DirEntry[str]"]]:
    """(name with /, entry) of everything in `folder` and below that is neither hidden nor a folder."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from _files(entry.path, f"{below}{entry.name}/")
            else:
                yield f"{below}{entry.name}", entry


def _nfc(name: str) -> str:
    return unicodedata.normalize("NFC", name)  # macOS stores accents apart from their letters
