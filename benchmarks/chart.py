"""A chart of the records: for each network and processor the times as fast as the better peer, and the milliseconds.

An SVG of plain rectangles and text, the same on every machine, so that a test can compare it with the records.
"""

from collections.abc import Callable, Sequence
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from records import Row

Series = tuple[str, Sequence["Row | None"]]
"""A name for the legend, and the row of every network."""

_COLOURS = ("#2563eb", "#93c5fd", "#ea580c", "#fdba74", "#16a34a", "#86efac", "#7c3aed", "#c4b5fd")
_BAR, _GAP, _LEFT, _UNIT, _TEXT = 14, 10, 190, 220, 120
"""Pixels: height of a bar, between networks, for names, for once as fast, for the text after the longest bar."""


def chart(networks: Sequence[str], series: Sequence[Series], ratio: "Callable[[Row], tuple[float, float]]") -> str:
    """Bars show the first of `ratio` (medians), their marks the second (least times); the line is the better peer."""
    known = [row for _, rows in series for row in rows if row]
    longest = max(max(ratio(row)) for row in known)
    width = round(_LEFT + _UNIT * longest + _TEXT)
    top = 20 * len(series) + 24
    parts = [_legend(i, name) for i, (name, _) in enumerate(series)]
    y = top
    for at, network in enumerate(networks):
        begun = y
        for i, (_, rows) in enumerate(series):
            if row := rows[at]:
                parts.append(_bar(y, _COLOURS[i % len(_COLOURS)], row, *ratio(row)))
                y += _BAR
        if y > begun:
            parts.append(_text(_LEFT - 8, (begun + y) / 2 + 4, network, "end"))
            y += _GAP
    parts.append(f'<path d="M{_LEFT + _UNIT} {top - 6}V{y}" stroke="#64748b" stroke-dasharray="3 3"/>')
    parts.append(_text(_LEFT + _UNIT, top - 10, "the better peer", "middle"))
    size = f'width="{width}" height="{y}" font-family="sans-serif" font-size="11"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size}>'
    return "\n".join([head, '<rect width="100%" height="100%" fill="white"/>', *parts, "</svg>\n"])


def _legend(i: int, name: str) -> str:
    square = f'<rect x="{_LEFT}" y="{8 + 20 * i}" width="12" height="12" fill="{_COLOURS[i % len(_COLOURS)]}"/>'
    return square + _text(_LEFT + 18, 18 + 20 * i, name, "start")


def _bar(y: float, colour: str, row: "Row", medians: float, least: float) -> str:
    bar = f'<rect x="{_LEFT}" y="{y}" width="{_UNIT * medians:.1f}" height="{_BAR - 2}" fill="{colour}"/>'
    mark = f'<rect x="{_LEFT + _UNIT * least - 1:.1f}" y="{y}" width="2" height="{_BAR - 2}"/>'
    said = f"{medians:.2f}, {row['engines']['compiled']['median_ms']:.3g} ms"
    return bar + mark + _text(_LEFT + _UNIT * max(medians, least) + 6, y + 10, said, "start")


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
