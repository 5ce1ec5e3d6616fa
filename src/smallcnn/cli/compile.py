"""`smallcnn compile`."""

import re
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from smallcnn.cli import options
from smallcnn.cli.bench import show_steps
from smallcnn.cli.options import as_json, completed
from smallcnn.cli.show import millions, print_json, progress, remark, remark_ending, say, size, table, warn_untrained
from smallcnn.compiler import targets
from smallcnn.model.tuning import SECONDS

if TYPE_CHECKING:
    from smallcnn.compiler.explain import Explanation
    from smallcnn.image.fit import Order
    from smallcnn.model.tuning import Tuning


_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)
_EPILOG = f"""Targets: host, {", ".join(targets.names())}.

Other names for them: {", ".join(targets.ALIASES)}."""


class _Command(click.Command):
    """A command whose --tune may stand without a number, even in front of FILE."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Puts the default budget where --tune has none."""
        pairs = zip(args, [*args, ""][1:], strict=True)
        alone = [word == "--tune" and not _NUMBER.fullmatch(following) for word, following in pairs]
        return super().parse_args(
            ctx, [f"--tune={SECONDS:g}" if one else word for word, one in zip(args, alone, strict=True)]
        )


@click.command("compile", cls=_Command, epilog=_EPILOG)
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="file to write: .so, .dll, .wasm or .o")
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
    "--compact",
    is_flag=True,
    help="keep the weights of 3x3 convolutions as they are; the fastest kernels hold up to four times as many",
)
@click.option(
    "--tune",
    type=click.FloatRange(0, min_open=True),
    metavar="[SECONDS]",
    help=f"time forms of the kernels on this machine and keep the fastest, for {SECONDS:g} seconds or those given; "
    "remembered, so that running it again continues",
)
@click.option(
    "--calibrate", is_flag=True, help="measure this processor again; without FILE, print what was measured and stop"
)
@click.option("--explain", "explain_", is_flag=True, help="print the plan, and the time of each step if it runs here")
@click.option("--workers", type=click.IntRange(1), help="number of compiler processes  [default: one per usable core]")
@options.resolution
@options.mean
@options.std
@options.scale
@options.order
@options.threshold
@options.overlap
@options.most
@as_json
def command(
    file: Path | None,
    out: Path | None,
    target: str,
    prefix: str | None,
    threads: int,
    compact: bool,
    tune: float | None,
    calibrate: bool,
    explain_: bool,
    workers: int | None,
    resolution: tuple[int, int] | None,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    scale: tuple[float, ...] | None,
    order: "Order | None",
    threshold: float | None,
    overlap: float | None,
    most: int | None,
    json_: bool,
) -> None:
    """Turn FILE (.safetensors, or any small CNN's .onnx) into one native file without dependencies.

    A .so or .dll for this machine is run and compared with the network's plain definition before it is kept; predict,
    evaluate and bench take it like any model file. A .o comes with its C header.

    --resolution, --mean, --std, --scale and --order apply to an .onnx file from another program, as in import.
    """
    if calibrate and file is None and out is None:
        _calibrate(targets.parse(target), json_)
        return
    if file is None:
        raise click.MissingParameter(param_type="argument", param_hint="FILE")
    if out is None:
        raise click.MissingParameter(param_type="option", param_hint="--out")
    from smallcnn.compiler.compiling import compile_file
    from smallcnn.compiler.explain import explain
    from smallcnn.image.overrides import Overrides
    from smallcnn.model.kinds import read
    from smallcnn.onnx.read.preparation import remarks
    from smallcnn.transform.limits import Limits, limited

    said = Overrides(resolution, mean, std, scale=scale, order=order)
    model = read(file, None if said == Overrides() else said).in_rgb()
    model = replace(model, graph=limited(model.graph, Limits(threshold, overlap, most)))
    for line in remarks(model.facts) if file.suffix.lower() == ".onnx" else []:
        remark(line)
    warn_untrained(model.facts)
    remark_ending(model)
    budget = tune or 0.0
    with progress("compiling") as bar:
        made = compile_file(
            model,
            out,
            target=target,
            prefix=prefix,
            threads=threads,
            compact=compact,
            tune=budget,
            calibrate=calibrate,
            workers=workers,
            report=bar,
            measuring=_announced("measuring this processor" if calibrate else "measuring this processor, once", bar),
            tell=lambda spent, gain: bar(spent, budget, f"tuning {_clock(spent)}/{_clock(budget)}, {gain:.0%} faster"),
        )
    if made.tuning:
        remark(_tuned(made.tuning, made.complete))
    plan = explain(model.graph, made.plan, made.program, made.cached, made.model)
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
        tuning = made.tuning.to_json() if made.tuning else None
        print_json(
            {
                "file": str(out),
                "file_bytes": bytes_,
                "error": made.error,
                **asdict(plan),
                "times": times,
                "tuning": tuning,
            }
        )
        return
    if explain_:
        _show(plan)
        if steps:
            show_steps(steps, threads=1)
    say(str(out))


def _announced(line: str, bar: Callable[[int, int], None]) -> Callable[[int, int], None]:
    """Moves the bar; prints the line the first time."""
    said: list[str] = []

    def report(done: int, total: int) -> None:
        if not said:
            remark(line)
            said.append(line)
        bar(done, total)

    return report


def _calibrate(target: targets.Target, json_: bool) -> None:
    from smallcnn.compiler.calibrate import of_host

    with progress("measuring this processor") as bar:
        model = of_host(target, again=True, report=bar)
    if json_:
        print_json(model.to_json())
        return
    say(f"{model.name} ({model.origin})")
    figures = [(name, value) for name, value in model.to_json().items() if name not in ("name", "origin")]
    table(["figure", "value"], [[name, f"{value:,.4g}" if value < 1e4 else f"{value:,.0f}"] for name, value in figures])


def _tuned(tuning: "Tuning", complete: bool) -> str:
    """What was tuned, when, and what it gained."""
    kernels = f"{len(tuning.kernels)} of {tuning.of} kernels tuned"
    gain = f"{tuning.gain:.0%} faster on {tuning.threads} thread(s)"
    if tuning.seconds is None:
        return f"{kernels} on this processor before: {gain}"
    rest = "no form is left to try" if complete else "--tune again continues"
    return f"{kernels}, {tuning.forms} of {tuning.space} forms timed: {gain}; {rest}"


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


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
    say(f"planned for {plan.machine} ({plan.machine_origin})")
    say("tile: pixels x vectors of sums in registers; rows: rows finished together; parts: units of work for threads")
    say(
        f"arena {size(plan.arena_bytes)}, scratch {size(plan.scratch_bytes_per_thread)} per thread, "
        f"weights {size(plan.weight_bytes)}; {plan.kernels} kernels, {plan.cached} from the cache"
    )
