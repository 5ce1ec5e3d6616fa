"""Printing functions shared by the commands: JSON, tables, progress."""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import isfinite
from typing import TYPE_CHECKING, Any, Protocol

import click

from smallcnn.system.escape import escaped

if TYPE_CHECKING:
    from smallcnn.model.facts import Facts
    from smallcnn.model.model import Model

WIDTH = 100
"""Width of a table printed to a pipe or a file, in characters."""


def print_json(value: Any) -> None:
    """Prints one JSON document on stdout; a number that is not finite becomes null, as JSON has none."""
    click.echo(json.dumps(_finite(value), indent=2, allow_nan=False))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not isfinite(value) else value


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints a table no wider than the terminal or `WIDTH`: text is left-aligned and wrapped, numbers right-aligned."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else WIDTH)
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    rows = [[escaped(cell) for cell in row] for row in rows]
    found = [[name, *(row[i] for row in rows)] for i, name in enumerate(columns)]
    room = console.width - _BETWEEN * len(columns)
    for i, (cells, width) in enumerate(zip(found, _widths(found, room), strict=True)):
        grid.add_column(
            cells[0], justify="right" if i and _figures(cells[1:]) else "left", overflow="fold", width=width
        )
    for row in rows:
        grid.add_row(*row)
    console.print(grid)


_BETWEEN = 2  # blanks between columns


def _widths(columns: Sequence[Sequence[str]], room: int) -> list[int]:
    """The width of each column: its longest cell if all fit; otherwise the widest shrink, down to their longest word.

    A word or number is broken only if even that does not fit.
    """
    widths = [max(map(len, cells)) for cells in columns]
    words = [max(len(word) for cell in cells for word in [*cell.split(), ""]) for cells in columns]
    for least in (words, [1] * len(columns)):
        while sum(widths) > room and (wide := [i for i, width in enumerate(widths) if width > least[i]]):
            widths[max(wide, key=lambda i: widths[i])] -= 1
    return widths


def _figures(cells: Sequence[str]) -> bool:
    """Whether most of the non-empty cells are numbers: 1.2 M, 5 - 7, [3]."""
    said = [cell.lstrip("+-<([") for cell in cells if cell.strip("-")]
    return 2 * sum(cell[:1].isdigit() and len(cell.split()) <= 3 for cell in said) >= len(said)


@contextmanager
def progress(what: str, drawn: bool = True) -> Iterator["Bar"]:
    """A progress bar on stderr, if it is a terminal; yields a function to call with (done, total).

    It is drawn by that call, not by a thread of its own, which would disturb timing.
    """
    from rich.console import Console
    from rich.progress import Progress

    with Progress(
        console=Console(stderr=True), disable=not (drawn and sys.stderr.isatty()), transient=True, auto_refresh=False
    ) as bar:
        task = bar.add_task(what, total=None)

        def show(done: float, total: float, what: str = what) -> None:
            bar.update(task, description=what, completed=done, total=total, refresh=True)

        yield show


class Bar(Protocol):
    """Draws progress, of something else than before if `what` is given."""

    def __call__(self, done: float, total: float, what: str = ..., /) -> None:
        """What is done, out of a total."""


def warn_untrained(facts: "Facts") -> None:
    """Warns on stderr if the model or its last layers were never trained, so that its answers mean nothing."""
    fresh = facts.imported and facts.imported.get("fresh")
    if facts.trained is False or fresh:
        what = f"its last layers ({', '.join(fresh)}) are" if fresh else "this network is"
        remark(f"note: {what} untrained, so its answers mean nothing yet")


def remark_ending(model: "Model") -> None:
    """Prints on stderr how an ONNX file's ending was read, where it is not a softmax over its own outputs."""
    from smallcnn.tasks.classification import Classification

    dropped = model.facts.onnx and model.facts.onnx.get("dropped")
    ending = model.task.ending if isinstance(model.task, Classification) else ""
    if ending == "sigmoid":
        remark("its labels are independent: each has its own probability (sigmoid)")
    elif ending == "none":
        remark("its outputs are scores, not probabilities")
    elif dropped == "Sigmoid" and len(model.labels) == 2:
        rest, one = model.labels
        remark(f"its only output, a sigmoid, is the probability of {one!r}; the rest is the probability of {rest!r}")


def say(line: str) -> None:
    """Prints one line of the result on stdout."""
    click.echo(escaped(line))


def remark(line: str) -> None:
    """Prints one line on stderr."""
    click.echo(escaped(line), err=True)


def millions(count: float) -> str:
    """1.23 M, with thousands separated."""
    return f"{count / 1e6:,.2f} M"


def size(count: float | None) -> str:
    """Bytes as kB or MB (powers of ten); a dash if unknown."""
    if count is None:
        return "-"
    return f"{count / 1e6:,.1f} MB" if count >= 1e6 else f"{count / 1e3:,.1f} kB"
