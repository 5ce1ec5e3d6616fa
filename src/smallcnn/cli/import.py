"""`smallcnn import`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from smallcnn.cli import options
from smallcnn.cli.show import print_json, remark, remark_ending, say, size
from smallcnn.errors import SmallcnnError

if TYPE_CHECKING:
    from smallcnn.image.fit import Fit, Order


@click.command("import")
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=click.Path(path_type=Path))
@click.option(
    "--as",
    "model",
    metavar="MODEL",
    help="network of the weights, such as mobilenet_v2:width=0.5  [default: the one that fits]",
)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="model file to write (.safetensors)")
@click.option("--origin", help="origin of the tensor names, where the names do not tell; or order, to match by order")
@click.option("--fresh-head", is_flag=True, help="initialise the last layers if the file lacks them")
@click.option("--keep-background", is_flag=True, help="keep TensorFlow's class 0, 'background', as a class")
@click.option(
    "--labels",
    type=click.Path(path_type=Path),
    help="text file with one class per line  [default: the file's, or ImageNet's classes]",
)
@click.option("--float", "float_", is_flag=True, help="turn a quantized ONNX or TensorFlow Lite file into floats")
@options.resolution
@options.fit
@click.option("--crop", type=click.FloatRange(0, 1, min_open=True), help="share of the shorter side to keep")
@click.option(
    "--interpolation", type=click.Choice(["bilinear", "bicubic", "lanczos"]), help="interpolation for resizing images"
)
@options.mean
@options.std
@options.scale
@options.order
@options.as_json
def command(
    files: tuple[Path, ...],
    model: str | None,
    out: Path,
    origin: str | None,
    fresh_head: bool,
    keep_background: bool,
    labels: Path | None,
    float_: bool,
    resolution: tuple[int, int] | None,
    fit: "Fit | None",
    crop: float | None,
    interpolation: str | None,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    scale: tuple[float, ...] | None,
    order: "Order | None",
    json_: bool,
) -> None:
    """Turn public weights into a model file that classifies.

    FILE is a PyTorch checkpoint, a .safetensors file, or an ONNX, TensorFlow Lite or Keras file. Its format is
    recognised by its content, not its name. Nothing in it is executed.

    ONNX, TensorFlow Lite and Keras files contain their network. Weights alone need --as if names and shapes do not
    identify the network; every tensor must fit MODEL. With --as, several .tflite files are parts of one network, in
    order.

    Labels and preprocessing come from the file or its origin unless given. Assumptions are printed; --mean, --std and
    --scale override them. Give their values in the order of the network's channels: blue first with --order bgr.
    """
    from smallcnn.checkpoints.importing import import_checkpoint
    from smallcnn.image.overrides import Overrides, described
    from smallcnn.model import store
    from smallcnn.onnx.read.preparation import remarks
    from smallcnn.system.files import check_writable

    if out.suffix.lower() != ".safetensors":
        raise SmallcnnError(f"{out}: a model file's name ends in .safetensors")
    if any(out.resolve() == file.resolve() for file in files):
        raise SmallcnnError(f"{out}: is the file to import; give --out another name")
    for file in files:
        if file.name.lower().endswith(".onnx.data"):
            raise SmallcnnError(f"{file}: holds the weights of {file.with_suffix('').name}; give that file")
    check_writable(out)
    overrides = Overrides(resolution, mean, std, crop, interpolation, scale, order, fit)
    made = import_checkpoint(
        files, model, origin=origin, fresh_head=fresh_head, keep_background=keep_background,
        labels=None if labels is None else _lines(labels), overrides=overrides, integer=not float_,
    )  # fmt: skip
    store.check_finite(made, ", ".join(map(str, files)))
    store.save(made, out)
    imported, task = made.facts.imported or {}, made.task
    height, width, _ = made.graph.input_shape
    remark(
        f"{made.graph.name} from {imported['origin']}: {len(made.graph.weights)} tensors, {len(made.labels)} classes, "
        f"input {height}x{width}; {size(out.stat().st_size)}"
    )
    for note in (*imported.get("notes", ()), *remarks(made.facts)):
        remark(note)
    if overrides.says_numbers and made.facts.onnx is None:
        remark(f"preprocessing as given: {described(made.preprocessing)}")
    remark_ending(made)
    if imported["fresh"]:
        remark(
            f"untrained: {', '.join(imported['fresh'])}; train it with: smallcnn train --from {out} --data SOURCE ..."
        )
    if json_:
        print_json({
            "file": str(out), "file_bytes": out.stat().st_size, "model": made.graph.name, "classes": len(made.labels),
            "input_size": list(made.graph.input_shape), "ending": getattr(task, "ending", None),
            "origin": imported["origin"], "untrained": imported["fresh"],
            "notes": [*imported.get("notes", ()), *remarks(made.facts)],
        })  # fmt: skip
    else:
        say(str(out))


def _lines(path: Path) -> list[str]:
    try:
        lines = path.read_text("utf-8-sig").rstrip().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SmallcnnError(f"{path}: cannot be read ({error})") from error
    if any("\t" in line for line in lines):
        raise SmallcnnError(f"{path}: has columns; give one class name per line, in the order of the outputs")
    return lines
