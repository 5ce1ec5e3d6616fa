"""`smallcnn init`."""

from pathlib import Path

import click

from smallcnn import zoo
from smallcnn.cli.options import common, given
from smallcnn.cli.show import say


@click.command("init")
@click.argument("model")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="the .safetensors to write")
@common
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="of the random weights")
def command(model: str, out: Path, seed: int, **chosen: int | None) -> None:
    """Write an untrained MODEL, to bench or compile it before training."""
    from smallcnn.artifact import Artifact, save
    from smallcnn.data.preprocessing import Preprocessing
    from smallcnn.weights import initial_weights

    graph = zoo.parse(model).build(**given(chosen))
    labels = tuple(f"class {i}" for i in range(graph.output_shape[0]))
    height, width, channels = graph.input_shape
    preprocessing = Preprocessing((height, width), (0.5,) * channels, (0.5,) * channels)
    facts = {"model": graph.name, "trained": False, "seed": seed}
    save(Artifact(graph, initial_weights(graph, seed), labels, preprocessing, facts), out)
    say(str(out))
