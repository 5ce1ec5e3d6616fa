"""Options shared by several commands."""

import re
from collections.abc import Callable, Iterable
from pathlib import Path

import click


def completed(names: Callable[[], Iterable[str]]) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    """Shell completion for an argument or option that takes one of `names`."""
    return lambda _context, _parameter, typed: [name for name in names() if name.startswith(typed)]


file = click.argument("file", type=click.Path(path_type=Path))


def data(use: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The data set that a command cannot do without."""
    return click.option("--data", required=True, metavar="SOURCE", help=use)


LABELLED = "labelled images: folder, archive, .npz, annotations, shards or named set"
labelled = data(LABELLED)
as_json = click.option("--json", "json_", is_flag=True, help="print JSON instead of text")
engine = click.option(
    "--engine",
    help="inference engine: compiled, onnxruntime, openvino or torch  [default: compiled for a compiled FILE, else "
    "onnxruntime]",
)
root = click.option(
    "--root", type=click.Path(path_type=Path), help="folder with the files of a named set  [default: downloaded]"
)
groups = click.option(
    "--groups",
    metavar="TABLE|PATTERN",
    help="groups of images to keep together in one split: a .csv with the columns file and group, or a regular "
    r"expression with one group, searched in file names, such as '(clip\d+)_\d+'",
)
columns = click.option(
    "--columns",
    metavar="NAME,...",
    callback=lambda _context, _parameter, value: value and tuple(name.strip() for name in value.split(",")),
    help="questions to use from a table of attributes, separated by commas  [default: all columns that can be used]",
)
part = click.option(
    "--split", "--part", "part", type=click.Choice(["train", "val", "test", "all"]),
    help="split to use  [default: the one the model was not trained on]",
)  # fmt: skip
crop = click.option(
    "--crop",
    type=click.FloatRange(0, 1, min_open=True),
    help="share of the shorter side to keep; 1 if the images are already cropped  [default: as in the file]",
)
fit = click.option(
    "--fit",
    type=click.Choice(["crop", "stretch", "letterbox"]),
    help="fit of an image to the input: crop (its centre), stretch (whole image) or letterbox (whole image, with "
    "borders)  [default: the file's own, or crop]",
)
threshold = click.option(
    "--threshold",
    type=click.FloatRange(0, 1),
    help="score that an object must exceed (detectors)  [default: as in FILE]",
)
overlap = click.option(
    "--overlap",
    type=click.FloatRange(0, 1),
    help="overlap of two boxes, intersection over union, above which the lower score goes (detectors)  "
    "[default: as in FILE]",
)
most = click.option(
    "--most", type=click.IntRange(1), help="largest number of objects in an image (detectors)  [default: as in FILE]"
)
workers = click.option(
    "--workers", type=click.IntRange(1), help="number of decoding threads  [default: one per usable core, at most 8]"
)
threads = click.option(
    "--threads", type=click.IntRange(1), help="number of compute threads  [default: one per usable core]"
)
compute = click.option(
    "--compute",
    type=click.Choice(["auto", "torch", "kernels", "compile"]),
    default="auto",
    show_default=True,
    help="training backend: torch, kernels (smallcnn's own, float32 on CPUs) or compile (torch.compile); auto times "
    "the first two",
)
device = click.option("--device", default="auto", show_default=True, help="device to train on: cpu, cuda, mps or auto")


def models() -> Iterable[str]:
    """The network names that MODEL can start with."""
    from smallcnn import zoo

    return zoo.names()


def _numbers(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[float, ...] | None:  # noqa: ARG001
    """ "0.485,0.456,0.406" or one number for all channels."""
    if value is None:
        return None
    try:
        return tuple(float(part) for part in value.split(","))
    except ValueError:
        raise click.BadParameter(
            f"must be numbers separated by commas, as in 0.485,0.456,0.406, not {value!r}"
        ) from None


def _plane(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[int, int] | None:  # noqa: ARG001
    """ "48x192" as (48, 192), "224" as (224, 224)."""
    if value is None:
        return None
    found = re.fullmatch(r"(\d{1,6})(?:[xX](\d{1,6}))?", value.strip())
    sides = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if min(sides) < 1:
        raise click.BadParameter(f"must be a number of pixels, or height x width as in 48x192, not {value!r}")
    return sides


resolution = click.option(
    "--resolution", callback=_plane, metavar="HxW", help="height x width of the input, or one number for both  "
    "[default: the network's own]"
)  # fmt: skip
mean = click.option(
    "--mean",
    callback=_numbers,
    metavar="R,G,B",
    help="mean of the pixels on the scale 0..1, or 0..255 if a value is above 1",
)
std = click.option(
    "--std", callback=_numbers, metavar="R,G,B", help="standard deviation of the pixels, on the same scale as the mean"
)
scale = click.option(
    "--scale",
    callback=_numbers,
    metavar="R,G,B",
    help="factor to apply after subtracting a mean of 0..255, in place of --std; 1 for Caffe",
)
order = click.option(
    "--order", type=click.Choice(["rgb", "bgr"]), help="channel order of the network's input; bgr for Caffe"
)


def common(function: Callable[..., None]) -> Callable[..., None]:
    """Adds the options every network has; see `given`."""
    options = (
        click.option("--resolution", type=int, help="side of the input in pixels  [default: the network's own]"),
        click.option("--classes", type=int, help="number of classes  [default: the network's own]"),
        click.option("--channels", type=int, help="number of input channels, 1 for grey  [default: 3]"),
    )
    for option in reversed(options):
        function = option(function)
    return function


def given(chosen: dict[str, int | None]) -> dict[str, int]:
    """The common options that were given, as `Model.build` takes them."""
    return {name: value for name, value in chosen.items() if value is not None}
