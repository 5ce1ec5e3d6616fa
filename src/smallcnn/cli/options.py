"""The options that several commands have."""

from collections.abc import Callable
from pathlib import Path

import click

as_json = click.option("--json", "json_", is_flag=True, help="print JSON for machines")
engine = click.option(
    "--engine",
    help="compiled, onnxruntime, openvino or torch  [default: compiled for a compiled FILE, else onnxruntime]",
)
root = click.option(
    "--root", type=click.Path(path_type=Path), help="where the files of a named set are  [default: fetched]"
)
groups = click.option(
    "--groups",
    metavar="TABLE|PATTERN",
    help="images that stay on one side of the split: a .csv with the columns file and group, or a regular expression "
    r"with one group, searched in file names, such as '(clip\d+)_\d+'",
)
part = click.option(
    "--part", type=click.Choice(["train", "val", "test", "all"]), help="left out: what was not trained on"
)
crop = click.option(
    "--crop",
    type=click.FloatRange(0, 1, min_open=True),
    help="part of the shorter side to look at; 1 if the pictures are already cropped  [default: the file's]",
)
workers = click.option(
    "--workers", type=click.IntRange(1), help="threads that decode  [default: one per core, at most 8]"
)
threads = click.option("--threads", type=click.IntRange(1), help="threads that compute  [default: one per core]")
compute = click.option(
    "--compute",
    type=click.Choice(["auto", "torch", "kernels", "compile"]),
    default="auto",
    show_default=True,
    help="what computes a step: torch, our own kernels (float32 on CPUs), torch.compile; auto tries the first two",
)
device = click.option("--device", default="auto", show_default=True, help="cpu, cuda, mps or auto")


def common(function: Callable[..., None]) -> Callable[..., None]:
    """The options every network has; see `given`."""
    options = (
        click.option("--resolution", type=int, help="side of the input  [default: the network's own]"),
        click.option("--classes", type=int, help="number of classes  [default: the network's own]"),
        click.option("--channels", type=int, help="channels of the input, 1 for grey  [default: 3]"),
    )
    for option in reversed(options):
        function = option(function)
    return function


def given(chosen: dict[str, int | None]) -> dict[str, int]:
    """Of the common options those that were given, as `Model.build` takes them."""
    return {name: value for name, value in chosen.items() if value is not None}
