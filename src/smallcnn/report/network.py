"""Sections about a network and its answers: scores, predictions, cost, speed, origin."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from smallcnn.bench.rows import Row
from smallcnn.cost.profile import Profile
from smallcnn.data.sources import Split
from smallcnn.errors import ImageError
from smallcnn.evaluate import Evaluation
from smallcnn.report import charts, page
from smallcnn.report.page import Section
from smallcnn.runtime import Net
from smallcnn.tasks.classification import Classification
from smallcnn.tasks.metrics import average_precision
from smallcnn.tasks.metrics import title as title_of


def plain_name(name: str) -> str:
    """A network's name for people: mobilenet_v1:width=0.5,separable=false becomes mobilenet_v1 0.5, not separable."""
    if not re.fullmatch(r"\w+(:\w+=[^,=]+(,\w+=[^,=]+)*)?", name):
        return name
    base, _, rest = name.partition(":")
    words = []
    for option in filter(None, rest.split(",")):
        key, _, value = option.partition("=")
        if key == "width" or not (value in ("true", "false") or value.replace(".", "").isdigit()):
            base += f" {value}"
        else:
            words.append({"true": key, "false": f"not {key}"}.get(value, f"{key} {value}"))
    return ", ".join([base, *words])


def details(net: Net) -> str:
    """The network, its input and its file in one line."""
    size = "x".join(map(str, net.input_shape))
    what = "classes" if isinstance(net.task, Classification) else net.task.kind
    return f"{net.name}, input {size}, {len(net.labels)} {what}; {Path(net.where).name} in {net.engine}"


def size(counted: Profile) -> list[tuple[str, str]]:
    """Figures of the network's size with captions."""
    return [
        (f"{counted.mult_adds / 1e6:.1f} M", "Mult-Adds"),
        (f"{counted.parameters / 1e6:.2f} M", "parameters"),
        (f"{counted.weight_bytes / 1e6:.1f} MB", "weights"),
    ]


def accuracy(evaluation: Evaluation, net: Net, data: str) -> Section:
    """Top-1, top-5 and the confusion matrix."""
    metrics = evaluation.metrics
    note = (
        f"{metrics.images} images of {data} ({evaluation.part}): "
        f"top-1 {metrics.top1:.2%}, top-5 {metrics.top5:.2%}, loss {metrics.loss:.3f}; "
        f"{Path(net.where).name} in {net.engine}."
    )
    figure = charts.svg(charts.confusion_matrix(metrics.confusion, net.labels))
    return Section("Accuracy", f"<p>{page.text(note)}</p>{about_images(evaluation)}{figure}")


def about_images(evaluation: Evaluation) -> str:
    """Doubts about the split, and the images that could not be decoded."""
    doubt = f"<p>{page.text(evaluation.doubt)}</p>" if evaluation.doubt else ""
    skipped = ""
    if problems := evaluation.skipped.values():
        lines = page.text("\n".join(problems))
        skipped = (
            f"<details><summary>{len(problems)} images could not be decoded.</summary><pre>{lines}</pre></details>"
        )
    return doubt + skipped


def labels(evaluation: Evaluation, net: Net, data: str) -> Section:
    """Average precision of each attribute."""
    (logits,) = evaluation.answers.outputs.values()
    present = evaluation.answers.targets
    precision = average_precision(logits, present)
    rows = [
        [label, f"{np.nansum(present[:, i]):.0f}", f"{(~np.isnan(present[:, i])).sum()}",
         "" if np.isnan(precision[i]) else f"{precision[i]:.1%}"]
        for i, label in enumerate(evaluation.task.labels)
    ]  # fmt: skip
    scores = ", ".join(f"{title_of(name)} {score:.4g}" for name, score in evaluation.scores.items())
    file = Path(net.where).name
    note = f"{evaluation.images} images of {data} ({evaluation.part}): {scores}; {file} in {net.engine}."
    table = page.table(["label", "images with it", "images known", "average precision"], rows)
    return Section("Labels", f"<p>{page.text(note)}</p>{table}")


def predictions(net: Net, split: Split, classes: Sequence[str], most: int = 24) -> Section:
    """Images spread evenly over the split, with the network's answers; wrong answers are marked."""
    figures = []
    for index in np.linspace(0, len(split) - 1, min(most, len(split))).astype(int):
        try:
            image = net.preprocessing.prepare(split.images[index]).pixels
        except ImageError:
            continue  # the section on accuracy counts them
        seen, true = net.classify_prepared(image), classes[split.labels[index]]
        right = seen.label == true
        caption = f"{seen.label} {seen.probability:.0%}" + ("" if right else f", is {true}")
        figures.append(page.figure(image, right, caption))
    return Section("Predictions", page.grid(figures))


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
        f"{profile.parameters:,} parameters, {profile.weight_bytes:,} bytes of weights, "
        f"{profile.peak_activation_elements:,} activation elements at peak."
    )
    table = page.table(["type", "layers", "Mult-Adds", "%", "parameters", "%"], rows)
    return Section("Cost", f"<p>{page.text(note)}</p>{table}{charts.svg(charts.cost_per_layer(profile))}")


def latency(rows: Sequence[Row]) -> Section:
    """Times measured by `bench`."""
    cells = [
        [Path(row.file).name, row.engine, f"{row.median_ms:.3f}", f"{row.min_ms:.3f} - {row.max_ms:.3f}",
         f"{row.p90_ms:.3f}", f"{row.end_to_end_ms:.2f}", f"{row.load_ms:.0f}", f"{row.first_ms:.1f}"]
        for row in rows
    ]  # fmt: skip
    head = ["file", "engine", "median", "min - max", "p90", "with decoding", "load", "first"]
    note = f"Milliseconds for one image, {rows[0].threads} thread(s), {rows[0].cpu}. Outputs verified."
    return Section("Speed", f"<p>{page.text(note)}</p>{page.table(head, cells)}{charts.svg(charts.latency(rows))}")


def facts(net: Net, commands: Sequence[str]) -> Section:
    """How to reproduce the model: the commands, and the facts stored in the model file."""
    lines = f"<pre>{page.text(chr(10).join(commands))}</pre>" if commands else ""
    stored = f"<pre>{page.text(json.dumps(net.facts.to_json(), indent=2))}</pre>"
    return Section(
        "How this was made", f"{lines}<details><summary>facts stored in the model file</summary>{stored}</details>"
    )
