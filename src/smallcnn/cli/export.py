"""`smallcnn export`."""

from pathlib import Path

import click

from smallcnn.cli.show import remark, say, size


@click.command("export")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--to", type=click.Choice(["onnx"]), default="onnx", show_default=True, help="kind of file to write")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="the file to write")
@click.option(
    "--probabilities",
    "--softmax",
    "probabilities",
    is_flag=True,
    help="end in probabilities (softmax, or sigmoid for independent labels) instead of logits",
)
def command(file: Path, to: str, out: Path, probabilities: bool) -> None:  # noqa: ARG001  (one kind so far)
    """Turn FILE (.safetensors) into ONNX: uint8 pictures in, normalisation, labels and preprocessing inside.

    The result is run and compared with the original before it is written.
    """
    from smallcnn import artifact, onnx
    from smallcnn.errors import FileError
    from smallcnn.files import check_writable
    from smallcnn.shipped import located

    if out.suffix != ".onnx":
        raise FileError(f"{out}: an ONNX file's name ends in .onnx")
    file = located(file)
    if file.suffix.lower() != ".safetensors":
        raise FileError(f"{file}: export starts from a .safetensors model file")
    check_writable(out)
    error = onnx.export(artifact.load(file), out, probabilities=probabilities)
    remark(f"{size(out.stat().st_size)}; agrees with the original to {error:.1e} of the largest output")
    say(str(out))
