"""`smallcnn import`."""

from pathlib import Path

import click

from smallcnn.cli.show import remark, size
from smallcnn.errors import SmallcnnError


def _three(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[float, ...] | None:  # noqa: ARG001
    """ "0.485,0.456,0.406" or one number for all channels."""
    if value is None:
        return None
    try:
        return tuple(float(part) for part in value.split(","))
    except ValueError:
        raise click.BadParameter(f"numbers with commas, as in 0.485,0.456,0.406, not {value!r}") from None


@click.command("import")
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=click.Path(path_type=Path))
@click.option(
    "--as", "model", metavar="MODEL", help="its network, as mobilenet_v2:width=0.5  [default: the one that fits]"
)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="the .safetensors model file to write")
@click.option("--origin", help="whose names the file has, where they do not tell; or: order")
@click.option("--fresh-head", is_flag=True, help="let the layers at the end that the file lacks start anew")
@click.option("--keep-background", is_flag=True, help="keep TensorFlow's class 0, 'background', as a class")
@click.option("--labels", type=click.Path(path_type=Path), help="text file, one class per line  [default: ImageNet's]")
@click.option("--resolution", type=click.IntRange(1), help="side of the input  [default: the network's]")
@click.option("--crop", type=click.FloatRange(0, 1, min_open=True), help="part of the shorter side that is kept")
@click.option("--interpolation", type=click.Choice(["bilinear", "bicubic", "lanczos"]), help="how pictures are resized")
@click.option("--mean", callback=_three, metavar="R,G,B", help="of pixels scaled to 0..1")
@click.option("--std", callback=_three, metavar="R,G,B", help="of pixels scaled to 0..1")
def command(
    files: tuple[Path, ...],
    model: str | None,
    out: Path,
    origin: str | None,
    fresh_head: bool,
    keep_background: bool,
    labels: Path | None,
    resolution: int | None,
    crop: float | None,
    interpolation: str | None,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
) -> None:
    """Turn public weights into a model file that classifies.

    FILE is a PyTorch checkpoint (also .safetensors), a TensorFlow Lite file (float or integer; several are parts of
    one network, in order) or Keras weights (.h5, .npz). Its content says which, whatever its name. Nothing in it is
    executed. Every tensor must fit MODEL. Labels and image preparation are the origin's unless given.

    An ONNX file holds its network itself, and takes no --as. It does not say how pictures are prepared: ImageNet's
    mean and deviation unless given.
    """
    from smallcnn import artifact
    from smallcnn.checkpoints.importing import Prepared, import_checkpoint, import_onnx
    from smallcnn.checkpoints.kinds import kind_of
    from smallcnn.files import check_writable

    if out.suffix != ".safetensors":
        raise SmallcnnError(f"{out}: a model file's name ends in .safetensors")
    if any(out.resolve() == file.resolve() for file in files):
        raise SmallcnnError(f"{out}: is the file to import; give --out another name")
    check_writable(out)
    prepared, named = Prepared(resolution, mean, std, crop, interpolation), None if labels is None else _lines(labels)
    if {kind_of(file) for file in files} == {"onnx"}:
        if model or origin or fresh_head or len(files) > 1:
            raise SmallcnnError(
                "an .onnx file is a whole network: no --as, --origin or --fresh-head, and no second file"
            )
        made = import_onnx(files[0], keep_background=keep_background, labels=named, prepared=prepared)
    else:
        made = import_checkpoint(
            files, model, origin=origin, fresh_head=fresh_head, keep_background=keep_background, labels=named,
            prepared=prepared,
        )  # fmt: skip
    artifact.save(made, out)
    imported = made.facts["imported"]
    height, width, _ = made.graph.input_shape
    remark(
        f"{made.graph.name} from {imported['origin']}: {len(made.graph.weights)} tensors, {len(made.labels)} classes, "
        f"input {height}x{width}; {size(out.stat().st_size)}"
    )
    for note in imported.get("notes", ()):
        remark(note)
    if "onnx" in made.facts and made.facts["onnx"]["pictures"] == "assumed" and mean is None and std is None:
        remark(
            f"its pictures are assumed to be prepared with mean {_numbers(made.preprocessing.mean)} and deviation "
            f"{_numbers(made.preprocessing.std)}, which the file does not say; --mean and --std change that"
        )
    if imported["fresh"]:
        remark(
            f"untrained: {', '.join(imported['fresh'])}; train it with: smallcnn train --from {out} --data SOURCE ..."
        )
    click.echo(str(out))


def _numbers(values: tuple[float, ...]) -> str:
    return ",".join(f"{value:g}" for value in values)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text("utf-8-sig").rstrip().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SmallcnnError(f"{path}: cannot be read ({error})") from error
