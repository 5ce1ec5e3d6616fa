"""`smallcnn init`."""

from pathlib import Path

import click

from smallcnn import zoo


@click.command("init")
@click.argument("model")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="the .safetensors to write")
@click.option("--resolution", default=224, show_default=True, help="side of the input, pixels")
@click.option("--classes", default=1000, show_default=True, help="number of classes")
@click.option("--channels", default=3, show_default=True, help="channels of the input: 3, or 1 for grey")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="of the random weights")
def command(model: str, out: Path, resolution: int, classes: int, channels: int, seed: int) -> None:
    """Write an untrained MODEL, to bench or compile it before training."""
    from smallcnn.artifact import Artifact, save
    from smallcnn.data.preprocessing import Preprocessing
    from smallcnn.weights import initial_weights

    graph = zoo.parse(model).build(resolution=resolution, classes=classes, channels=channels)
    labels = tuple(f"class {i}" for i in range(classes))
    preprocessing = Preprocessing((resolution, resolution), (0.5,) * channels, (0.5,) * channels)
    facts = {"model": graph.name, "trained": False, "seed": seed}
    save(Artifact(graph, initial_weights(graph, seed), labels, preprocessing, facts), out)
    click.echo(str(out))
