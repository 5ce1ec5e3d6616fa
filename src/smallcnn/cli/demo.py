"""`smallcnn demo`."""

from pathlib import Path

import click

from smallcnn.cli.show import say
from smallcnn.errors import TRAIN, require


@click.command("demo")
@click.option(
    "--out", default="demo", show_default=True, type=click.Path(path_type=Path), help="folder for everything made"
)
def command(out: Path) -> None:
    """The whole way on handwritten digits: cost, train, export, evaluate, predict, bench, report.

    A few minutes on two cores, no download.
    """
    require("the demo", "train", *TRAIN)
    from smallcnn.demo import demo

    demo(out, say)
