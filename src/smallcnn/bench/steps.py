"""Times of a compiled file's steps, measured inside whole runs."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from smallcnn import runtime
from smallcnn.bench.bench import Candidate, Report, compile_missing, peak_meter, take_turns, verified
from smallcnn.engines import compiled
from smallcnn.errors import SmallcnnError
from smallcnn.model import metadata
from smallcnn.model.probe import probe_image


@dataclass(frozen=True)
class StepTime:
    """One step, named after those of its `nodes` that have Mult-Adds, or else after the first.

    `share_of_time` is relative to the whole file, `share_of_peak` to the machine's peak on as many threads, of bytes if
    the network computes with bytes. The latter is None without Halide or without Mult-Adds.
    """

    name: str
    nodes: tuple[str, ...]
    median_ms: float
    share_of_time: float
    mult_adds: int
    mult_adds_per_second: float
    share_of_peak: float | None


def by_layer(
    file: Path | str, *, threads: int = 1, seconds: float = 2.0, report: Report = lambda done, total: None
) -> list[StepTime]:
    """Times the steps of a compiled file, or of a model file that is compiled first, for about `seconds`.

    Raises SmallcnnError if the file cannot be opened or compiled, or gives a wrong answer.
    """
    if seconds <= 0:
        raise SmallcnnError(f"seconds must be above 0, not {seconds}")
    with tempfile.TemporaryDirectory(prefix="smallcnn-", ignore_cleanup_errors=True) as folder:
        one = Candidate(Path(file), "compiled")
        (path,) = compile_missing([one], Path(folder), threads, lambda done: report(round(50 * done), 100))
        verified(runtime.open(path, threads=threads))
        steps = compiled.load(path, threads)
        said = metadata.parse(steps.metadata)
        image = probe_image(steps.input_shape)[0]
        meter = peak_meter(threads, integer=said.integer)
        taken: list[np.ndarray] = []
        calls: list[Callable[[], object]] = [lambda: taken.append(steps.time(image))]
        if meter:
            calls.append(meter.run)
        take_turns(calls, seconds, lambda done: report(50 + round(50 * done), 100))
    peak = meter.speed if meter else None
    medians = np.median(taken, axis=0) / 1e6  # includes warm-up runs, which are too few to matter
    return [
        _step(label, float(ms), float(ms / medians.sum()), said.layers, peak)
        for label, ms in zip(steps.labels, medians, strict=True)
    ]


def _step(label: str, ms: float, share: float, counts: dict[str, int], peak: float | None) -> StepTime:
    nodes = tuple(label.split("+"))
    counted = [node for node in nodes if node in counts]
    mult_adds = sum(counts[node] for node in counted)
    speed = mult_adds / (ms / 1e3) if ms else 0.0
    return StepTime(
        name=", ".join(counted or nodes[:1]),
        nodes=nodes,
        median_ms=ms,
        share_of_time=share,
        mult_adds=mult_adds,
        mult_adds_per_second=speed,
        share_of_peak=speed / peak if peak and mult_adds else None,
    )
