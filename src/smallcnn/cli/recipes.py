"""`smallcnn recipes`."""

from dataclasses import asdict, fields

import click

from smallcnn.cli.options import as_json, completed
from smallcnn.cli.show import print_json, remark, table
from smallcnn.train.recipe import Recipe
from smallcnn.train.recipes import NAMED, named


@click.command("recipes")
@click.argument("name", required=False, shell_complete=completed(lambda: NAMED))
@as_json
def command(name: str | None, json_: bool) -> None:
    """List the recipes for `smallcnn train MODEL --recipe NAME`. With NAME, show every setting of that recipe."""
    if json_:
        chosen = {name: NAMED[name]} if name and named(name) else NAMED
        print_json({key: asdict(entry) for key, entry in chosen.items()})
    elif name:
        recipe, plain = named(name), Recipe()
        entry = NAMED[name]
        remark(f"{entry.purpose}; {entry.source}")
        rows = []
        for field in fields(Recipe):
            value, usual = getattr(recipe, field.name), getattr(plain, field.name)
            rows.append([field.name, "" if value is None else str(value), "" if value == usual else "*"])
        table(["setting", name, "differs"], rows)
    else:
        table(
            ["recipe", "for", "epochs", "optimizer", "reached"],
            [
                [key, entry.purpose, str(entry.recipe.epochs), entry.recipe.optimizer, entry.reached]
                for key, entry in NAMED.items()
            ],
        )
