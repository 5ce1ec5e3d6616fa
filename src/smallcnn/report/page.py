"""A self-contained HTML page with figures, plots and images; it fetches nothing."""

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from smallcnn.system.escape import escaped
from smallcnn.system.files import atomic

_SMALLEST, _LARGEST = 96, 160  # pixels of an image's shorter side on the page


@dataclass(frozen=True)
class Section:
    """A heading and its content as HTML."""

    title: str
    body: str


def write(
    path: Path, title: str, headline: Sequence[tuple[str, str]], sections: Sequence[Section], details: str = ""
) -> None:
    """Writes the page; `headline` holds (figure, caption) pairs for the top, `details` is small print."""
    tiles = "".join(f"<div class=tile><b>{text(value)}</b><span>{text(what)}</span></div>" for value, what in headline)
    body = "".join(f"<section><h2>{text(section.title)}</h2>{section.body}</section>" for section in sections)
    small = f"<p class=details>{text(details)}</p>" if details else ""
    page = _PAGE.format(title=text(title), details=small, tiles=tiles, body=body, script=_SCRIPT)
    with atomic(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of plain cells; the first column is left-aligned."""
    return f"<div class=wide tabindex=0><table>{_rows([text(cell) for cell in head], rows)}</table></div>"


def sortable_table(head: Sequence[str], rows: Sequence[Sequence[str]], find: str) -> str:
    """A table to sort, and to filter by the first cell; `find` is the filter's placeholder. "-" sorts lowest."""
    buttons = [f"<button>{text(cell)}</button>" for cell in head]
    found = f"<table class=sortable>{_rows(buttons, rows)}</table>"
    search = f"<input type=search placeholder='{text(find)}' aria-label='{text(find)}'>"
    return f"{search}<div class='wide tall' tabindex=0>{found}</div>"


def _rows(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f"<th>{cell}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{text(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<thead><tr>{top}</tr></thead><tbody>{body}</tbody>"


def figure(image: np.ndarray, right: bool | None, caption: str, name: str = "", *, largest: int = _LARGEST) -> str:
    """A uint8 image (H, W, C) with a caption, its file name, and a border for right, wrong or neither.

    It is shrunk to at most `largest` pixels of its shorter side.
    """
    kind = {True: "right", False: "wrong", None: "plain"}[right]
    small = f"<small>{text(name)}</small>" if name else ""
    return (
        f"<figure class={kind}><img alt='{text(caption)}' src='{_data_uri(image, largest)}'>"
        f"<figcaption>{text(caption)}{small}</figcaption></figure>"
    )


def grid(figures: Sequence[str], *, large: bool = False) -> str:
    """Images in rows, as many as fit side by side; fewer if they are `large`."""
    return f"<div class='grid{' large' * large}'>{''.join(figures)}</div>"


def _data_uri(image: np.ndarray, largest: int) -> str:
    shown = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
    shorter = min(shown.size)
    file = io.BytesIO()
    if shorter < _SMALLEST:
        factor = -(-_SMALLEST // shorter)
        shown = shown.resize((shown.width * factor, shown.height * factor), Image.Resampling.NEAREST)
        shown.save(file, "PNG", optimize=True)
        kind = "png"
    else:
        if shorter > largest:
            width, height = (max(side * largest // shorter, 1) for side in shown.size)
            shown = shown.resize((width, height), Image.Resampling.BILINEAR)
        shown.save(file, "JPEG", quality=85)
        kind = "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


def text(value: str) -> str:
    """`value` escaped for HTML, with invisible characters escaped as in all output; line breaks are kept."""
    return html.escape("\n".join(map(escaped, value.split("\n"))))


_PAGE = """<!doctype html>
<html lang=en><head><meta charset=utf-8><meta name=viewport content="width=device-width, initial-scale=1">
<title>{title}</title><style>
body {{ font: 16px/1.5 system-ui, sans-serif; color: #0f172a; background: #f8fafc; margin: 0 auto; max-width: 60rem;
  padding: 2rem 1rem; }}
h1 {{ font-size: 1.7rem; margin: 0 0 1rem; overflow-wrap: anywhere; }}
.details {{ color: #64748b; font-size: .85rem; margin: -.75rem 0 1rem; overflow-wrap: anywhere; }}
h2 {{ font-size: 1.15rem; margin: 0 0 .5rem; }}
section {{ background: white; border: 1px solid #e2e8f0; border-radius: .75rem; padding: 1.25rem; margin: 1rem 0; }}
svg {{ max-width: max(100%, 36rem); height: auto; }}
.tiles {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: .75rem; }}
.tile {{ background: white; border: 1px solid #e2e8f0; border-radius: .75rem; padding: .75rem 1rem; }}
.tile b {{ display: block; font-size: 1.4rem; }} .tile span {{ color: #64748b; font-size: .85rem; }}
.grid {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(7rem, 1fr)); gap: .75rem; }}
.grid.large {{ grid-template-columns: repeat(auto-fill, minmax(13rem, 1fr)); }}
figure {{ margin: 0; border: 2px solid #bbf7d0; border-radius: .5rem; overflow: hidden; font-size: .8rem; }}
figure.wrong {{ border-color: #f87171; }} figure.plain {{ border-color: #e2e8f0; }}
figure img {{ width: 100%; display: block; }}
figcaption {{ padding: .2rem .4rem; overflow-wrap: anywhere; }} figcaption small {{ color: #64748b; display: block; }}
h3 {{ font-size: 1rem; margin: 1rem 0 .5rem; overflow-wrap: anywhere; }}
table {{ border-collapse: collapse; margin: .5rem 0 1rem; font-size: .9rem; }}
th, td {{ padding: .25rem .75rem .25rem 0; text-align: right; border-bottom: 1px solid #e2e8f0; }}
th:first-child, td:first-child {{ text-align: left; }}
.wide {{ overflow-x: auto; background:
  linear-gradient(to right, white 2rem, #fff0) left / 4rem 100% local,
  linear-gradient(to left, white 2rem, #fff0) right / 4rem 100% local,
  linear-gradient(to right, #0f172a40, #0f172a00) left / 1rem 100%,
  linear-gradient(to left, #0f172a40, #0f172a00) right / 1rem 100%; background-repeat: no-repeat; }}
.wide.over::before {{ content: "scroll sideways \\2192"; display: block; width: max-content; position: sticky; left: 0;
  color: #64748b; font-size: .8rem; }}
.tall {{ max-height: 32rem; overflow: auto; }} .tall th {{ position: sticky; top: 0; background: white; }}
th button {{ all: unset; cursor: pointer; }} th button:focus-visible {{ outline: 2px solid #2563eb; }}
th[aria-sort=ascending] button::after {{ content: " \\2191"; }}
th[aria-sort=descending] button::after {{ content: " \\2193"; }}
input {{ font: inherit; padding: .25rem .5rem; border: 1px solid #94a3b8; border-radius: .5rem; }}
pre {{ background: #f1f5f9; padding: .75rem; border-radius: .5rem; overflow-x: auto; font-size: .85rem; }}
</style></head><body><h1>{title}</h1>{details}<div class=tiles>{tiles}</div>{body}{script}</body></html>
"""

_SCRIPT = """<script>
const mark = () => document.querySelectorAll(".wide").forEach(
  box => box.classList.toggle("over", box.scrollWidth > box.clientWidth + 1));
mark();
addEventListener("resize", mark);
const value = cell => cell.textContent === "-" ? -1 : Number(cell.textContent.replace(/[,%]/g, ""));
for (const table of document.querySelectorAll("table.sortable")) {
  const rows = [...table.tBodies[0].rows];
  table.querySelectorAll("th").forEach((head, i) => head.firstChild.onclick = () => {
    const order = head.ariaSort === "descending" ? "ascending" : "descending";
    table.querySelectorAll("th").forEach(other => other.ariaSort = null);
    head.ariaSort = order;
    const sign = order === "ascending" ? 1 : -1, numbers = rows.every(row => !isNaN(value(row.cells[i])));
    rows.sort((a, b) => sign * (numbers ? value(a.cells[i]) - value(b.cells[i])
      : a.cells[i].textContent.localeCompare(b.cells[i].textContent, undefined, {numeric: true})));
    table.tBodies[0].append(...rows);
  });
  table.parentElement.previousElementSibling.oninput = event => {
    const wanted = event.target.value.toLowerCase();
    for (const row of rows) row.hidden = !row.cells[0].textContent.toLowerCase().includes(wanted);
  };
}
</script>"""
"""Marks content wider than the screen, sorts a table on a click on its head, and filters its rows by the text typed
above. The page also works without it."""
