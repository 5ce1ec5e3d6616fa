"""`smallcnn bench`."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from smallcnn.cli.options import as_json
from smallcnn.cli.show import millions, print_json, progress, remark, say, size, table

if TYPE_CHECKING:
    from smallcnn.bench.rows import Row
    from smallcnn.bench.steps import StepTime


@click.command("bench")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE...")
@click.option(
    "--engine", "engines", multiple=True,
    help="engine to time: compiled, onnxruntime, openvino or torch; may be repeated  [default: the file's own]",
)  # fmt: skip
@click.option("--threads", default=1, show_default=True, type=click.IntRange(1), help="number of compute threads")
@click.option("--seconds", default=2.0, show_default=True, help="measuring time for each file and engine")
@click.option("--by-layer", is_flag=True, help="time each step of one compiled file instead")
@as_json
def command(
    files: tuple[Path, ...], engines: tuple[str, ...], threads: int, seconds: float, by_layer: bool, json_: bool
) -> None:
    """Time each FILE in each engine that runs it, one image at a time.

    Every candidate is verified before and after, and the candidates take turns in short blocks. Load time, first
    inference and memory come from a fresh process. `with decoding` goes from a 640 x 480 JPEG in memory to
    probabilities.

    The engine `compiled` runs files written by `smallcnn compile`, and compiles other files for the benchmark.
    """
    if by_layer:
        _by_layer(files, engines, threads, seconds, json_)
        return
    from smallcnn.bench.bench import bench, candidates

    _, impossible = candidates(files, engines)
    if impossible:
        pairs = ", ".join(f"{one.file} in {one.engine}" for one in impossible)
        remark(f"not timed, because the engine does not run such files: {pairs}")
    with progress("timing") as report:
        rows = bench(files, engines=engines, threads=threads, seconds=seconds, report=report)
    if json_:
        print_json([asdict(row) for row in rows])
        return
    names = [
        row.file if len({Path(file).name for file in files}) < len(set(files)) else Path(row.file).name for row in rows
    ]
    compared = any(row.vs_best_peer for row in rows)
    against_float = any(row.vs_float for row in rows)
    table(
        ["file", "engine", "median ms", "min - max", "p90", "Mult-Adds/s", "% of peak", *["vs best peer"] * compared,
         *["vs float"] * against_float],
        [
            [name, row.engine, f"{row.median_ms:.3f}", f"{row.min_ms:.3f} - {row.max_ms:.3f}", f"{row.p90_ms:.3f}",
             f"{row.mult_adds_per_second / 1e9:.1f} G", percent(row.share_of_peak),
             *[_ratio(row.vs_best_peer)] * compared, *[_ratio(row.vs_float)] * against_float]
            for name, row in zip(names, rows, strict=True)
        ],
    )  # fmt: skip
    table(
        ["file", "engine", "with decoding ms", "load ms", "first ms", "added memory", "private memory", "file size"],
        [
            [name, row.engine, f"{row.end_to_end_ms:.2f}", f"{row.load_ms:.1f}", f"{row.first_ms:.1f}",
             size(row.added_memory_bytes), size(row.added_private_bytes), size(row.file_bytes)]
            for name, row in zip(names, rows, strict=True)
        ],
    )  # fmt: skip
    if rows[0].mean_vs_best_peer:
        say(f"compiled against the best peer: {rows[0].mean_vs_best_peer:.3f} times as fast (geometric mean)")
    for name, row in zip(names, rows, strict=True):
        if row.vs_float and row.vs_float < 1:
            say(
                f"{name} in {row.engine}: int8 is slower than float32 on this machine ({row.median_ms:.3f} ms against "
                f"{row.vs_float * row.median_ms:.3f}): use the float file here"
            )
    models = "; ".join(dict.fromkeys(f"{row.model} {millions(row.mult_adds)} Mult-Adds" for row in rows))
    say(f"{models}; {_machine(rows)}; verified; times in ms")


def _ratio(value: float | None) -> str:
    return f"{value:.2f}" if value else "-"


def _machine(rows: "Sequence[Row]") -> str:
    peaks = {row.precision: row.peak_mult_adds_per_second for row in rows}
    known = [f"{peak / 1e9:.1f}{f' ({number})' if len(peaks) > 1 else ''}" for number, peak in peaks.items() if peak]
    measured = f"peak {', '.join(known)} G Mult-Adds/s" if known else "peak not measured: needs the 'compile' extra"
    return f"{rows[0].threads} thread(s); {rows[0].cpu}; {measured}"


def _by_layer(files: tuple[Path, ...], engines: tuple[str, ...], threads: int, seconds: float, json_: bool) -> None:
    from smallcnn.bench.steps import by_layer

    if len(files) > 1 or set(engines) - {"compiled"}:
        raise click.UsageError("--by-layer takes one FILE, and only the engine compiled")
    with progress("timing") as report:
        steps = by_layer(files[0], threads=threads, seconds=seconds, report=report)
    if json_:
        print_json([asdict(step) for step in steps])
    else:
        show_steps(steps, threads)


def show_steps(steps: "Sequence[StepTime]", threads: int) -> None:
    """Prints a table of the steps' times."""
    table(
        ["step", "median ms", "% of time", "Mult-Adds", "GFLOP/s", "% of peak"],
        [
            [step.name, f"{step.median_ms:.4f}", percent(step.share_of_time),
             millions(step.mult_adds) if step.mult_adds else "-",
             f"{2 * step.mult_adds_per_second / 1e9:.1f}" if step.mult_adds else "-", percent(step.share_of_peak)]
            for step in steps
        ],
    )  # fmt: skip
    total = sum(step.median_ms for step in steps)
    say(f"{len(steps)} steps, {total:.3f} ms in total, {threads} thread(s); one Mult-Add is two FLOP")


def percent(share: float | None) -> str:
    """One decimal; a dash if unknown."""
    return "-" if share is None else f"{share:.1%}"
