"""Printing shared by the commands: JSON, tables, progress."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import isfinite
from typing import Any

import click

from smallcnn.escape import escaped


def print_json(value: Any) -> None:
    """One JSON document on stdout; null where a figure is not a finite number, which JSON does not know."""
    click.echo(json.dumps(_finite(value), indent=2, allow_nan=False))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not isfinite(value) else value


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on stdout; columns after the first are right-aligned."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    grid = Table(box=box.SIMPLE_HEAD)
    for i, name in enumerate(columns):
        grid.add_column(name, justify="right" if i else "left", overflow="fold")
    for row in rows:
        grid.add_row(*map(escaped, row))
    width = None if sys.stdout.isatty() else 200  # a pipe has no width to fit
    Console(highlight=False, markup=False, width=width).print(grid)


@contextmanager
def progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr; gives a function to tell it (done, total). Nothing is drawn if stderr is not a terminal.

    It is drawn when it is told something, never by a thread of its own, which would show in what is being timed.
    """
    from rich.console import Console
    from rich.progress import Progress

    with Progress(
        console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True, auto_refresh=False
    ) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total, refresh=True)


def warn_untrained(facts: dict[str, Any]) -> None:
    """Says on stderr if a model file's answers mean nothing, because it or its last layers were never trained."""
    imported = facts.get("imported")
    fresh = imported.get("fresh") if isinstance(imported, dict) else None
    if facts.get("trained") is False or fresh:
        what = f"its last layers ({', '.join(fresh)}) are" if fresh else "this network is"
        remark(f"note: {what} untrained, so its answers mean nothing yet")


def say(line: str) -> None:
    """One line of the result, on stdout."""
    click.echo(escaped(line))


def remark(line: str) -> None:
    """One line on stderr."""
    click.echo(escaped(line), err=True)


def millions(count: float) -> str:
    """1.23 M, with thousands separated."""
    return f"{count / 1e6:,.2f} M"


def size(count: float | None) -> str:
    """Bytes as kB or MB (powers of ten); a dash if unknown."""
    if count is None:
        return "-"
    return f"{count / 1e6:,.1f} MB" if count >= 1e6 else f"{count / 1e3:,.1f} kB"
