"""`smallcnn demo`."""

from pathlib import Path

import click

from smallcnn.cli.options import as_json
from smallcnn.cli.show import print_json, remark, say
from smallcnn.errors import TRAIN, require


@click.command("demo")
@click.option("--out", default="demo", show_default=True, type=click.Path(path_type=Path), help="folder for all output")
@as_json
def command(out: Path, json_: bool) -> None:
    """Run every step on handwritten digits: cost, train, export, evaluate, predict, bench, report.

    Takes about a minute on two cores and downloads nothing.
    """
    require("the demo", "train", *TRAIN)
    from smallcnn.demo import demo

    made = demo(out, remark if json_ else say)
    if json_:
        metrics = made.evaluation.metrics
        print_json({
            "report": str(made.report), "mult_adds": made.cost.mult_adds, "parameters": made.cost.parameters,
            "top1": metrics.top1, "images": metrics.images, "median_ms": made.times[0].median_ms,
        })  # fmt: skip
