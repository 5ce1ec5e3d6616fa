r"""Groups of images that belong together, such as the frames of one recording.

read_groups("labels.csv", names)            a table with the columns file and group
read_groups(r"(clip\d+)_\d+\.jpg", names)   a regular expression with one group, searched in each file's name
"""

import csv
import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from smallcnn.errors import DataError

_LARGEST_TABLE = 1 << 28


def read_groups(given: str | Path, names: Sequence[str]) -> dict[str, str]:
    """Image name -> group, for images that have one. Raises DataError."""
    if Path(given).suffix.lower() in (".csv", ".tsv"):
        return _from_table(Path(given), names)
    return _from_pattern(str(given), names)


def _from_pattern(pattern: str, names: Sequence[str]) -> dict[str, str]:
    """Searches the pattern in a file's path within the set if it contains a /, else in the last component."""
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise DataError(f"--groups {pattern!r}: not a regular expression ({error}), and not a .csv file") from error
    if compiled.groups != 1:
        raise DataError(
            f"--groups {pattern!r}: needs one group in parentheses, which names the recording, not {compiled.groups}; "
            r"for example '(clip\d+)_\d+' for clip12_0001.jpg"
        )
    found = {}
    for name in names:
        if (match := compiled.search(name if "/" in pattern else PurePosixPath(name).name)) and match[1]:
            found[name] = match[1]
    if not found:
        raise DataError(f"--groups {pattern!r}: no file name matches; they look like {', '.join(names[:2])}")
    return found


def _from_table(path: Path, names: Sequence[str]) -> dict[str, str]:
    by_base: dict[str, list[str]] = defaultdict(list)
    for name in names:
        by_base[PurePosixPath(name).name].append(name)
    found: dict[str, str] = {}
    for number, file, group in _rows(path):
        meant = [name for name in by_base.get(PurePosixPath(file).name, []) if _same(name, file)]
        if file in meant:
            meant = [file]
        if len(meant) != 1:
            which = f"names {len(meant)} images ({', '.join(meant[:2])})" if meant else "names no image of the set"
            raise DataError(f"{path}: row {number}: {file!r} {which}; the set's names look like {names[0]}")
        if found.setdefault(meant[0], group) != group:
            raise DataError(f"{path}: row {number}: {file!r} is in two groups, {found[meant[0]]!r} and {group!r}")
    if not found:
        raise DataError(f"{path}: no rows with a file and a group")
    return found


def _rows(path: Path) -> list[tuple[int, str, str]]:
    """(row number, file, group) per row; the first row has the titles, and rows without a group are skipped."""
    try:
        if not path.is_file():
            raise DataError(f"{path}: no such file" if not path.exists() else f"{path}: not a regular file")
        if path.stat().st_size > _LARGEST_TABLE:
            raise DataError(f"{path}: larger than {_LARGEST_TABLE >> 20} MB")
        text = unicodedata.normalize("NFC", path.read_text("utf-8-sig"))
        lines = text.splitlines()
        separator = max(",;\t", key=(lines or [""])[0].count)
        rows = list(csv.reader(lines, delimiter=separator))
    except (OSError, ValueError, csv.Error) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: not a table ({getattr(error, 'strerror', None) or error})") from error
    titles = [title.strip().lower() for title in rows[0]] if rows else []
    if not {"file", "group"} <= set(titles):
        have = ", ".join(titles) or "nothing"
        raise DataError(f"{path}: the first row must have the titles file and group; it has {have[:200]}")
    file, group = titles.index("file"), titles.index("group")
    filled = [(i, row) for i, row in enumerate(rows[1:], 2) if len(row) > max(file, group)]
    return [(i, row[file].strip().replace("\\", "/"), row[group].strip()) for i, row in filled if row[group].strip()]


def _same(name: str, file: str) -> bool:
    """Whether the names are equal, apart from leading folders."""
    file = file.removeprefix("./")
    return name == file or name.endswith(f"/{file}") or file.endswith(f"/{name}")
