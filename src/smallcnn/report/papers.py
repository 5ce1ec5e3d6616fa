"""A page about the papers' cost tables."""

from collections.abc import Sequence
from pathlib import Path

from smallcnn import papers
from smallcnn.papers import Comparison
from smallcnn.report import charts, page
from smallcnn.report.page import Section, write


def of_papers(path: Path, compared: Sequence[Comparison]) -> None:
    """Writes a page that compares published figures with ours, and plots published accuracies against our Mult-Adds."""
    summary = papers.summarize(compared)
    headline = [
        (str(summary.figures), "published figures"),
        (str(summary.agree), "agree to the printed digits"),
        (str(summary.wrong), "wrong in the paper"),
        (str(summary.convention), "rounded or counted by another rule"),
        (str(summary.unclear), "unclear"),
        (str(summary.not_counted), "without our count"),
    ]
    sections = [
        Section("Accuracy and cost", charts.svg(charts.accuracy_and_cost(compared))),
        *(_paper_table([entry for entry in compared if entry.table == table])
          for table in dict.fromkeys(entry.table for entry in compared)),
    ]  # fmt: skip
    write(path, "The papers' cost tables", headline, sections)


def _paper_table(entries: Sequence[Comparison]) -> Section:
    table = entries[0].table
    accuracy = [f"published {table.accuracy}"] if table.accuracy else []
    head = ["", "model", "quantity", "printed", "ours", "difference", *accuracy, "note"]
    rows = [
        [entry.row.label, entry.row.model, entry.figure.quantity, entry.figure.printed, entry.shown, entry.verdict,
         *([entry.row.accuracy] if accuracy else []), str(entry.note or "")]
        for entry in entries
    ]  # fmt: skip
    return Section(f"{table.id}: {table.title}", page.table(head, rows))
