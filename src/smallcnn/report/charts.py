"""Plots: training curves, confusion matrix, calibration, cost, latency. They need no display."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from smallcnn.cost.profile import Profile
from smallcnn.errors import DataError, FileError, MissingExtra
from smallcnn.system.escape import escaped
from smallcnn.system.files import atomic, check_writable
from smallcnn.tasks.coco import RECALLS, THRESHOLDS, Figures
from smallcnn.tasks.metrics import title as title_of
from smallcnn.train.epochs import Epoch

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from smallcnn.analysis.calibration import Calibration, Reliability
    from smallcnn.analysis.sweep import Sweep
    from smallcnn.bench.rows import Row
    from smallcnn.compress.sensitivity import Sensitivity
    from smallcnn.papers import Comparison

_BLUE, _ORANGE, _GREY = "#2563eb", "#ea580c", "#94a3b8"
_MOST_CLASSES_NAMED = 40
_LONGEST_NAME = 40  # characters
_COLOURS = 10  # matplotlib's cycle


def check_plot(path: Path) -> None:
    """Raises the errors that `save` would raise after the work: a wrong suffix, no matplotlib, an unwritable path."""
    if path.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise FileError(f"{path}: a plot's name ends in .png, .svg or .pdf")
    _figure(1, 1)
    check_writable(path)


def save(figure: "Figure", path: Path) -> None:
    """Writes a figure in the format given by the suffix."""
    with atomic(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:].lower(), dpi=150)


def svg(figure: "Figure") -> str:
    """The figure as an <svg> element for a page; it scrolls on a narrow screen."""
    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    return f"<div class=wide tabindex=0>{text[text.index('<svg') :]}</div>"


def curves(history: Sequence[Epoch], goal: str) -> "Figure":
    """Training and validation loss and the score `goal`, if it is measured, over the epochs."""
    figure = _figure(9, 3.2)
    marker = "o" if len(history) == 1 else None
    panels = (("loss", "loss", 1), (goal, f"{title_of(goal)}, %", 100))
    for axes, (name, heading, factor) in zip(figure.subplots(1, 2), panels, strict=True):
        for label, split, color in (
            ("train", "train", _GREY), ("val", "val", _BLUE), ("val, averaged weights", "averaged", _ORANGE)
        ):  # fmt: skip
            points = [(epoch.epoch, getattr(epoch, split)) for epoch in history]
            if known := [(number, factor * scores[name]) for number, scores in points if name in scores]:
                axes.plot(*zip(*known, strict=True), color=color, marker=marker, label=label)
        _plain(axes, heading)
        axes.set_xlabel("epoch")
        axes.legend(frameon=False)
    return figure


def confusion_matrix(confusion: np.ndarray, labels: Sequence[str]) -> "Figure":
    """The confusion matrix: rows are true classes, columns predictions; colour is the share of the row."""
    count = len(labels)
    side = min(max(3.5, 0.45 * count + 1.5), 14)
    figure = _figure(side + 0.6, side)
    axes = figure.subplots()
    share = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    if count <= _MOST_CLASSES_NAMED:
        names = [_name(label) for label in labels]
        axes.set_xticks(range(count), names, rotation=45, ha="right", parse_math=False)
        _name_rows(axes, names)
        for i, j in zip(*np.nonzero(confusion), strict=True):
            color = "white" if share[i, j] > 0.5 else "black"
            axes.text(j, i, str(confusion[i, j]), ha="center", va="center", color=color, fontsize=8)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    return figure


def precision_recall(figures: Figures, labels: Sequence[str]) -> "Figure":
    """A detector's precision at each recall: the mean over classes by IoU threshold, and each class at IoU 0.5."""
    known = np.flatnonzero(figures.objects)
    figure = _figure(9, 3.8)
    left, right = figure.subplots(1, 2, sharey=True)
    for place in (0, 5, 8):
        mean = figures.precision[place][:, known].mean(1) if known.size else np.zeros(len(RECALLS))
        left.plot(RECALLS, mean, label=f"IoU {THRESHOLDS[place]:.2f}, AP {mean.mean():.1%}")
    _plain(left, "mean over classes: precision by recall")
    left.legend(frameon=False, fontsize=8, loc="lower left")
    few = len(known) <= _COLOURS
    for number in known.tolist():
        values = figures.precision[0, :, number]
        name = f"{_name(labels[number])}, AP {values.mean():.1%}".replace("$", r"\$")
        right.plot(RECALLS, values, label=name if few else None, color=None if few else _GREY, linewidth=1)
    if few:
        right.legend(frameon=False, fontsize=8, loc="lower left")
    _plain(right, f"{len(known)} classes at IoU 0.5")
    for axes in (left, right):
        axes.set_xlabel("recall")
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1.02)
    return figure


def cost_per_layer(profile: Profile) -> "Figure":
    """Mult-Adds and parameters of every layer that has Mult-Adds, in order."""
    layers = [layer for layer in profile.layers if layer.mult_adds]
    figure = _figure(9, max(2.5, 0.19 * len(layers) + 1))
    names = [f"{_name(layer.name.removesuffix('.conv'))}  {layer.type}" for layer in layers]
    left, right = figure.subplots(1, 2, sharey=True)
    left.barh(range(len(layers)), [layer.mult_adds / 1e6 for layer in layers], color=_BLUE)
    right.barh(range(len(layers)), [layer.parameters / 1e3 for layer in layers], color=_ORANGE)
    _name_rows(left, names)
    left.invert_yaxis()
    left.tick_params(axis="y", labelsize=7)
    _plain(left, "Mult-Adds, millions")
    _plain(right, "parameters, thousands")
    return figure


def accuracy_and_cost(compared: Sequence["Comparison"]) -> "Figure":
    """Published ImageNet top-1 against our Mult-Adds, with a colour per family, as in the papers' figures."""
    families: dict[str, set[tuple[int, float]]] = {}
    for entry in compared:
        if entry.network and entry.top1 is not None:
            family = entry.row.model.partition(":")[0]
            families.setdefault(family, set()).add((entry.network.profile.mult_adds, entry.top1))
    if not families:
        raise DataError("nothing to plot: these tables have no published ImageNet accuracy of a known network")
    figure = _figure(9, 5.5)
    axes = figure.subplots()
    for i, family in enumerate(sorted(families)):
        x, y = zip(*families[family], strict=True)
        marker = "o" if i < _COLOURS else "^"
        axes.scatter([count / 1e6 for count in x], y, s=20, marker=marker, label=family)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel("Mult-Adds, millions")
    _plain(axes, "published ImageNet top-1, %")
    axes.legend(frameon=False, fontsize=8, ncols=2, loc="lower right")
    return figure


def latency(rows: Sequence["Row"]) -> "Figure":
    """Median time per image of each candidate, with the range from the fastest run to the 90th percentile."""
    figure = _figure(7, 0.5 * len(rows) + 1.2)
    axes = figure.subplots()
    names = [f"{_name(Path(row.file).name)}, {row.engine}" for row in rows]
    medians = [row.median_ms for row in rows]
    spread = [[row.median_ms - row.min_ms for row in rows], [row.p90_ms - row.median_ms for row in rows]]
    axes.barh(range(len(rows)), medians, xerr=spread, color=_BLUE, ecolor=_GREY, height=0.5)
    _name_rows(axes, names)
    axes.invert_yaxis()
    _plain(axes, "ms per image: median, and fastest to 90th percentile")
    return figure


def reliability(calibration: "Calibration") -> "Figure":
    """Accuracy and number of images by probability, before and after temperature scaling."""
    shown = [("as it is", calibration.before)]
    if calibration.after:
        shown.append(("temperature scaled", calibration.after))
    figure = _figure(4.5 * len(shown), 4.8)
    grid = figure.subplots(2, len(shown), sharex=True, sharey="row", squeeze=False, height_ratios=(3, 1))
    for (title, found), (upper, lower) in zip(shown, grid.T, strict=True):
        _bars(upper, lower, found, "accuracy")
        _plain(upper, f"{title}: calibration error {found.error:.1%}")
        lower.set_xlabel("probability of the answer")
        _plain(lower, "images")
    grid[0, 0].legend(frameon=False, fontsize=8, loc="upper left")
    return figure


def reliability_of_scores(found: "Reliability") -> "Figure":
    """The share of detections that are right by their score, and their number, on a logarithmic axis."""
    figure = _figure(5.5, 4.8)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    _bars(upper, lower, found, "share that is right")
    _plain(upper, f"calibration error {found.error:.1%}")
    upper.legend(frameon=False, fontsize=8, loc="upper left")
    lower.set_yscale("symlog")
    lower.set_xlabel("score")
    _plain(lower, "detections")
    return figure


def _bars(upper: "Axes", lower: "Axes", found: "Reliability", label: str) -> None:
    """Accuracy and count of each bin."""
    bins = len(found.count)
    middles = (np.arange(bins) + 0.5) / bins
    upper.bar(middles, found.accuracy, 0.9 / bins, color=_BLUE, label=label)
    upper.plot((0, 1), (0, 1), color=_GREY, linestyle="--", label="perfect calibration")
    upper.set_ylim(0, 1)
    lower.bar(middles, found.count, 0.9 / bins, color=_GREY)


def resolutions(sweep: "Sweep") -> "Figure":
    """Top-1 by input size, as it is and with batch norm re-estimated; the network's own size is marked."""
    figure = _figure(7, 3.6)
    axes = figure.subplots()
    sides = [row.size[0] for row in sweep.rows]
    axes.axvline(sweep.own_size[0], color=_GREY, linestyle="--")
    axes.plot(sides, [100 * row.top1 for row in sweep.rows], "o-", color=_BLUE, label="as it is")
    again = [(row.size[0], 100 * row.top1_reestimated) for row in sweep.rows if row.top1_reestimated is not None]
    if again:
        axes.plot(*zip(*again, strict=True), "s-", color=_ORANGE, label="batch norm re-estimated")
        axes.legend(frameon=False)
    axes.set_xticks(sides, ["x".join(map(str, row.size)) for row in sweep.rows])
    axes.set_xlabel("input size")
    _plain(axes, "top-1, %")
    return figure


def sensitivity(found: "Sensitivity") -> "Figure":
    """The score that is left when the channels of each layer alone are cut, a line for each share."""
    figure = _figure(7, 1.2 + 0.2 * len(found.families))
    axes = figure.subplots()
    places = range(len(found.families))
    axes.axvline(100 * found.whole, color=_GREY, linestyle="--")
    for i, share in enumerate(found.shares):
        scores = [100 * family.scores[i] for family in found.families]
        axes.plot(scores, places, "o-", label=f"{share:.0%} of its channels gone")
    _name_rows(axes, [_name(family.layers[0]) for family in found.families])
    axes.invert_yaxis()
    axes.legend(frameon=False, fontsize=8)
    axes.set_xlabel(f"{title_of(found.score)}, %")
    _plain(axes, "sensitivity of each layer")
    return figure


def _name_rows(axes: "Axes", names: Sequence[str]) -> None:
    """Labels the rows 0, 1, ... with names; a $ in a name starts no formula."""
    axes.set_yticks(range(len(names)), names, parse_math=False)


def _name(label: str) -> str:
    """A name shortened to fit, with invisible characters escaped."""
    short = label if len(label) <= _LONGEST_NAME else f"{label[: _LONGEST_NAME - 1]}…"
    return escaped(short)


def _figure(width: float, height: float) -> "Figure":
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtra("a plot", "train") from error
    return Figure(figsize=(width, height), layout="constrained")


def _plain(axes: "Axes", title: str) -> None:
    axes.set_title(title, fontsize=10, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.set_axisbelow(True)
