"""`smallcnn evaluate`."""

from pathlib import Path

import click

from smallcnn.cli.options import as_json, crop, engine, groups, part, root, threads, workers
from smallcnn.cli.show import print_json, progress, remark, say, warn_untrained

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
    """Measure the top-1 and top-5 accuracy and the confusions of FILE on SOURCE."""
    from smallcnn import runtime
    from smallcnn.evaluate import evaluate
    from smallcnn.tasks.metrics import most_confused

    if plot:
        from smallcnn.report.charts import check_plot

        check_plot(plot)
    net = runtime.open(file, engine=engine, threads=threads)
    warn_untrained(net.facts)
    with progress("evaluating") as report:
        result = evaluate(net, data, root=root, groups=groups, part=part, crop=crop, workers=workers, report=report)
    metrics = result.metrics
    if result.doubt:
        remark(f"note: {result.doubt}")
    for note in result.source.notes:
        remark(f"note: {note}")
    for problem in dict.fromkeys(result.skipped.values()):
        remark(f"skipped: {problem}")
    if plot:
        from smallcnn.report.charts import confusion_matrix, save

        save(confusion_matrix(metrics.confusion, net.labels), plot)
    if json_:
        print_json({
            "file": str(file), "engine": net.engine, "data": data, "split": result.part, "part": result.part,
            "top1": metrics.top1, "top5": metrics.top5, "loss": metrics.loss, "images": metrics.images,
            "skipped": list(result.skipped), "left_out": result.source.left_out.as_dict(), "labels": net.labels,
        } | ({"confusion": metrics.confusion.tolist()} if len(net.labels) <= _MOST_CONFUSION else {}))  # fmt: skip
        return
    say(f"{file}, {net.engine}, {data} ({result.part}): {metrics.images} images")
    loss = "" if net.ending == "none" else f"   loss {metrics.loss:.4f}"
    say(f"  top-1 {metrics.top1:.2%}   top-5 {metrics.top5:.2%}{loss}")
    for count, true, taken in most_confused(metrics.confusion, 5):
        say(f"  {count} of {net.labels[true]} predicted as {net.labels[taken]}")
