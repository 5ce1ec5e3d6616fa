"""`smallcnn compile`."""

from pathlib import Path

import click

from smallcnn.cli.show import progress, remark, size


@click.command("compile")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="the file to write: .so, .dll, .wasm, .o")
@click.option("--target", default="host", show_default=True, help="host, x86-64-linux, arm-64-linux, wasm, ...")
@click.option("--explain", is_flag=True, help="print the plan: what is fused, tiles, memory, and times on this machine")
@click.option("--workers", type=click.IntRange(1), help="processes that compile  [default: one per core]")
def command(file: Path, out: Path, target: str, explain: bool, workers: int | None) -> None:
    """Turn FILE (.safetensors or .onnx) into one native file without dependencies.

    A file for this machine is run and compared with the network's plain definition before it is kept.
    """
    from smallcnn.compiler.compiling import compile_file
    from smallcnn.compiler.explain import show
    from smallcnn.model_file import read

    artifact = read(file)
    with progress("compiling") as report:
        made = compile_file(artifact, out, target=target, workers=workers, report=report)
    if explain:
        show(made, out)
    checked = "not run: made for another machine" if made.error is None else f"off by {made.error:.1e} of its largest output"
    remark(f"{size(out.stat().st_size)} for {made.program.target}; {checked}")
    click.echo(str(out))
