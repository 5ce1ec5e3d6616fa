r"""Groups of images that belong together, such as the frames of one recording.

read_groups("labels.csv", names)            a table with the columns file and group
read_groups(r"(clip\d+)_\d+\.jpg", names)   a regular expression with one group, searched in each file's name
"""

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from smallcnn.data.left_out import is_table_name
from smallcnn.data.table import Names, read_table
from smallcnn.errors import DataError


def read_groups(given: str | Path, names: Sequence[str]) -> dict[str, str]:
    """Image name -> group, for images that have one. Raises DataError."""
    if is_table_name(Path(given).name):
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
    images, found = Names(names), dict[str, str]()
    for number, file, group in _rows(path):
        meant = images.find(file)
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
    table = read_table(path, path)
    titles = [title.lower() for title in table.titles]
    if not {"file", "group"} <= set(titles):
        have = ", ".join(titles) or "nothing"
        raise DataError(f"{path}: the first row must have the titles file and group; it has {have[:200]}")
    file, group = titles.index("file"), titles.index("group")
    filled = [(i, row) for i, row in table.rows if len(row) > max(file, group)]
    return [(i, row[file].replace("\\", "/"), row[group]) for i, row in filled if row[group]]
