"""`smallcnn init`."""

from pathlib import Path

import click

from smallcnn.cli.options import as_json, common, completed, models
from smallcnn.cli.show import print_json, say


@click.command("init")
@click.argument("model", shell_complete=completed(models))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="model file to write (.safetensors)")
@common
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="seed of the random weights")
@as_json
def command(model: str, out: Path, seed: int, json_: bool, **common: int | None) -> None:
    """Write an untrained MODEL, to bench or compile it before training."""
    from smallcnn.making import init

    made = init(model, out, seed=seed, **common)
    if json_:
        print_json({"file": str(out), "file_bytes": out.stat().st_size, "model": made.graph.name})
    else:
        say(str(out))
