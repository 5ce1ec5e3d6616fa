"""`smallcnn list`."""

import sys
from shutil import get_terminal_size
from textwrap import TextWrapper
from typing import TYPE_CHECKING, Any

import click

from smallcnn import zoo
from smallcnn.cli.options import as_json, given
from smallcnn.cli.show import WIDTH, millions, print_json, remark
from smallcnn.errors import GraphError

if TYPE_CHECKING:
    from smallcnn.cost.profile import Profile

_WIDE = 118  # terminal width with room for the options on the same line
_COLUMNS = "{:<23}  {:<9}  {:>11}  {:>10}  "
_SCALES = ("width", "scale", "groups")  # options that change no layer's name


@click.command("list")
@as_json
@click.option(
    "--markdown", is_flag=True, help="print the Markdown table of docs/models.md: variants, accuracies, weights"
)
@click.option("--resolution", type=int, help="side of the input in pixels  [default: each network's own]")
def command(json_: bool, markdown: bool, resolution: int | None) -> None:
    """List the networks, their cost at the default options, and their options.

    Give options after a colon: mobilenet_v1:width=0.5,variant=shallow. Values are listed as default|others.
    """
    from smallcnn.cost.profile import profile

    if markdown and (json_ or resolution):
        raise click.UsageError("--markdown cannot be combined with --json or --resolution")
    if markdown:
        click.echo("\n".join(_markdown()))
        return
    counted = {}
    for name in zoo.names():
        try:
            counted[name] = profile(zoo.parse(name).build(**given({"resolution": resolution})))
        except GraphError as error:  # too small for this network
            remark(f"{name}: {error}")
    if json_:
        print_json([_record(name, cost) for name, cost in counted.items()])
        return
    head = _COLUMNS.format("model", "input", "Mult-Adds", "parameters")
    click.echo(f"{head}options (default|others)")
    room = min(get_terminal_size().columns, _WIDE) if sys.stdout.isatty() else WIDTH
    narrow = room < _WIDE  # the options go on a line of their own
    indent = " " * (4 if narrow else len(head))
    wrap = TextWrapper(room, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False)
    for name, cost in counted.items():
        size = "x".join(map(str, cost.input_shape))
        columns = _COLUMNS.format(name, size, millions(cost.mult_adds), millions(cost.parameters))
        options = " ".join(map(_values, zoo.options(name).values()))
        if narrow:
            click.echo(columns.rstrip())
        wrap.initial_indent = indent if narrow else columns
        click.echo(wrap.fill(options))


def _values(option: zoo.Option) -> str:
    """`option=default|others`."""
    default = f"{option.default:g}" if option.type is float else str(option.default).lower()
    choices = ("false", "true") if option.type is bool else option.choices
    return f"{option.name}={'|'.join([default, *(value for value in choices if value != default)])}"


def _record(name: str, cost: "Profile") -> dict[str, Any]:
    options = {
        option.name: {"default": option.default, "choices": list(option.choices) or None}
        for option in zoo.options(name).values()
    }
    return {
        "model": name, "options": options, "input_size": list(cost.input_shape), "mult_adds": cost.mult_adds,
        "parameters": cost.parameters,
    }  # fmt: skip


def _markdown() -> list[str]:
    """The table of docs/models.md."""
    from smallcnn.checkpoints.catalogue import CATALOGUE
    from smallcnn.cost.profile import profile
    from smallcnn.papers.models import MODELS

    pulled = [str(zoo.parse(one.model)) for one in CATALOGUE.values()]
    lines = [
        "| model | input | Mult-Adds | parameters | published top-1, % | retrained top-1, % | `import` | `pull` |",
        "|---|---:|---:|---:|---|---|---|---:|",
    ]
    for known in MODELS:
        model = zoo.parse(known.model)
        cost = profile(model.build())
        cells = [
            f"`{model}`", cost.input_shape[0], f"{cost.mult_adds:,}", f"{cost.parameters:,}", known.published or "-",
            "; ".join(map(str, known.retrained)) or "-", ", ".join(_origins(model, cost)) or "-",
            pulled.count(str(model)) or "-",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return lines


def _origins(model: zoo.Configuration, cost: "Profile") -> list[str]:
    """The origins whose files hold this network.

    With the options implied by the layout it costs the same, and the other options are at their defaults.
    """
    from smallcnn.checkpoints.layouts import layouts_of
    from smallcnn.cost.profile import profile

    found: dict[str, None] = {}  # ordered; an origin may have two sets of names
    for layout in layouts_of(model.name):
        form = zoo.Configuration(model.name, model.options | layout.implies)
        implied = {option.name: option.default for option in zoo.options(model.name).values()} | layout.implies
        own = all(form.options[key] == implied[key] for key in implied if key not in _SCALES)
        counted = profile(form.build())
        if own and (counted.mult_adds, counted.parameters) == (cost.mult_adds, cost.parameters):
            found[layout.origin] = None
    return list(found)
