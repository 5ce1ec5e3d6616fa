"""Questions: the columns of a table of attributes as a task and its targets."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from smallcnn.errors import DataError, FileError, closest
from smallcnn.tasks.attributes import Attributes
from smallcnn.tasks.labels import LONGEST
from smallcnn.tasks.task import Task

Columns = Sequence[str] | Task | None
"""Titles of columns; or a task, for those of its questions that a table has; or None, for all that can be used."""

_YES, _NO = {"yes", "true", "1"}, {"no", "false", "0", "-1"}
_MOST_CHOICES = 1000
_FEW = 10  # values that may all differ without being the names of the images


def answers(
    path: Path, cells: Mapping[str, Sequence[str]], columns: Columns
) -> tuple[Attributes, np.ndarray, tuple[str, ...]]:
    """The task, its targets (N, A), and a line on each column that is not used, from the N `cells` of each column.

    Raises DataError if one of the `columns` does not exist or cannot be used, or none is left; `path` names the table.
    """
    named = isinstance(columns, Sequence)
    titles = _chosen(path, cells, columns)
    labels: list[str] = []
    choices: dict[str, tuple[str, ...]] = {}
    found, notes = [], []
    for title in cells if titles is None else titles:
        known = [cell if cell.casefold() != "nan" else "" for cell in cells[title]]  # pandas may write NaN for unknown
        counts = Counter(filter(None, known))
        if problem := _useless(title, counts, wanted=titles is not None):
            notes.append(f"{path}: column {title!r} is not used: {problem}")
            continue
        values, targets = _values(known, counts)
        answered = tuple(f"{title}: {value}" for value in values) or (title,)
        if values:
            choices[title] = answered
        labels += answered
        found.append(targets)
    if named and notes:
        raise DataError(notes[0])
    if not labels:
        raise DataError(f"{path}: no column to learn; " + ("; ".join(notes) or "it only names the files"))
    try:
        return Attributes(tuple(labels), choices), np.concatenate(found, 1), tuple(notes)
    except FileError as error:
        raise DataError(f"{path}: {error}") from error


def _chosen(path: Path, cells: Mapping[str, object], columns: Columns) -> Sequence[str] | None:
    """The titles to use; None for all that can be used."""
    if isinstance(columns, Attributes):
        return [title for title in columns.questions if title in cells] or None
    if not isinstance(columns, Sequence):
        return None
    if unknown := [title for title in columns if title not in cells]:
        raise DataError(f"{path}: no column {unknown[0]!r}; {closest(unknown[0], cells)}")
    return columns


def _values(cells: Sequence[str], counts: Counter[str]) -> tuple[list[str], np.ndarray]:
    """The choices of a question in alphabetical order, none if it is a yes/no question, and its targets (N, A)."""
    if {value.casefold() for value in counts} <= _YES | _NO:
        yes = {value: float(value.casefold() in _YES) for value in counts}
        return [], np.array([[yes.get(cell, np.nan)] for cell in cells], np.float32)
    values = sorted(counts)
    place = {value: index for index, value in enumerate(values)}
    chosen = np.array([place.get(cell, -1) for cell in cells])
    targets = (chosen[:, None] == np.arange(len(values))).astype(np.float32)
    targets[chosen < 0] = np.nan
    return values, targets


def _useless(title: str, counts: Counter[str], wanted: bool) -> str:
    """The reason why a column answers no question; empty if it does, or is `wanted` and possible."""
    if not title:
        return "it has no title"
    if not counts:
        return "it is empty"
    if (longest := len(title) + max(map(len, counts)) + 2) > LONGEST:
        return f"it makes a label of {longest:,} characters; at most {LONGEST:,} are allowed"
    if len(counts) > _MOST_CHOICES:
        return f"it has {len(counts):,} different values, and a question at most {_MOST_CHOICES:,}"
    if not wanted and len(counts) > _FEW and max(counts.values()) == 1:
        return f"its {len(counts):,} values are all different"
    return ""
