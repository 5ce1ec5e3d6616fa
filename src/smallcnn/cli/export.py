"""`smallcnn export`."""

from pathlib import Path

import click

from smallcnn.cli import options
from smallcnn.cli.show import print_json, remark, say, size


@click.command("export")
@options.file
@click.option("--to", type=click.Choice(["onnx"]), default="onnx", show_default=True, help="format to write")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="file to write")
@click.option(
    "--probabilities",
    "--softmax",
    "probabilities",
    is_flag=True,
    help="output probabilities (softmax, or sigmoid for independent labels) instead of logits",
)
@options.threshold
@options.overlap
@options.most
@options.as_json
def command(
    file: Path,
    to: str,
    out: Path,
    probabilities: bool,
    threshold: float | None,
    overlap: float | None,
    most: int | None,
    json_: bool,
) -> None:
    """Turn FILE (.safetensors) into ONNX: it takes uint8 images and holds normalisation, labels and preprocessing.

    The result is run and compared with the original before it is written.
    """
    from smallcnn.making import export
    from smallcnn.transform.limits import Limits

    error = export(file, out, probabilities=probabilities, limits=Limits(threshold, overlap, most))
    if json_:
        print_json({"file": str(out), "file_bytes": out.stat().st_size, "to": to, "error": error})
    else:
        remark(f"{size(out.stat().st_size)}; agrees with the original to {error:.1e} of the largest output")
        say(str(out))
