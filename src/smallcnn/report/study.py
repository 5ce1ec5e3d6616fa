"""A study's results for people: table, plot and page."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from smallcnn.report import charts
from smallcnn.report import page as pages
from smallcnn.report.page import Section
from smallcnn.study import results
from smallcnn.study.definition import Study
from smallcnn.study.results import OF_ROW, Line
from smallcnn.system.files import atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure

JSON, PLOT, PAGE = "results.json", "plot.svg", "report.html"
_BLUE, _ORANGE, _GREY = "#2563eb", "#ea580c", "#94a3b8"


def table(study: Study, lines: Sequence[Line]) -> tuple[list[str], list[list[str]]]:
    """(column titles, rows) as text. A row without finished runs shows its hours, at the epochs of those that ran."""
    done = [outcome for line in lines for outcome in line.outcomes]
    epochs = done[0].recipe["epochs"] if done else study.recipe.epochs
    averaged = any(line.ema for line in lines)
    published = any(line.row.published for line in lines)
    heads = ["network", "test top-1, %", "n", "best on validation", *(["averaged"] if averaged else [])]
    heads += [*([study.published] if published else []), "Mult-Adds", "parameters"]
    rows = []
    for line in lines:
        cost = line.row.cost()
        ran = line.outcomes[0] if line.outcomes else None
        hours = study.hours((line.row,)) * epochs / study.recipe.epochs
        rows.append([
            line.row.label,
            str(line.top1) if line.top1 else f"not run yet; {hours:.1f} hours",
            str(len(line.outcomes)),
            str(line.best or "-"),
            *([str(line.ema or "-")] if averaged else []),
            *([line.row.published or "-"] if published else []),
            f"{(ran or cost).mult_adds:,}",
            f"{(ran or cost).parameters:,}",
        ])  # fmt: skip
    return heads, rows


def markdown(study: Study, lines: Sequence[Line]) -> str:
    """The table in Markdown, for the docs."""
    heads, rows = table(study, lines)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (heads, ["---"] * len(heads), *rows))


def write(study: Study, lines: Sequence[Line], out: Path) -> None:
    """Writes results.json, plot.svg and report.html into the folder `out`."""
    figure = plot(study, lines)
    with atomic(out / JSON) as temporary:
        temporary.write_text(json.dumps(results.as_json(study, lines), indent=2))
    charts.save(figure, out / PLOT)
    _write_page(study, lines, figure, out / PAGE)


def _write_page(study: Study, lines: Sequence[Line], figure: "Figure", path: Path) -> None:
    heads, rows = table(study, lines)
    done = [outcome for line in lines for outcome in line.outcomes]
    headline = [
        (str(len(done)), "runs"),
        (f"{sum(outcome.seconds for outcome in done) / 3600:.1f} h", "of training"),
    ]
    note = (
        "Test accuracy as mean and sample standard deviation over n seeds, with the weights of the last epoch; no "
        "choice was made on the test split. The next column has the weights that were best on the validation split."
    )
    sections = [
        Section("Question", f"<p>{pages.text(study.question)}</p><p>{pages.text(study.source)}</p>"),
        Section("Accuracy", f"<p>{note}</p>{pages.table(heads, rows)}{charts.svg(figure)}"),
    ]
    if done:
        recipe = done[0].recipe
        where = f"{done[0].data}: {done[0].train_images:,} training, {done[0].test_images:,} test images."
        changed = "\n".join(f"{key}: {value}" for key, value in recipe.items() if key not in OF_ROW)
        sections.append(Section("Recipe", f"<p>{pages.text(where)}</p><pre>{pages.text(changed)}</pre>"))
    pages.write(path, study.title, headline, sections)


def plot(study: Study, lines: Sequence[Line]) -> "Figure":
    """One row per network: every seed's test accuracy and their mean; the paper's figure on a separate axis."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 0.45 * len(lines) + 1.3), layout="constrained")
    published = any(line.row.published for line in lines)
    panels = figure.subplots(1, 1 + published, sharey=True, squeeze=False)[0]
    titles = ("test top-1, %: seeds and mean", f"the paper: {study.published}")
    for axes, title in zip(panels, titles, strict=False):
        axes.set_title(title, fontsize=10, loc="left")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
        axes.set_axisbelow(True)
    ours = panels[0]
    for y, line in enumerate(lines):
        values = [100 * outcome.top1 for outcome in line.outcomes]
        ours.plot(values, [y] * len(values), "o", color=_GREY, markersize=4)
        if line.top1:
            ours.plot(line.top1.mean, y, "|", color=_BLUE, markersize=14, markeredgewidth=2)
        if line.row.published:
            panels[1].plot(float(line.row.published), y, "|", color=_ORANGE, markersize=14, markeredgewidth=2)
    ours.set_yticks(range(len(lines)), [line.row.label for line in lines])
    ours.set_ylim(len(lines) - 0.5, -0.5)
    return figure
