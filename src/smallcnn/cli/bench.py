"""`smallcnn bench`."""

from dataclasses import asdict
from pathlib import Path

import click

from smallcnn.cli.show import as_json, millions, print_json, progress, size, table


@click.command("bench")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE...")
@click.option("--engine", "engines", multiple=True, help="repeat for several  [default: onnxruntime]")
@click.option("--threads", default=1, show_default=True, type=click.IntRange(1), help="threads that compute")
@click.option("--seconds", default=2.0, show_default=True, help="measuring time for each file and engine")
@as_json
def command(files: tuple[Path, ...], engines: tuple[str, ...], threads: int, seconds: float, json_: bool) -> None:
    """Time each FILE in each engine, one picture at a time.

    Every candidate is verified before and after; they take turns in short blocks; load time, first inference and memory
    come from a fresh process. `with decoding` starts from a 640 x 480 JPEG in memory and ends with probabilities.
    """
    from smallcnn.bench import bench

    with progress("timing") as report:
        rows = bench(files, engines=engines or ("onnxruntime",), threads=threads, seconds=seconds, report=report)
    if json_:
        print_json([asdict(row) for row in rows])
        return
    names = [
        row.file if len({Path(file).name for file in files}) < len(set(files)) else Path(row.file).name for row in rows
    ]
    table(
        ["file", "engine", "median ms", "min - max", "p90", "Mult-Adds/s"],
        [
            [name, row.engine, f"{row.median_ms:.3f}", f"{row.min_ms:.3f} - {row.max_ms:.3f}", f"{row.p90_ms:.3f}",
             f"{row.mult_adds_per_second / 1e9:.1f} G"]
            for name, row in zip(names, rows, strict=True)
        ],
    )  # fmt: skip
    table(
        ["file", "engine", "with decoding ms", "load ms", "first ms", "memory added", "file size"],
        [
            [name, row.engine, f"{row.end_to_end_ms:.2f}", f"{row.load_ms:.0f}", f"{row.first_ms:.1f}",
             size(row.added_memory_bytes), size(row.file_bytes)]
            for name, row in zip(names, rows, strict=True)
        ],
    )  # fmt: skip
    models = "; ".join(dict.fromkeys(f"{row.model} {millions(row.mult_adds)} Mult-Adds" for row in rows))
    click.echo(f"{models}; {rows[0].threads} thread(s); {rows[0].cpu}; verified; times in ms")
