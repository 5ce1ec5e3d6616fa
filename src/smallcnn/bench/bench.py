"""Timing of model files: verified first, then timed.

Every candidate (file and engine) is verified on the probe image before and after timing; a wrong one is an error, not a
row. Candidates take turns in short blocks, so that a slow moment of the machine affects all of them. A pause precedes
each block, because an engine's threads may keep a core busy for tens of milliseconds after a run.

Times are for one image at a time, with input and output in memory. `end_to_end_ms` adds decoding a JPEG photograph,
cropping, scaling and the softmax. The machine's peak (`bench.peak`) is measured in the same turns if Halide is
installed. Load time, first inference and memory come from a fresh process per candidate (`first_use`).
"""

import io
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from smallcnn import runtime
from smallcnn.bench.first_use import FirstUse, first_use
from smallcnn.bench.rows import Row, compared
from smallcnn.engines.engine import check_engine, choose
from smallcnn.errors import SmallcnnError
from smallcnn.model.kinds import COMPILED, KINDS, check_kind
from smallcnn.model.probe import probe_image
from smallcnn.model.shipped import located
from smallcnn.runtime import Net
from smallcnn.system.cpu import cpu_name

if TYPE_CHECKING:
    from smallcnn.bench.peak import Meter

_FIRST_WARM_UP, _PAUSE, _WARM_UP, _BLOCK = 0.3, 0.1, 0.02, 0.2  # seconds
_LEAST_RUNS = 20
_PHOTO = (480, 640)
"""Height and width of the photograph that `end_to_end_ms` decodes."""


@dataclass(frozen=True)
class Candidate:
    """A file to run in an engine."""

    file: Path
    engine: str

    @property
    def compile(self) -> bool:
        """Whether the file has to be compiled first."""
        return self.engine == "compiled" and self.file.suffix.lower() not in COMPILED


@dataclass(frozen=True)
class Guest:
    """A call to time in the same turns, which is no engine of ours: `ms` receives its runs."""

    run: Callable[[], object]
    ms: list[float] = field(default_factory=list)


Report = Callable[[int, int], None]


def candidates(files: Sequence[str | Path], chosen: Sequence[str] = ()) -> tuple[list[Candidate], list[Candidate]]:
    """Every file in every chosen engine that runs it, and the pairs that are impossible.

    With no engine chosen, each file runs in its default engine. The engine "compiled" runs any network, compiling it
    first if needed. Raises SmallcnnError if no pair is possible.
    """
    paths = [located(file) for file in files]
    for path in paths:
        check_kind(path)
    for engine in chosen:
        check_engine(engine)
    if not chosen:
        return [Candidate(path, choose(path, None)) for path in paths], []
    pairs = [Candidate(path, engine) for path in paths for engine in chosen]
    possible = [pair for pair in pairs if pair.compile or pair.engine in KINDS[pair.file.suffix.lower()].engines]
    if not possible:
        choose(pairs[0].file, pairs[0].engine)  # raises the reason
    return possible, [pair for pair in pairs if pair not in possible]


def bench(
    files: Sequence[str | Path],
    *,
    engines: Sequence[str] = (),
    threads: int = 1,
    seconds: float = 2.0,
    report: Report = lambda done, total: None,
) -> list[Row]:
    """Times the `candidates` for about `seconds` each; `report` is called with the per cent done and 100.

    Raises SmallcnnError if a file cannot be opened or compiled, or an engine gives a wrong answer.
    """
    return time_candidates(candidates(files, engines)[0], threads=threads, seconds=seconds, report=report)


def time_candidates(
    chosen: Sequence[Candidate],
    *,
    threads: int = 1,
    seconds: float = 2.0,
    report: Report = lambda done, total: None,
    guests: Sequence[Guest] = (),
) -> list[Row]:
    """Times the candidates as `bench` does, and the `guests`, whose answers the caller checks."""
    if seconds <= 0:
        raise SmallcnnError(f"seconds must be above 0, not {seconds}")
    with tempfile.TemporaryDirectory(
        prefix="smallcnn-", ignore_cleanup_errors=True
    ) as folder:  # Windows keeps a loaded .dll
        paths = compile_missing(chosen, Path(folder), threads, lambda done: report(round(10 * done), 100))
        uses = [first_use(path, one.engine, threads) for path, one in zip(paths, chosen, strict=True)]
        report(15, 100)
        nets = [runtime.open(path, engine=one.engine, threads=threads) for path, one in zip(paths, chosen, strict=True)]
        errors = [verified(net) for net in nets]
        report(20, 100)
        kinds = sorted({net.integer for net in nets})
        meters = {integer: made for integer in kinds if (made := peak_meter(threads, integer=integer))}
        inputs = [probe_image(net.input_shape) for net in nets]
        inference = [lambda net=net, x=x: net.run(x) for net, x in zip(nets, inputs, strict=True)]
        photo = _photo()
        whole = [lambda net=net: net.answer(photo) for net in nets]
        timed = [*inference, *(guest.run for guest in guests), *(meter.run for meter in meters.values())]
        times = take_turns(timed, seconds, lambda done: report(20 + round(60 * done), 100))
        for guest, taken in zip(guests, times[len(nets) :], strict=False):
            guest.ms.extend(taken)
        end_to_end = take_turns(whole, seconds / 4, lambda done: report(80 + round(20 * done), 100))
        for net in nets:
            verified(net)
        peaks = {integer: meter.speed for integer, meter in meters.items()}
        rows = [
            _row(one, path, net, error, np.array(ms), float(np.median(e2e)), use, peaks.get(net.integer))
            for one, path, net, error, ms, e2e, use in zip(
                chosen, paths, nets, errors, times, end_to_end, uses, strict=False
            )
        ]
    return compared(rows)


def compile_missing(
    chosen: Sequence[Candidate], folder: Path, threads: int, progress: Callable[[float], None]
) -> list[Path]:
    """The file to open for each candidate; those to compile are compiled for `threads` threads into `folder`.

    `progress` is called with the share done.
    """
    making = [one for one in chosen if one.compile]
    made: dict[Candidate, Path] = {}
    for one in making:
        from smallcnn.compiler.compiling import compile_file

        before = len(made)

        def report(done: int, total: int, before: int = before) -> None:
            progress((before + done / total) / len(making))

        made[one] = folder / f"{before}{'.dll' if sys.platform == 'win32' else '.so'}"
        compile_file(one.file, made[one], threads=threads, report=report)
    return [made.get(one, one.file) for one in chosen]


def peak_meter(threads: int, *, integer: bool = False) -> "Meter | None":
    """A meter of the machine's peak, of floats or of bytes.

    None without Halide, which builds it, or on macOS, which cannot load it.
    """
    if find_spec("halide") is None or find_spec("ziglang") is None or sys.platform == "darwin":
        return None
    from smallcnn.bench.peak import meter

    return meter(threads, integer=integer)


def verified(net: Net) -> float:
    """The relative error on the probe image. Raises SmallcnnError if the answer is wrong."""
    error = net.verify()
    if not error <= net.tolerance:
        raise SmallcnnError(
            f"{net.where}: {net.engine} gives a wrong answer on the probe image, off by {error:.1e} "
            f"(allowed: {net.tolerance:.0e}); not timed"
        )
    return error


def take_turns(
    calls: Sequence[Callable[[], object]], seconds: float, progress: Callable[[float], None]
) -> list[list[float]]:
    """Milliseconds of every run of each call, about `seconds` each. A turn: pause, warm-up, a block of runs."""
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
    """A JPEG with smooth areas and some noise, like a photograph; the same on every machine."""
    height, width = _PHOTO
    smooth = Image.fromarray(probe_image((15, 20, 3))[0]).resize((width, height), Image.Resampling.BICUBIC)
    noisy = np.asarray(smooth, np.int16) + probe_image((height, width, 3))[0] // 16
    file = io.BytesIO()
    Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
    return file.getvalue()


def _row(
    one: Candidate,
    path: Path,
    net: Net,
    error: float,
    ms: np.ndarray,
    end_to_end: float,
    use: FirstUse,
    peak: float | None,
) -> Row:
    median = float(np.median(ms))
    speed = net.mult_adds / (median / 1e3)
    return Row(
        file=str(one.file),
        model=net.name,
        engine=net.engine,
        precision="int8" if net.integer else "float32",
        threads=net.threads or 1,
        median_ms=median,
        min_ms=float(ms.min()),
        max_ms=float(ms.max()),
        p90_ms=float(np.percentile(ms, 90)),
        runs=len(ms),
        mult_adds=net.mult_adds,
        mult_adds_per_second=speed,
        peak_mult_adds_per_second=peak,
        share_of_peak=speed / peak if peak else None,
        vs_best_peer=None,
        mean_vs_best_peer=None,
        end_to_end_ms=end_to_end,
        load_ms=use.load_ms,
        first_ms=use.first_ms,
        peak_memory_bytes=use.peak_memory_bytes,
        added_memory_bytes=use.added_memory_bytes,
        added_private_bytes=use.added_private_bytes,
        file_bytes=path.stat().st_size,
        verified=True,
        error=error,
        cpu=cpu_name(),
    )
