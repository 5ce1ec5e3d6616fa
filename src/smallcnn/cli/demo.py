"""`smallcnn demo`."""

from pathlib import Path

import click


@click.command("demo")
@click.option(
    "--out", default="demo", show_default=True, type=click.Path(path_type=Path), help="folder for everything made"
)
def command(out: Path) -> None:
    """The whole way on handwritten digits: cost, train, export, evaluate, predict, bench, report.

    A few minutes on two cores, no download.
    """
    from smallcnn.errors import MissingExtra

    try:
        import kornia  # noqa: F401
        import matplotlib  # noqa: F401
        import sklearn  # noqa: F401
        import torch  # noqa: F401
    except ImportError as error:
        raise MissingExtra("the demo", "train") from error
    from smallcnn.demo import demo

    demo(out, click.echo)
