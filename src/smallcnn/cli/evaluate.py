"""`smallcnn evaluate`."""

from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from smallcnn.cli.options import as_json, crop, engine, groups, part, root, threads, workers
from smallcnn.cli.show import print_json, progress, remark, say, warn_untrained

if TYPE_CHECKING:
    from smallcnn.evaluate import Evaluation

_WORST = 5
"""Attributes that are listed, those with the lowest average precision."""
_MOST_CONFUSION = 100
"""Most classes for which the JSON includes the confusion matrix: a thousand would make a million numbers."""


@click.command("evaluate")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--data", required=True, metavar="SOURCE", help="labelled images: folder, .npz or named set")
@root
@groups
@part
@crop
@click.option(
    "--plot", type=click.Path(path_type=Path), help="plot of the confusion matrix to write (.png, .svg, .pdf)"
)
@engine
@threads
@workers
@as_json
def command(
    file: Path,
    data: str,
    root: Path | None,
    groups: str | None,
    part: str | None,
    crop: float | None,
    plot: Path | None,
    engine: str | None,
    threads: int | None,
    workers: int | None,
    json_: bool,
) -> None:
    """Measure FILE on SOURCE: top-1 and top-5 accuracy and confusions, or the mean average precision of attributes."""
    from smallcnn import runtime
    from smallcnn.evaluate import evaluate
    from smallcnn.tasks.attributes import Attributes
    from smallcnn.tasks.classification import Classification, classification
    from smallcnn.tasks.metrics import most_confused

    if plot:
        from smallcnn.report.charts import check_plot

        check_plot(plot)
    net = runtime.open(file, engine=engine, threads=threads)
    warn_untrained(net.facts)
    if plot:
        classification(net.task, "a confusion matrix")
    with progress("evaluating") as report:
        result = evaluate(net, data, root=root, groups=groups, part=part, crop=crop, workers=workers, report=report)
    if result.doubt:
        remark(f"note: {result.doubt}")
    for note in result.source.notes:
        remark(f"note: {note}")
    for problem in dict.fromkeys(result.skipped.values()):
        remark(f"skipped: {problem}")
    if plot:
        from smallcnn.report.charts import confusion_matrix, save

        save(confusion_matrix(result.metrics.confusion, net.labels), plot)
    if json_:
        print_json({
            "file": str(file), "engine": net.engine, "data": data, "split": result.part, "part": result.part,
            **result.scores, "images": result.images, "skipped": list(result.skipped),
            "left_out": result.source.left_out.as_dict(), "labels": net.labels, **_by_label(result),
        })  # fmt: skip
        return
    say(f"{file}, {net.engine}, {data} ({result.part}): {result.images} images")
    say("  " + "   ".join(_in_words(name, score) for name, score in result.scores.items() if isfinite(score)))
    if isinstance(net.task, Classification):
        for count, true, taken in most_confused(result.metrics.confusion, 5):
            say(f"  {count} of {net.labels[true]} predicted as {net.labels[taken]}")
    elif isinstance(net.task, Attributes):
        by_label = sorted(_by_label(result)["average_precision"].items(), key=lambda one: one[1])
        for label, precision in [one for one in by_label if isfinite(one[1])][:_WORST]:
            say(f"  average precision {precision:.2%} of {label}")


def _by_label(result: "Evaluation") -> dict[str, Any]:
    """Scores of single labels for JSON: a classifier's confusion matrix, or each attribute's average precision."""
    from smallcnn.tasks.attributes import Attributes
    from smallcnn.tasks.classification import Classification
    from smallcnn.tasks.metrics import average_precision

    labels, answers = result.task.labels, result.answers
    if isinstance(result.task, Attributes):
        (logits,) = answers.outputs.values()
        precisions = average_precision(logits, answers.targets).tolist()
        return {"average_precision": dict(zip(labels, precisions, strict=True))}
    if isinstance(result.task, Classification) and len(labels) <= _MOST_CONFUSION:
        return {"confusion": result.metrics.confusion.tolist()}
    return {}


_NAMES = {"top1": "top-1", "top5": "top-5"}


def _in_words(name: str, score: float) -> str:
    return f"loss {score:.4f}" if name == "loss" else f"{_NAMES.get(name, name.replace('_', ' '))} {score:.2%}"
