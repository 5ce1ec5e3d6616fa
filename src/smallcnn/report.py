"""One self-contained HTML page about a trained model: figures, plots and pictures inside, nothing fetched."""

import base64
import html
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from smallcnn import artifact, papers, plots, runtime
from smallcnn.bench import Row
from smallcnn.cost import Profile, profile
from smallcnn.data.sources import Split, open_source
from smallcnn.errors import ImageError
from smallcnn.evaluate import Evaluation, evaluate
from smallcnn.files import atomic
from smallcnn.papers import Comparison
from smallcnn.runtime import Net

_SHOWN_SIDE = 96  # pixels on the page, at least


@dataclass(frozen=True)
class Section:
    """A heading and what is under it, as HTML."""

    title: str
    body: str


def write(path: Path, title: str, headline: Sequence[tuple[str, str]], sections: Sequence[Section]) -> None:
    """Writes the page; `headline` are (figure, what it is) pairs shown large at the top."""
    tiles = "".join(
        f"<div class=tile><b>{_text(value)}</b><span>{_text(what)}</span></div>" for value, what in headline
    )
    body = "".join(f"<section><h2>{_text(section.title)}</h2>{section.body}</section>" for section in sections)
    page = _PAGE.format(title=_text(title), tiles=tiles, body=body)
    with atomic(path) as beside:
        beside.write_text(page, encoding="utf-8")


def of_run(run: Path, data: str) -> Path:
    """Writes report.html into the folder of a training run on `data`, about its best weights; returns its path."""
    net = runtime.open(run / "best.safetensors")
    evaluation = evaluate(net, data, part="val")
    stored = net.facts["data"]
    source = open_source(data, seed=stored["seed"], val_fraction=stored["val_fraction"])
    counted = profile(artifact.load(net.path).graph)
    history = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    page = run / "report.html"
    headline = [
        (f"{evaluation.metrics.top1:.1%}", "validation top-1"),
        (f"{counted.mult_adds / 1e6:.1f} M", "Mult-Adds"),
        (f"{counted.parameters / 1e6:.2f} M", "parameters"),
        (f"{counted.weight_bytes / 1e6:.1f} MB", "weights, float32"),
    ]
    sections = [
        curves(history),
        accuracy(evaluation, net, stored["name"]),
        predictions(net, source.splits["val"], source.classes),
        cost(counted),
        facts(net, []),
    ]
    write(page, f"{net.name} on {stored['name']}", headline, sections)
    return page


def of_papers(path: Path, compared: Sequence[Comparison]) -> None:
    """Writes a page with published figures beside ours, and published accuracies against our Mult-Adds."""
    summary = papers.summarize(compared)
    headline = [
        (str(summary.figures), "published figures"),
        (str(summary.agree), "agree to the printed digits"),
        (str(summary.wrong), "wrong in the paper"),
        (str(summary.convention), "rounded or counted by another rule"),
        (str(summary.unclear), "unclear"),
        (str(summary.not_counted), "shown without ours"),
    ]
    sections = [
        Section("Accuracy and cost", plots.svg(plots.accuracy_and_cost(compared))),
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
    return Section(f"{table.id}: {table.title}", _table(head, rows))


def curves(history: Sequence[dict[str, Any]]) -> Section:
    """Loss and accuracy over the epochs."""
    rate = np.median([record["images_per_second"] for record in history])
    minutes = sum(record["seconds"] for record in history) / 60
    note = (
        f"{len(history)} epochs, {minutes:.1f} minutes of training, {rate:,.0f} pictures/s (median epoch). "
        "The training curves are of augmented pictures and smoothed labels, so they are not comparable with validation."
    )
    return Section("Training", f"<p>{_text(note)}</p>{plots.svg(plots.curves(history))}")


def accuracy(evaluation: Evaluation, net: Net, data: str) -> Section:
    """Top-1, top-5 and the confusion matrix."""
    metrics = evaluation.metrics
    note = (
        f"{metrics.images} pictures of {data} ({evaluation.part}): "
        f"top-1 {metrics.top1:.2%}, top-5 {metrics.top5:.2%}, loss {metrics.loss:.3f}; {net.path.name} in {net.engine}."
    )
    skipped = f"<p>{len(evaluation.skipped)} pictures could not be decoded.</p>" if evaluation.skipped else ""
    figure = plots.svg(plots.confusion_matrix(metrics.confusion, net.labels))
    return Section("Accuracy", f"<p>{_text(note)}</p>{skipped}{figure}")


def predictions(net: Net, split: Split, classes: Sequence[str], most: int = 24) -> Section:
    """Some pictures, evenly spread over the split, with what the network says; wrong answers are marked."""
    figures = []
    for index in np.linspace(0, len(split) - 1, min(most, len(split))).astype(int):
        try:
            image = net.preprocessing.prepare(split.images[index])
        except ImageError:
            continue  # the section on accuracy counts them
        seen, true = net.classify_prepared(image), classes[split.labels[index]]
        right = seen.label == true
        caption = f"{seen.label} {seen.probability:.0%}" + ("" if right else f", is {true}")
        figures.append(
            f"<figure class={'right' if right else 'wrong'}><img alt='{_text(true)}' src='{_data_uri(image)}'>"
            f"<figcaption>{_text(caption)}</figcaption></figure>"
        )
    return Section("Predictions", f"<div class=grid>{''.join(figures)}</div>")


def cost(profile: Profile) -> Section:
    """Mult-Adds and parameters, by type and by layer."""
    rows = [
        [total.type, str(total.layers), f"{total.mult_adds:,}", f"{total.mult_adds / profile.mult_adds:.2%}",
         f"{total.parameters:,}", f"{total.parameters / profile.parameters:.2%}"]
        for total in profile.by_type()
        if total.mult_adds or total.parameters
    ]  # fmt: skip
    note = (
        f"{profile.name} at {'x'.join(map(str, profile.input_shape))}: {profile.mult_adds:,} Mult-Adds, "
        f"{profile.parameters:,} parameters, {profile.weight_bytes:,} bytes of float32 weights, at most "
        f"{profile.peak_activation_elements:,} activation elements alive at once."
    )
    table = _table(["type", "layers", "Mult-Adds", "%", "parameters", "%"], rows)
    return Section("Cost", f"<p>{_text(note)}</p>{table}{plots.svg(plots.cost_per_layer(profile))}")


def latency(rows: Sequence[Row]) -> Section:
    """Times of `bench`."""
    cells = [
        [Path(row.file).name, row.engine, f"{row.median_ms:.3f}", f"{row.min_ms:.3f} - {row.max_ms:.3f}",
         f"{row.p90_ms:.3f}", f"{row.end_to_end_ms:.2f}", f"{row.load_ms:.0f}", f"{row.first_ms:.1f}"]
        for row in rows
    ]  # fmt: skip
    head = ["file", "engine", "median", "min - max", "p90", "with JPEG decode", "load", "first"]
    note = f"Milliseconds for one picture, {rows[0].threads} thread(s), {rows[0].cpu}. Outputs verified."
    return Section("Speed", f"<p>{_text(note)}</p>{_table(head, cells)}{plots.svg(plots.latency(rows))}")


def facts(net: Net, commands: Sequence[str]) -> Section:
    """How to make it again: the commands, and what the model file says about itself."""
    lines = f"<pre>{_text(chr(10).join(commands))}</pre>" if commands else ""
    stored = f"<pre>{_text(json.dumps(net.facts, indent=2))}</pre>"
    return Section(
        "How this was made", f"{lines}<details><summary>facts stored in the model file</summary>{stored}</details>"
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f"<th>{_text(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{top}</tr>{body}</table>"


def _data_uri(image: np.ndarray) -> str:
    picture = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
    if min(picture.size) < _SHOWN_SIDE:
        factor = -(-_SHOWN_SIDE // min(picture.size))
        picture = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    file = io.BytesIO()
    if min(image.shape[:2]) < _SHOWN_SIDE:
        picture.save(file, "PNG", optimize=True)
        kind = "png"
    else:
        picture.save(file, "JPEG", quality=85)
        kind = "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


def _text(value: str) -> str:
    return html.escape(value)


_PAGE = """<!doctype html>
<html lang=en><head><meta charset=utf-8><meta name=viewport content="width=device-width"><title>{title}</title><style>
body {{ font: 16px/1.5 system-ui, sans-serif; color: #0f172a; background: #f8fafc; margin: 0 auto; max-width: 60rem;
  padding: 2rem 1rem; }}
h1 {{ font-size: 1.7rem; margin: 0 0 1rem; overflow-wrap: anywhere; }} h2 {{ font-size: 1.15rem; margin: 0 0 .5rem; }}
section {{ background: white; border: 1px solid #e2e8f0; border-radius: .75rem; padding: 1.25rem; margin: 1rem 0;
  overflow-x: auto; }}
svg {{ max-width: 100%; height: auto; }}
.tiles {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: .75rem; }}
.tile {{ background: white; border: 1px solid #e2e8f0; border-radius: .75rem; padding: .75rem 1rem; }}
.tile b {{ display: block; font-size: 1.4rem; }} .tile span {{ color: #64748b; font-size: .85rem; }}
.grid {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(7rem, 1fr)); gap: .75rem; }}
figure {{ margin: 0; border: 2px solid #bbf7d0; border-radius: .5rem; overflow: hidden; font-size: .8rem; }}
figure.wrong {{ border-color: #f87171; }} figure img {{ width: 100%; display: block; }}
figcaption {{ padding: .2rem .4rem; }}
table {{ border-collapse: collapse; margin: .5rem 0 1rem; font-size: .9rem; }}
th, td {{ padding: .25rem .75rem .25rem 0; text-align: right; border-bottom: 1px solid #e2e8f0; }}
th:first-child, td:first-child {{ text-align: left; }}
pre {{ background: #f1f5f9; padding: .75rem; border-radius: .5rem; overflow-x: auto; font-size: .85rem; }}
</style></head><body><h1>{title}</h1><div class=tiles>{tiles}</div>{body}</body></html>
"""
