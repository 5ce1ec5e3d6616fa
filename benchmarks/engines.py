"""Compiled files against ONNX Runtime and OpenVINO: what the tables of docs/speed.md are made from.

    python benchmarks/engines.py --threads 1
    python benchmarks/engines.py --threads 1 --plan tuned mobilenet_v2
    python benchmarks/engines.py --threads 1 --busy
    python benchmarks/engines.py --threads 1 --models small
    python benchmarks/engines.py --threads 1 --models int8
    python benchmarks/engines.py --threads 1 weights/mobilenet_v2_1.0_224_quant.tflite

Each network gets random weights, is exported to ONNX, compiled, and timed in all engines in turns, one image at a time
(`smallcnn bench`; docs/bench.md describes the method). The turns are blocks of 0.2 s: after the 20 ms in
which it warms up, an engine finds its own weights in the caches, as in a program that runs one network. In turns call
by call each would find those of the others, and at two threads the others' threads still spinning.

An engine that answers wrongly is not timed: without VNNI, OpenVINO adds products of bytes in 16 bits, which overflow.

A quantized TensorFlow Lite file is imported, and LiteRT runs the file itself, on XNNPACK's kernels, where
`ai-edge-litert` is installed; all answer the same before and after.

A network's row in the record of this processor is replaced; `--resume` keeps the rows that this commit has measured.
`python benchmarks/tables.py` then writes the tables. For compile times, set SMALLCNN_CACHE to a new folder.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
import numpy as np

import tables
from litert import LiteRT
from records import Records, Row, load
from smallcnn import runtime
from smallcnn.bench.bench import Candidate, Guest, time_candidates, verified
from smallcnn.checkpoints.importing import import_checkpoint
from smallcnn.compiler import targets
from smallcnn.compiler.compiling import Compiled, compile_file
from smallcnn.errors import SmallcnnError
from smallcnn.making import export as write
from smallcnn.model.kinds import read
from smallcnn.model.store import save
from smallcnn.system.cache import cache_folder
from smallcnn.transform.quantize import quantize

SUFFIX = targets.host().suffixes[0]
KEYS = ("model", "threads", "plan", "busy")
TFLITE = ".tflite"

_DROPPED = (
    "file", "model", "precision", "threads", "vs_best_peer", "mean_vs_best_peer", "vs_float", "verified", "cpu",
    "engine",
)  # fmt: skip
"""Entries of `smallcnn bench` that say nothing in a record, or that its tables compute."""
_BUSY = """
import sys, threading
import numpy as np

def stream():
    while True:
        np.add(numbers, 1, out=numbers)

numbers = np.zeros(1 << 24, np.float32)
threading.Thread(target=stream, daemon=True).start()
print("busy", flush=True)
sys.stdin.read()
"""
"""Reads and writes 64 MB over and over, until its standard input is closed: by us, or because we were killed."""


@click.command()
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@click.option("--models", "chosen", default="nine", show_default=True, type=click.Choice(tables.NAMED))
@click.option("--threads", default=1, show_default=True, help="number of compute threads")
@click.option("--plan", default="default", show_default=True, type=click.Choice(["default", "tuned"]))
@click.option("--busy", is_flag=True, help="a second program keeps the last core and the shared cache busy")
@click.option("--seconds", default=10.0, show_default=True, help="measuring time for each network and engine")
@click.option("--resume", is_flag=True, help="skip what this commit has measured")
@click.option("--record", type=click.Path(path_type=Path), help="default: this processor's in benchmarks/records")
def main(
    models: tuple[str, ...],
    chosen: str,
    threads: int,
    plan: str,
    busy: bool,
    seconds: float,
    resume: bool,
    record: Path | None,
) -> None:
    """Time MODELs, or the networks of `--models`, and print their tables as Markdown."""
    kept = Records("engines", keys=KEYS, path=record)
    os.environ["SMALLCNN_CACHE"] = str(cache_folder() / "benchmarks" / plan)  # the default plan uses what tuning found
    rows: list[Row] = []
    for model in models or tables.NETWORKS[chosen]:
        key = {"model": Path(model).name, "threads": threads, "plan": plan, "busy": busy}
        row = kept.measured_now(**key) if resume else None
        if row is None:
            click.echo(f"{model}, {threads} thread(s), {plan} plan{', busy' * busy}", err=True)
            row = kept.put({**key, **measure(model, threads, plan, busy, seconds)})
        rows.append(row)
    shown = tables.Record(kept.machine, rows)
    click.echo("\n\n".join([tables.about(shown), tables.times(rows), tables.costs(rows)]))


def measure(model: str, threads: int, plan: str, busy: bool, seconds: float) -> Row:
    """The figures of a row: those of `smallcnn bench` for each engine, the compilation's, and the machine's load."""
    with tempfile.TemporaryDirectory(prefix="smallcnn-", ignore_cleanup_errors=True) as name:
        onnx, compiled = Path(name) / "network.onnx", Path(name) / f"network{SUFFIX}"
        export(model, onnx)
        start = time.perf_counter()
        made = compile_model(onnx, compiled, threads, plan)
        taken = time.perf_counter() - start
        ours = [Candidate(compiled, "compiled")]
        peers = {engine: is_right(onnx, engine) for engine in ("onnxruntime", "openvino") if find_spec(engine)}
        ours += [Candidate(onnx, engine) for engine, right in peers.items() if right]
        other = LiteRT(Path(model), threads) if model.endswith(TFLITE) and find_spec("ai_edge_litert") else None
        guests = {"litert": Guest(other.run)} if other else {}
        checker = runtime.open(compiled, threads=1)
        with load() as seen, second_program() if busy else nullcontext():
            if other:
                other.verify(checker)
            timed = time_candidates(ours, threads=threads, seconds=seconds, guests=[*guests.values()])
            if other:
                other.verify(checker)
        del checker  # unloads the file, so that Windows can remove it
    return {
        "mult_adds": timed[0].mult_adds,
        "engines": {row.engine: figures(asdict(row)) for row in timed}
        | {name: spread(one.ms) for name, one in guests.items()},
        "wrong": [engine for engine, right in peers.items() if not right],
        "compile_seconds": taken,
        "kernels": len({call.spec for call in made.plan}),
        "kernels_cached": made.cached,
        "load": seen,
    }


def is_right(onnx: Path, engine: str) -> bool:
    """Whether the engine answers the probe image as it should; otherwise a line says by how much not."""
    try:
        verified(runtime.open(onnx, engine=engine, threads=1))
    except SmallcnnError as error:
        click.echo(f"not timed: {error}", err=True)
        return False
    return True


def compile_model(onnx: Path, out: Path, threads: int, plan: str) -> Compiled:
    """Compiles the network for this machine."""
    return compile_file(read(onnx), out, threads=threads, tune=plan == "tuned")


def export(model: str, out: Path) -> None:
    """Writes the network of this name as ONNX, with random weights; quantized on noise if it is "in int8".

    A TensorFlow Lite file is imported.
    """
    if model.endswith(TFLITE):
        write(import_checkpoint([Path(model)], keep_background=True), out)
        return
    named, _, number = model.partition(" in ")
    spelled, _, resolution = named.partition(" at ")
    made = out.with_suffix(".safetensors")
    smallcnn("init", spelled, *(("--resolution", resolution) if resolution else ()), "--out", made)
    if number:
        whole = read(made)
        noise = np.random.default_rng(0).integers(0, 256, (2, *whole.graph.input_shape), np.uint8)
        save(quantize(whole, noise)[0], made)
    smallcnn("export", made, "--out", out)


def smallcnn(*words: object) -> None:
    """Runs a command."""
    command = [sys.executable, "-m", "smallcnn", *map(str, words)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def spread(ms: list[float]) -> Row:
    """What a record keeps of an engine that is none of ours."""
    low, median, p90, high = np.percentile(ms, (0, 50, 90, 100)).tolist()
    return {"median_ms": median, "min_ms": low, "max_ms": high, "p90_ms": p90, "runs": len(ms)}


def figures(row: dict[str, Any]) -> Row:
    """What a record keeps of an engine's row; `start_ms` is opening and first answer in a fresh process."""
    row["start_ms"] = row.pop("load_ms") + row.pop("first_ms")
    return {name: value for name, value in row.items() if name not in (*_DROPPED, "mult_adds")}


@contextmanager
def second_program() -> Iterator[subprocess.Popen[bytes]]:
    """Another program that streams through 64 MB on the last core, where Linux lets it be chosen."""
    program = subprocess.Popen([sys.executable, "-c", _BUSY], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with program:  # closes its input and waits
        assert program.stdout is not None
        program.stdout.readline()
        if sys.platform == "linux":
            last = {max(os.sched_getaffinity(0))}
            for thread in Path(f"/proc/{program.pid}/task").iterdir():
                os.sched_setaffinity(int(thread.name), last)
        yield program


if __name__ == "__main__":
    main()
