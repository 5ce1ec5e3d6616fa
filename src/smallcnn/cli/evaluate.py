"""`smallcnn evaluate`."""

from collections.abc import Callable, Mapping
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from smallcnn.cli import options
from smallcnn.cli.show import print_json, progress, remark, say, table, warn_untrained

if TYPE_CHECKING:
    from smallcnn.evaluate import Evaluation

_WORST = 5
"""Attributes that are listed, those with the lowest average precision."""
_MOST_CONFUSION = 100
"""Most classes for which the JSON includes the confusion matrix: a thousand would make a million numbers."""


@click.command("evaluate")
@options.file
@options.labelled
@options.root
@options.groups
@options.part
@options.crop
@click.option(
    "--plot",
    type=click.Path(path_type=Path),
    help="plot to write (.png, .svg, .pdf): the confusion matrix, or a detector's precision and recall",
)
@options.threshold
@options.overlap
@options.most
@options.engine
@options.threads
@options.workers
@options.as_json
def command(
    file: Path,
    data: str,
    root: Path | None,
    groups: str | None,
    part: str | None,
    crop: float | None,
    plot: Path | None,
    threshold: float | None,
    overlap: float | None,
    most: int | None,
    engine: str | None,
    threads: int | None,
    workers: int | None,
    json_: bool,
) -> None:
    """Measure FILE on SOURCE: top-1 and top-5 accuracy and confusions, the mean average precision of attributes, or
    COCO's figures of a detector."""
    from smallcnn import runtime
    from smallcnn.cli.remarks import remarks
    from smallcnn.evaluate import evaluate
    from smallcnn.tasks.classification import classification
    from smallcnn.tasks.detection import Detection
    from smallcnn.transform.limits import Limits

    if plot:
        from smallcnn.report.charts import check_plot

        check_plot(plot)
    net = runtime.open(file, engine=engine, threads=threads, limits=Limits(threshold, overlap, most))
    warn_untrained(net.facts)
    if plot and not isinstance(net.task, Detection):
        classification(net.task, "a confusion matrix")
    with progress("evaluating") as report:
        result = evaluate(net, data, root=root, groups=groups, part=part, crop=crop, workers=workers, report=report)
    remarks(result)
    if plot:
        from smallcnn.report import charts

        if isinstance(net.task, Detection):
            figure = charts.precision_recall(result.figures, net.labels)
        else:
            figure = charts.confusion_matrix(result.metrics.confusion, net.labels)
        charts.save(figure, plot)
        remark(f"plot: {plot}")
    if json_:
        print_json({
            "file": str(file), "engine": net.engine, "data": data, "split": result.part, "part": result.part,
            **result.scores, "images": result.images, "seconds": result.seconds, "skipped": list(result.skipped),
            "left_out": result.source.left_out.as_dict(), "labels": net.labels, **_BY_LABEL[net.task.kind](result),
        })  # fmt: skip
        return
    say(f"{file}, {net.engine}, {data} ({result.part}): {result.images} images in {result.seconds:.1f} s")
    _SHOW[net.task.kind](result)


def _confusion(result: "Evaluation") -> dict[str, Any]:
    """A classifier's confusion matrix."""
    return {"confusion": result.metrics.confusion.tolist()} if len(result.task.labels) <= _MOST_CONFUSION else {}


def _precisions(result: "Evaluation") -> dict[str, Any]:
    """The average precision of each attribute."""
    from smallcnn.tasks.metrics import average_precision

    (logits,) = result.answers.outputs.values()
    precisions = average_precision(logits, result.answers.targets).tolist()
    return {"average_precision": dict(zip(result.task.labels, precisions, strict=True))}


def _classes(result: "Evaluation") -> dict[str, Any]:
    """A detector's figures by class, of those that have objects."""
    figures = result.figures
    columns = {"objects": figures.objects, "detections": figures.detections, **figures.by_class}
    return {
        "classes": [
            {"label": label, **{name: values[i].item() for name, values in columns.items()}}
            for i, label in enumerate(result.task.labels)
            if figures.objects[i]
        ]
    }


def _show_classifier(result: "Evaluation") -> None:
    from smallcnn.tasks.metrics import most_confused

    labels = result.task.labels
    _show_scores(result.scores)
    for count, true, taken in most_confused(result.metrics.confusion, 5):
        say(f"  {count} of {labels[true]} predicted as {labels[taken]}")


def _show_attributes(result: "Evaluation") -> None:
    _show_scores(result.scores)
    by_label = sorted(_precisions(result)["average_precision"].items(), key=lambda one: one[1])
    for label, precision in [one for one in by_label if isfinite(one[1])][:_WORST]:
        say(f"  average precision {precision:.2%} of {label}")


def _show_detector(result: "Evaluation") -> None:
    recalls = {name: score for name, score in result.scores.items() if name.startswith("recall")}
    _show_scores({name: score for name, score in result.scores.items() if name not in recalls})
    _show_scores(recalls)
    rows = [
        [one["label"], str(one["objects"]), str(one["detections"]),
         *(f"{one[name]:.1%}" for name in ("map", "map50", "recall_100"))]
        for one in _classes(result)["classes"]
    ]  # fmt: skip
    table(["class", "objects", "detections", "AP", "AP50", "AR 100"], rows)


def _show_scores(scores: Mapping[str, float]) -> None:
    say("  " + "   ".join(_in_words(name, score) for name, score in scores.items() if isfinite(score)))


def _in_words(name: str, score: float) -> str:
    from smallcnn.tasks.metrics import title

    return f"loss {score:.4f}" if name == "loss" else f"{title(name)} {score:.2%}"


_BY_LABEL: dict[str, Callable[["Evaluation"], dict[str, Any]]] = {
    "classification": _confusion, "attributes": _precisions, "detection": _classes,
}  # fmt: skip
"""Scores of single labels for JSON, by kind of task."""
_SHOW: dict[str, Callable[["Evaluation"], None]] = {
    "classification": _show_classifier, "attributes": _show_attributes, "detection": _show_detector,
}  # fmt: skip
