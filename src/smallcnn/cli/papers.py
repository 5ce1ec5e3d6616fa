"""`smallcnn papers`."""

from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from smallcnn.cli.options import as_json
from smallcnn.cli.show import print_json, table
from smallcnn.system.files import check_suffix

if TYPE_CHECKING:
    from smallcnn.papers import Comparison


@click.command("papers")
@click.argument("name", metavar="[TABLE]", default="")
@as_json
@click.option(
    "--html", type=click.Path(path_type=Path, dir_okay=False), help="page to write, with the tables and a plot"
)
@click.option(
    "--png", type=click.Path(path_type=Path, dir_okay=False), help="plot of accuracy against Mult-Adds to write"
)
def command(name: str, json_: bool, html: Path | None, png: Path | None) -> None:
    """Compare the papers' cost tables with our own counts, and show where the papers are wrong.

    TABLE is a table (mobilenet_v1.t4) or a paper (mobilenet_v1); without it, every table is shown. Our figures are
    counted on the networks of `smallcnn list`. All accuracies are the papers' own.
    """
    from smallcnn import papers

    if html:
        check_suffix(html, ".html", "a page")
    compared = papers.compare(papers.tables(name))
    if png:
        from smallcnn.report import charts

        charts.check_plot(png)
        charts.save(charts.accuracy_and_cost(compared), png)
    if html:
        from smallcnn.report import papers as report

        report.of_papers(html, compared)
    if json_:
        print_json([_record(entry) for entry in compared])
        return
    for found in papers.tables(name):
        _print([entry for entry in compared if entry.table == found])
    click.echo(papers.summarize(compared))


def _print(entries: list["Comparison"]) -> None:
    """Prints one table with its notes below."""
    found = entries[0].table
    notes = list(dict.fromkeys(entry.note for entry in entries if entry.note))
    click.echo(f"{found.id}  {found.title}")
    rows = []
    for before, entry in zip([None, *entries], entries, strict=False):
        first = before is None or before.row is not entry.row
        mark = f"[{notes.index(entry.note) + 1}]" if entry.note else ""
        cells = [entry.row.label if first else "", entry.figure.quantity, entry.figure.printed, entry.shown,
                 entry.verdict, mark]  # fmt: skip
        rows.append(cells + ([entry.row.accuracy if first else ""] if found.accuracy else []))
    accuracy = [f"published {found.accuracy}"] if found.accuracy else []
    table(["", "quantity", "printed", "ours", "difference", "note", *accuracy], rows)
    for number, note in enumerate(notes, start=1):
        click.echo(f"  [{number}] {note}")
    click.echo()


def _record(entry: "Comparison") -> dict[str, Any]:
    ours = float(entry.ours) if isinstance(entry.ours, Fraction) else entry.ours
    return {
        "table": entry.table.id,
        "row": entry.row.label,
        "model": entry.network.graph.name if entry.network else None,
        "input_size": list(entry.network.graph.input_shape) if entry.network else None,
        "quantity": entry.figure.quantity,
        "printed": entry.figure.printed,
        "ours": ours,
        "agrees": entry.agrees if entry.ours is not None else None,
        "difference": entry.difference,
        "note": entry.note.text if entry.note else None,
        "note_kind": entry.note.kind if entry.note else None,
        "published_accuracy": entry.row.accuracy or None,
        "accuracy_of": entry.table.accuracy or None,
    }
