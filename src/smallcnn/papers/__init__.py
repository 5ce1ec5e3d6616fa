"""The papers' cost tables: every published figure next to our count, and where the paper is wrong.

compared = papers.compare(papers.tables("mobilenet_v1.t4"))
papers.summarize(compared).agree
"""

from smallcnn.errors import GraphError, closest
from smallcnn.papers import (
    classics,
    effnet,
    mobilenet_v1,
    mobilenet_v2,
    nasnet,
    newer,
    shufflenet_v1,
    squeezenet,
    xception,
)
from smallcnn.papers.compare import Comparison, Summary, compare, summarize
from smallcnn.papers.table import Figure, Note, Row, Table

__all__ = ["TABLES", "Comparison", "Figure", "Note", "Row", "Summary", "Table", "compare", "summarize", "tables"]

TABLES = tuple(
    table
    for paper in (
        mobilenet_v1, mobilenet_v2, shufflenet_v1, effnet, squeezenet, xception, nasnet, classics, newer,
    )
    for table in paper.TABLES
)  # fmt: skip


def tables(name: str = "") -> tuple[Table, ...]:
    """The table named `name` (`mobilenet_v1.t4`), all tables of a paper (`mobilenet_v1`), or all tables.

    Raises GraphError with the closest names.
    """
    found = tuple(table for table in TABLES if name in ("", table.id, table.paper))
    if not found:
        known = {table.id for table in TABLES} | {table.paper for table in TABLES}
        raise GraphError(f"no table {name!r}; {closest(name, known)}")
    return found
