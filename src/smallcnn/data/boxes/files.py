"""The images of a set, and the files that may describe them."""

import os
from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property
from itertools import takewhile
from pathlib import Path, PurePosixPath

from smallcnn.data.archive import LARGEST_ANNOTATION, File
from smallcnn.data.boxes.annotations import Faults, split_of_folder
from smallcnn.data.tree import Folder
from smallcnn.errors import DataError, ImageError

_HEAD = 1 << 16


class Files:
    """Images and other files by name below the set's folder. `only` is the one annotation file to use, if given."""

    def __init__(self, root: Folder, only: str | None = None) -> None:
        self.root, self.only = root, only
        self.others = root.annotations()

    @cached_property
    def images(self) -> dict[str, File]:
        """Name -> image."""
        return self.root.images()

    def named(self, *suffixes: str) -> list[str]:
        """The annotation files with one of these suffixes, in lower case."""
        names = [self.only] if self.only else self.others
        return [name for name in names if name.lower().endswith(suffixes)]

    def path(self, name: str) -> Path:
        """The file, for messages."""
        return self.root.path / name

    def peek(self, name: str) -> bytes:
        """The first 64 kB of an annotation file. Raises DataError."""
        return self._content(name, _HEAD)

    def read(self, name: str, most: int = LARGEST_ANNOTATION) -> bytes:
        """The content of an annotation file of at most `most` bytes. Raises DataError."""
        content = self._content(name, most + 1)
        if len(content) > most:
            raise DataError(f"{self.path(name)}: larger than {most >> 20} MB")
        return content

    def _content(self, name: str, most: int) -> bytes:
        file = self.others[name]
        try:
            if isinstance(file, Path):
                with file.open("rb") as opened:
                    return opened.read(min(most, os.fstat(opened.fileno()).st_size))  # a read reserves all it may need
            return file[:most] if isinstance(file, bytes) else file.head(most)
        except (ImageError, OSError) as error:
            raise DataError(f"{self.path(name)}: {getattr(error, 'strerror', None) or error}") from error

    def find(self, file: str, annotations: str = "", split: str = "") -> list[str]:
        """The images that an annotation file may mean by `file`: one if it is clear, none, or several.

        Of images with this base name, in any case, else of those with it before the suffix, the ones count whose path
        ends like `file`; then those that share more outer folders with the file `annotations`; then those of the
        `split`.
        """
        base = (_steps(file) or [""])[-1].casefold()
        found = self._by_base.get(base) or self._by_stem.get(base) or self._by_stem.get(PurePosixPath(base).stem, [])
        if len(found) < 2:
            return found
        near = _steps(annotations)[:-1]

        def likeness(name: str) -> tuple[int, int, bool]:
            shared = _same(near, _steps(name)[:-1])
            return alike(name, file), shared, bool(split) and split_of_folder(name) == split

        likely = {name: likeness(name) for name in found}
        return [name for name in found if likely[name] == max(likely.values())]

    def resolve(self, listed: Sequence[str], where: str, split: str, faults: Faults, notes: Faults) -> list[str | None]:
        """The image for each name that the annotation file `where` lists, None if it has none.

        Two names may mean the same image, as a.jpg and b/a.jpg; then the one counts that ends more like its path.
        """
        found = {file: self.find(file, where, split) for file in dict.fromkeys(listed)}
        closest: dict[str, tuple[int, str]] = {}
        for file, images in found.items():
            if len(images) > 1:
                faults.add("names that several images have", f"{file} in {where}")
            for image in images:
                closest[image] = max(closest.get(image, (-1, "")), (alike(image, file), file))
        meant = {file: images[0] for file, images in found.items() if images and closest[images[0]][1] == file}
        for file in listed:
            if file not in meant:
                notes.add("images that are annotated but not there", file or "''")
        return [meant.get(file) for file in listed]

    @cached_property
    def _by_base(self) -> dict[str, list[str]]:
        found = defaultdict[str, list[str]](list)
        for name in self.images:
            found[name.rpartition("/")[2].casefold()].append(name)
        return dict(found)

    @cached_property
    def _by_stem(self) -> dict[str, list[str]]:
        found = defaultdict[str, list[str]](list)
        for name in self.images:
            found[PurePosixPath(name).stem.casefold()].append(name)
        return dict(found)


def alike(name: str, file: str) -> int:
    """How many names at the end of two paths are the same, in any case."""
    return _same(_steps(name)[::-1], _steps(file)[::-1])


def _same(one: Sequence[str], other: Sequence[str]) -> int:
    """How many entries at the start of both are the same, in any case."""
    pairs = zip(one, other, strict=False)
    return len([*takewhile(lambda pair: pair[0].casefold() == pair[1].casefold(), pairs)])


def _steps(file: str) -> list[str]:
    """The folders and the name of a path of any system."""
    return [step for step in file.replace("\\", "/").split("/") if step not in ("", ".", "..")]
