"""`smallcnn compile`."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from smallcnn.cli import options
from smallcnn.cli.bench import show_steps
from smallcnn.cli.options import as_json, completed
from smallcnn.cli.show import millions, print_json, progress, remark, remark_ending, say, size, table, warn_untrained
from smallcnn.compiler import targets

if TYPE_CHECKING:
    from smallcnn.compiler.explain import Explanation
    from smallcnn.image.fit import Order


_EPILOG = f"""Targets: host, {", ".join(targets.names())}.

Other names for them: {", ".join(targets.ALIASES)}."""


@click.command("compile", epilog=_EPILOG)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="file to write: .so, .dll, .wasm or .o")
@click.option(
    "--target",
    default="host",
    shell_complete=completed(lambda: ("host", *targets.ALIASES, *targets.names())),
    show_default=True,
    help="machine to compile for: host (this one) or a target listed below",
)
@click.option("--prefix", help="prefix of every name in a .o and its header  [default: the stem of --out]")
@click.option("--threads", default=2, show_default=True, type=click.IntRange(1), help="number of threads to plan for")
@click.option(
    "--tune", is_flag=True, help="choose tiles by timing them on this machine; takes minutes, remembered per CPU"
)
@click.option("--explain", "explain_", is_flag=True, help="print the plan, and the time of each step if it runs here")
@click.option("--workers", type=click.IntRange(1), help="number of compiler processes  [default: one per core]")
@options.resolution
@options.mean
@options.std
@options.scale
@options.order
@as_json
def command(
    file: Path,
    out: Path,
    target: str,
    prefix: str | None,
    threads: int,
    tune: bool,
    explain_: bool,
    workers: int | None,
    resolution: tuple[int, int] | None,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    scale: tuple[float, ...] | None,
    order: "Order | None",
    json_: bool,
) -> None:
    """Turn FILE (.safetensors, or any small CNN's .onnx) into one native file without dependencies.

    A .so or .dll for this machine is run and compared with the network's plain definition before it is kept; predict,
    evaluate and bench take it like any model file. A .o comes with its C header.

    --resolution, --mean, --std, --scale and --order apply to an .onnx file from another program, as in import.
    """
    from smallcnn.compiler.explain import explain
    from smallcnn.image.overrides import Overrides
    from smallcnn.making import compile as make
    from smallcnn.model.kinds import read
    from smallcnn.onnx.read.preparation import remarks

    said = Overrides(resolution, mean, std, scale=scale, order=order)
    artifact = read(file, None if said == Overrides() else said).in_rgb()
    for line in remarks(artifact.facts) if file.suffix.lower() == ".onnx" else []:
        remark(line)
    warn_untrained(artifact.facts)
    remark_ending(artifact)
    first: dict[int, int] = {}  # number of kernels asked for -> number found in the cache
    with progress("tuning and compiling" if tune else "compiling") as bar:

        def report(done: int, total: int) -> None:
            first.setdefault(total, done)
            bar(done, total)

        made = make(
            artifact, out, target=target, prefix=prefix, threads=threads, tune=tune, workers=workers, report=report
        )
    plan = explain(artifact.graph, made.plan, made.program, first)
    bytes_ = out.stat().st_size
    checked = "not run: link it into a program" if out.suffix.lower() == ".o" else "not run: made for another machine"
    if made.error is not None:
        checked = f"off by {made.error:.1e} of its largest output"
    header = f"; C header {out.with_suffix('.h')}" if out.suffix.lower() == ".o" else ""
    remark(f"{size(bytes_)} for {made.program.target}; {checked}{header}")
    steps = []
    if (explain_ or json_) and made.error is not None:
        from smallcnn.bench.steps import by_layer

        with progress("timing") as bar:
            steps = by_layer(out, seconds=1.0, report=bar)
    if json_:
        times = [asdict(step) for step in steps]
        print_json({"file": str(out), "file_bytes": bytes_, "error": made.error, **asdict(plan), "times": times})
        return
    if explain_:
        _show(plan)
        if steps:
            show_steps(steps, threads=1)
    say(str(out))


def _show(plan: "Explanation") -> None:
    table(
        ["step", "kernel", "tile", "rows", "parts", "Mult-Adds", "scratch"],
        [
            [step.name, step.kernel, ", ".join(f"{pixels} x {vectors}" for pixels, vectors in step.tiles) or "-",
             str(step.rows or "-"), str(step.parts), millions(step.mult_adds) if step.mult_adds else "-",
             size(step.scratch_bytes) if step.scratch_bytes else "-"]
            for step in plan.steps
        ],
    )  # fmt: skip
    say("tile: pixels x vectors of sums in registers; rows: rows finished together; parts: units of work for threads")
    say(
        f"arena {size(plan.arena_bytes)}, scratch {size(plan.scratch_bytes_per_thread)} per thread, "
        f"weights {size(plan.weight_bytes)}; {plan.kernels} kernels, {plan.cached} from the cache"
    )
