"""Compiled files against ONNX Runtime and OpenVINO: the tables of docs/compiler.md.

    python benchmarks/engines.py --threads 1
    python benchmarks/engines.py --threads 2

Each network gets random weights, is exported to ONNX, compiled, and timed in all three engines in turns: float32, one
image at a time (`smallcnn bench`; docs/bench.md describes the method). Results are kept in the records, so an
interrupted run resumes. For compile times, set SMALLCNN_CACHE to a new folder, so that no kernel is cached.
"""

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from statistics import geometric_mean
from typing import Any

import click

from smallcnn.bench.bench import bench
from smallcnn.cli.show import size
from smallcnn.compiler import targets
from smallcnn.compiler.compiling import compile_file
from smallcnn.model.kinds import read
from smallcnn.system.files import atomic

MODELS = (
    "mobilenet_v1", "mobilenet_v1:width=0.5", "mobilenet_v2", "shufflenet_v1:groups=3", "squeezenet_1_1",
    "effnet_cifar", "xception", "shufflenet_v2", "mobilenet_v3_large",
)  # fmt: skip
ENGINES = ("compiled", "onnxruntime", "openvino")
SUFFIX = targets.host().suffixes[0]


@click.command()
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@click.option("--threads", default=1, show_default=True, help="number of compute threads")
@click.option("--seconds", default=10.0, show_default=True, help="measuring time for each network and engine")
@click.option("--records", default="engines.json", show_default=True, type=click.Path(path_type=Path), help="results")
def main(models: tuple[str, ...], threads: int, seconds: float, records: Path) -> None:
    """Time MODELs, by default those of docs/compiler.md, and print their tables as Markdown."""
    known = json.loads(records.read_text()) if records.exists() else []
    done = {(one["model"], one["threads"]): one for one in known}
    for model in models or MODELS:
        if (model, threads) not in done:
            click.echo(f"{model}, {threads} thread(s)", err=True)
            done[model, threads] = measure(model, threads, seconds)
            with atomic(records) as temporary:
                temporary.write_text(json.dumps(list(done.values()), indent=1))
    shown = [done[model, threads] for model in models or MODELS]
    for table in (speed, first_use, compiling):
        click.echo(f"\n{table(shown)}")
    versions = ", ".join(map(" ".join, shown[0]["versions"].items()))
    click.echo(f"\n{threads} thread(s) of {shown[0]['engines']['compiled']['cpu']}; {versions}")


def measure(model: str, threads: int, seconds: float) -> dict[str, Any]:
    """A record: the row of `smallcnn bench` for each engine, and figures of the compilation."""
    with tempfile.TemporaryDirectory(prefix="smallcnn-", ignore_cleanup_errors=True) as name:
        model_file, onnx, compiled = (Path(name) / f"network{end}" for end in (".safetensors", ".onnx", SUFFIX))
        for command in (("init", model, "--out", model_file), ("export", model_file, "--out", onnx)):
            words = [sys.executable, "-m", "smallcnn", *map(str, command)]
            subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
        start = time.perf_counter()
        made = compile_file(read(onnx), compiled, threads=threads)
        taken = time.perf_counter() - start
        rows = bench([onnx], engines=ENGINES, threads=threads, seconds=seconds)
    return {
        "model": model,
        "threads": threads,
        "engines": {row.engine: asdict(row) for row in rows},
        "kernels": (made.cached, len({call.spec for call in made.plan})),
        "compile_seconds": taken,
        "versions": {package: version(package) for package in ("smallcnn", "halide", *ENGINES[1:])},
    }


def speed(records: list[dict[str, Any]]) -> str:
    """Medians and ranges, and the speed relative to the better of the other two engines."""
    rows = [["network", "Mult-Adds", *(f"{engine}, ms" for engine in ENGINES), "times as fast", "of peak"]]
    for record in records:
        ours, *_ = times = [record["engines"][engine] for engine in ENGINES]
        ranges = [f"{row['median_ms']:.3f} ({row['min_ms']:.3f} - {row['max_ms']:.3f})" for row in times]
        ends = f"{ours['vs_best_peer']:.2f}", f"{ours['share_of_peak']:.0%}"
        rows.append([record["model"], f"{ours['mult_adds'] / 1e6:.1f} M", *ranges, *ends])
    mean = geometric_mean(record["engines"]["compiled"]["vs_best_peer"] for record in records)
    return markdown([*rows, ["geometric mean", "", "", "", "", f"**{mean:.2f}**", ""]])


def first_use(records: list[dict[str, Any]]) -> str:
    """Memory and start-up against ONNX Runtime, each measured in its own process."""
    rows = [["compiled / ONNX Runtime", "added memory", "added private memory", "file", "load + first, ms"]]
    for record in records:
        pair = [record["engines"][engine] for engine in ENGINES[:2]]
        keys = ("added_memory_bytes", "added_private_bytes", "file_bytes")
        sizes = [" / ".join(size(row[key]) for row in pair) for key in keys]
        starts = " / ".join(f"{row['load_ms'] + row['first_ms']:.1f}" for row in pair)
        rows.append([record["model"], *sizes, starts])
    return markdown(rows)


def compiling(records: list[dict[str, Any]]) -> str:
    """Seconds to compile, including the check of the answer."""
    rows = [[one["model"], f"{one['compile_seconds']:.0f}", *map(str, one["kernels"])] for one in records]
    return markdown([["network", "seconds to compile", "kernels in the cache", "kernels in all"], *rows])


def markdown(rows: list[list[str]]) -> str:
    """A Markdown table; the first row is its head."""
    head, *body = (f"| {' | '.join(row)} |" for row in rows)
    return "\n".join([head, f"|{'---|' * len(rows[0])}", *body])


if __name__ == "__main__":
    main()
