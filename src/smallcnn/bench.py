"""Honest timing of model files: right first, then fast.

Every candidate (file and engine) is verified on the probe picture before and after it is timed; a wrong one is an
error, not a row. Candidates take turns in short blocks, so that a slow moment of the machine hits them all, with a
pause before each block, because an engine's threads may keep a core busy for tens of milliseconds after a run. Times
are of one picture at a time, input and output in memory; `end_to_end_ms` adds decoding a JPEG photograph, cropping,
scaling and the softmax. Load time, first inference and memory are measured in a fresh process per candidate.
"""

import importlib
import io
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

from smallcnn import runtime
from smallcnn.engines import ENGINES
from smallcnn.errors import SmallcnnError, closest
from smallcnn.probe import TOLERANCE, probe_image
from smallcnn.runtime import Net

_FIRST_WARM_UP, _PAUSE, _WARM_UP, _BLOCK = 0.3, 0.1, 0.02, 0.2  # seconds
_LEAST_RUNS = 20
_PHOTO = (480, 640)
"""Height and width of the photograph that `end_to_end_ms` decodes."""


@dataclass(frozen=True)
class Row:
    """One candidate. Times in milliseconds for one picture, memory in bytes.

    `peak_memory_bytes` is of a whole process that opens the file and classifies one picture, `added_memory_bytes` what
    it takes beyond an interpreter with numpy and the engine imported; None where the system does not tell. `error` is
    the relative error on the probe picture.
    """

    file: str
    model: str
    engine: str
    precision: str
    threads: int
    median_ms: float
    min_ms: float
    max_ms: float
    p90_ms: float
    runs: int
    mult_adds: int
    mult_adds_per_second: float
    end_to_end_ms: float
    load_ms: float
    first_ms: float
    peak_memory_bytes: int | None
    added_memory_bytes: int | None
    file_bytes: int
    verified: bool
    error: float
    cpu: str


def bench(
    files: Sequence[str | Path],
    *,
    engines: Sequence[str] = ("onnxruntime",),
    threads: int = 1,
    seconds: float = 2.0,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> list[Row]:
    """Times every file in every engine, about `seconds` each; `report` is called with per cent done and 100.

    Raises SmallcnnError if a file cannot be opened or an engine gives a wrong answer.
    """
    if seconds <= 0:
        raise SmallcnnError(f"seconds must be above 0, not {seconds}")
    if unknown := [engine for engine in engines if engine not in ENGINES]:
        raise SmallcnnError(f"no engine {unknown[0]!r}; {closest(unknown[0], ENGINES)}")
    cold = [_in_fresh_process(Path(file), engine, threads) for file in files for engine in engines]
    nets = [runtime.open(file, engine=engine, threads=threads) for file in files for engine in engines]
    errors = [_verified(net) for net in nets]
    report(10, 100)
    inputs = [probe_image(net.input_shape) for net in nets]
    inference = [lambda net=net, x=x: net.logits(x) for net, x in zip(nets, inputs, strict=True)]
    photo = _photo()
    whole = [lambda net=net: net.classify([photo]) for net in nets]
    times = _take_turns(inference, seconds, lambda done: report(10 + round(70 * done), 100))
    end_to_end = _take_turns(whole, seconds / 4, lambda done: report(80 + round(20 * done), 100))
    for net in nets:
        _verified(net)
    return [
        _row(net, threads, error, np.array(ms), float(np.median(e2e)), start)
        for net, error, ms, e2e, start in zip(nets, errors, times, end_to_end, cold, strict=True)
    ]


def cpu_name() -> str:
    """The processor as its maker calls it, with the number of cores."""
    name = platform.processor() or platform.machine()
    cpuinfo, board = Path("/proc/cpuinfo"), Path("/proc/device-tree/model")
    if sys.platform == "darwin":
        asked = subprocess.run(
            ["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True, check=False
        )
        name = asked.stdout.strip() or name
    elif cpuinfo.exists():
        models = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        name = models[0] if models else board.read_text().strip("\0\n") if board.exists() else name
    return f"{name}, {os.cpu_count()} cores"


def _verified(net: Net) -> float:
    error = net.verify()
    if error > TOLERANCE:
        raise SmallcnnError(
            f"{net.path}: {net.engine} gives a wrong answer on the probe picture, off by {error:.1e} "
            f"(allowed: {TOLERANCE:.0e}); not timed"
        )
    return error


def _take_turns(
    calls: Sequence[Callable[[], object]], seconds: float, progress: Callable[[float], None]
) -> list[list[float]]:
    """Milliseconds of every run of each call, for `seconds` each: pause, warm-up, a block of runs, and the next."""
    for call in calls:
        _runs(call, _FIRST_WARM_UP)
    times: list[list[float]] = [[] for _ in calls]
    while (done := min(sum(taken) / 1e3 / seconds for taken in times)) < 1 or min(map(len, times)) < _LEAST_RUNS:
        progress(min(done, 1.0))
        for taken, call in zip(times, calls, strict=True):
            time.sleep(_PAUSE)
            _runs(call, _WARM_UP)
            taken.extend(_runs(call, min(_BLOCK, seconds)))
    progress(1.0)
    return times


def _runs(call: Callable[[], object], seconds: float) -> list[float]:
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while not taken or time.perf_counter() < end:
        before = time.perf_counter_ns()
        call()
        taken.append((time.perf_counter_ns() - before) / 1e6)
    return taken


def _photo() -> bytes:
    """A JPEG with smooth areas and some noise, like a photograph: the same on every machine."""
    height, width = _PHOTO
    smooth = Image.fromarray(probe_image((15, 20, 3))[0]).resize((width, height), Image.Resampling.BICUBIC)
    noisy = np.asarray(smooth, np.int16) + probe_image((height, width, 3))[0] // 16
    file = io.BytesIO()
    Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
    return file.getvalue()


@dataclass(frozen=True)
class _Cold:
    """A first use in a fresh process; imports are not counted."""

    load_ms: float
    first_ms: float
    peak_memory_bytes: int | None
    added_memory_bytes: int | None


_USERS_MISTAKE = 2


def _in_fresh_process(file: Path, engine: str, threads: int) -> _Cold:
    code = "import sys; from smallcnn.bench import _cold_start; _cold_start(*sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, str(file), engine, str(threads)], capture_output=True, text=True, check=False
    )
    if done.returncode == _USERS_MISTAKE:
        raise SmallcnnError(done.stderr.strip())
    if done.returncode:
        raise RuntimeError(f"the process that measures {file} in {engine} died:\n{done.stderr}")
    return _Cold(**json.loads(done.stdout.splitlines()[-1]))


def _cold_start(file: str, engine: str, threads: str) -> None:
    """Runs in the fresh process: prints one line of JSON, or what the user has to mend on stderr."""
    try:
        if find_spec(engine):  # if not, opening the file says what to install
            importlib.import_module(engine)
        if file.endswith(".safetensors") and engine != "torch":
            importlib.import_module("smallcnn.onnx")  # turns it into ONNX
        before = _peak_memory()
        start = time.perf_counter()
        net = runtime.open(file, engine=engine, threads=int(threads))
        loaded = time.perf_counter()
        net.logits(probe_image(net.input_shape))
        done = time.perf_counter()
    except SmallcnnError as error:
        print(error, file=sys.stderr)
        sys.exit(_USERS_MISTAKE)
    after = _peak_memory()
    added = None if after is None or before is None else after - before
    print(json.dumps({
        "load_ms": (loaded - start) * 1e3, "first_ms": (done - loaded) * 1e3,
        "peak_memory_bytes": after, "added_memory_bytes": added,
    }))  # fmt: skip


def _peak_memory() -> int | None:
    """Most memory this process has held. From /proc on Linux: getrusage there includes what the parent held."""
    status = Path("/proc/self/status")
    if status.exists():
        lines = [line for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
        return int(lines[0].split()[1]) * 1024 if lines else None
    try:
        import resource
    except ImportError:
        return None
    peak: int = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _row(net: Net, threads: int, error: float, ms: np.ndarray, end_to_end: float, cold: _Cold) -> Row:
    median = float(np.median(ms))
    return Row(
        file=str(net.path),
        model=net.name,
        engine=net.engine,
        precision="float32",
        threads=threads,
        median_ms=median,
        min_ms=float(ms.min()),
        max_ms=float(ms.max()),
        p90_ms=float(np.percentile(ms, 90)),
        runs=len(ms),
        mult_adds=net.mult_adds,
        mult_adds_per_second=net.mult_adds / (median / 1e3),
        end_to_end_ms=end_to_end,
        load_ms=cold.load_ms,
        first_ms=cold.first_ms,
        peak_memory_bytes=cold.peak_memory_bytes,
        added_memory_bytes=cold.added_memory_bytes,
        file_bytes=net.path.stat().st_size,
        verified=True,
        error=error,
        cpu=cpu_name(),
    )
