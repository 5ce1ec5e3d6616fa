"""`smallcnn list`."""

from typing import Any

import click

from smallcnn import zoo
from smallcnn.cli.show import as_json, millions, print_json, table


@click.command("list")
@as_json
def command(json_: bool) -> None:
    """The networks, what each costs at its default options, and the options.

    Give options after a colon: mobilenet_v1:width=0.5,variant=shallow.
    """
    from smallcnn.cost import profile

    rows: list[dict[str, Any]] = []
    for name in zoo.names():
        counted = profile(zoo.parse(name).build())
        options = {
            option.name: {"default": option.default, "choices": list(option.choices) or None}
            for option in zoo.options(name).values()
        }
        rows.append({
            "model": name, "options": options, "input_size": list(counted.input_shape),
            "mult_adds": counted.mult_adds, "parameters": counted.parameters,
        })  # fmt: skip
    if json_:
        print_json(rows)
        return
    table(
        ["model", "input", "Mult-Adds", "parameters", "options (default)"],
        [
            [
                row["model"], "x".join(map(str, row["input_size"])), millions(row["mult_adds"]),
                millions(row["parameters"]), ", ".join(f"{key} ({o['default']})" for key, o in row["options"].items()),
            ]
            for row in rows
        ],
    )  # fmt: skip
