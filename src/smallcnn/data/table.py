"""Tables about images: a .csv or .tsv whose rows name files."""

import csv
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from smallcnn.data.archive import File, content
from smallcnn.errors import DataError, ImageError

_LARGEST = 1 << 28


@dataclass(frozen=True)
class Table:
    """The titles of the first row, and (row number, cells) of every other row that is not blank; all stripped."""

    path: Path
    titles: tuple[str, ...]
    rows: tuple[tuple[int, list[str]], ...]


def read_table(file: File, path: Path) -> Table:
    """Reads a table separated by commas, semicolons or tabs; `path` is for messages. Raises DataError."""
    try:
        if isinstance(file, Path):
            if not file.is_file():
                raise DataError(f"{path}: no such file" if not file.exists() else f"{path}: not a regular file")
            if file.stat().st_size > _LARGEST:
                raise DataError(f"{path}: larger than {_LARGEST >> 20} MB")
        lines = unicodedata.normalize("NFC", content(file).decode("utf-8-sig")).splitlines()
        separator = max(",;\t", key=(lines or [""])[0].count)
        rows = [[cell.strip() for cell in row] for row in csv.reader(lines, delimiter=separator)]
    except (OSError, ValueError, csv.Error, ImageError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: not a table ({getattr(error, 'strerror', None) or error})") from error
    titles = tuple(rows[0]) if rows else ()
    return Table(path, titles, tuple((number, row) for number, row in enumerate(rows[1:], 2) if any(row)))


class Names:
    """The names of images, found by what a table calls them: a name, or as much of its end as is unique."""

    def __init__(self, names: Sequence[str]) -> None:
        self._by_base: dict[str, list[str]] = defaultdict(list)
        for name in names:
            self._by_base[PurePosixPath(name).name].append(name)

    def find(self, file: str) -> list[str]:
        """The images that `file` may mean; the one of exactly this name, if there is one."""
        file = file.replace("\\", "/").removeprefix("./")
        found = [
            name
            for name in self._by_base.get(PurePosixPath(file).name, [])
            if name == file or name.endswith(f"/{file}") or file.endswith(f"/{name}")
        ]
        return [file] if file in found else found
