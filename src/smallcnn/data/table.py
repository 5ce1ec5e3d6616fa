"""Tables about images: a .csv or .tsv whose rows name files."""

import csv
import io
import itertools
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

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
        text = io.TextIOWrapper(io.BytesIO(content(file)), encoding="utf-8-sig", newline="")
        first = text.readline()
        lines = (unicodedata.normalize("NFC", line) for line in itertools.chain([first], text))
        reader = csv.reader(lines, delimiter=max(",;\t", key=first.count), strict=True)
        titles = tuple(_stripped(next(reader, [])))
        rows = tuple((number, cells) for number, row in enumerate(reader, 2) if any(cells := _stripped(row)))
    except (OSError, ValueError, csv.Error, ImageError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: not a table ({getattr(error, 'strerror', None) or error})") from error
    return Table(path, titles, rows)


def _stripped(row: list[str]) -> list[str]:
    return [cell.strip() for cell in row]


class Names:
    """The names of images, found by what a table calls them: a name, or as much of its end as is unique."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = set(names)
        self._by_end: dict[str, list[str]] = defaultdict(list)  # one folder deep, two folders deep, ...
        for name in names:
            for end in _ends(name):
                self._by_end[end].append(name)

    def find(self, file: str) -> list[str]:
        """The images that `file` may mean; the one of exactly this name, if there is one."""
        file = file.replace("\\", "/").removeprefix("./")
        if file in self._names:
            return [file]
        longer = [end for end in _ends(file) if end in self._names]
        return longer + self._by_end.get(file, [])


def _ends(name: str) -> list[str]:
    """What follows each slash of a name."""
    return [name[place + 1 :] for place, letter in enumerate(name) if letter == "/"]
