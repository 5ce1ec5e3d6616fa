"""Measures this machine, once per processor, level and version; the result is kept in the cache.

of_host(target)      the model of this machine, measured now if it was not before

A figure is the least time of many rounds. Two halves of the rounds must agree, or other programs were running: then the
result is used for a day, and measured again.
"""

import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from smallcnn._version import __version__
from smallcnn.compiler import build, byte_gauges, gauges, link
from smallcnn.compiler.machines import MachineModel, packaged
from smallcnn.compiler.targets import Target, runs_here
from smallcnn.engines import compiled
from smallcnn.errors import SmallcnnError
from smallcnn.system.cache import cache_folder, keep, recalled
from smallcnn.system.cpu import cpu_name, usable_cores

Report = Callable[[int, int], None]
_ROUNDS, _REPEATS = 10, 50
"""Rounds between two comparisons, each a tenth of a second; in one, the short program runs so many times."""
_MOST_ROUNDS = 60
_AGREEMENT = 0.03
"""Relative difference between the least times of two halves of the rounds, at most."""
_DISTURBED_SECONDS = 24 * 60 * 60
"""How long a measurement serves that other programs disturbed."""
_IMAGE = np.zeros((1, 1, 1), np.uint8)


@dataclass(frozen=True)
class Measured:
    """A model; `quiet` unless other programs disturbed the measurement."""

    model: MachineModel
    quiet: bool


def of_host(target: Target, *, again: bool = False, report: Report = lambda done, total: None) -> MachineModel:
    """The model of this machine for a target that runs here; `again`: measured even if it is known.

    If nothing can be measured, one line on stderr says so, and the result is what was known or the packaged model.
    `report` receives the steps done and their total, if it measures. Raises SmallcnnError if the target does not run
    here, MissingExtra without Halide.
    """
    if not runs_here(target):
        raise SmallcnnError(f"{target.name} does not run on this machine, so it cannot be measured here")
    key = _key(target)
    if not again and (known := _recalled(key)):
        return _known.setdefault(key, known)
    try:
        found = measure(target, report)
    except (SmallcnnError, OSError, RuntimeError) as error:
        known = _recalled(key) or packaged(target)
        reason = (str(error).splitlines() or [type(error).__name__])[-1]
        print(f"note: cannot measure this processor ({reason}); planning for {known.name}", file=sys.stderr)
        return _known.setdefault(key, known)
    if not found.quiet:
        note = "note: other programs were running while this processor was measured; this serves for a day"
        print(f"{note}, unless a quiet measurement is kept", file=sys.stderr)
    remember(target, found.model, quiet=found.quiet)
    return found.model


def remember(target: Target, model: MachineModel, *, quiet: bool = True) -> None:
    """Keeps a model as this machine's, in the cache and in this process."""
    assume(target, model)
    keep(_place(_key(target), quiet), json.dumps(model.to_json(), indent=2).encode())


def assume(target: Target, model: MachineModel) -> None:
    """Takes a model for this machine's as long as this process lasts."""
    _known[_key(target)] = model


_known: dict[str, MachineModel] = {}
"""What this process has measured, read or assumed."""


def _key(target: Target) -> str:
    """Changes with the processor, the target, the engine and what is measured."""
    content = f"{cpu_name()} {target.name} {__version__} {build.version()}".encode()
    here = files("smallcnn.compiler")
    sources = ("calibrate.py", "gauges.py", "byte_gauges.py", "native/issue.c", "native/runtime.c", "native/system.h")
    for source in sources:
        content += (here / source).read_bytes()
    return f"{target.name}-{hashlib.sha256(content).hexdigest()[:16]}"


def _place(key: str, quiet: bool) -> Path:
    return cache_folder() / "machines" / (f"{key}.json" if quiet else f"{key}-disturbed.json")


def _recalled(key: str) -> MachineModel | None:
    """What this process knows, or the cache: of disturbed measurements a recent one, if there is no other."""
    if key in _known:
        return _known[key]
    for quiet in True, False:
        content = recalled(_place(key, quiet), within=None if quiet else _DISTURBED_SECONDS)
        with suppress(ValueError, SmallcnnError):  # damaged: measure again
            if content:
                return MachineModel.from_json(json.loads(content))
    return None


def measure(target: Target, report: Report = lambda done, total: None) -> Measured:
    """Measures this machine with a target's instructions, in five seconds or, if rounds disagree, a few more.

    Raises SmallcnnError, OSError or RuntimeError if nothing can be compiled or loaded.
    """
    total = _MOST_ROUNDS + 10
    with tempfile.TemporaryDirectory(prefix="smallcnn-", ignore_cleanup_errors=True) as folder:
        core, far, whole = gauges.throughput(target), gauges.bandwidth(target), byte_gauges.products_of_bytes(target)
        programs = [core.program, far.program, whole.program, gauges.starts(target)]
        paths = [Path(folder) / f"{i}{target.suffixes[0]}" for i in range(len(programs))]
        for i, (path, program) in enumerate(zip(paths, programs, strict=True)):
            link.write(program, path)
            report(2 * i + 2, total)
        times, quiet = _rounds(paths[:3], lambda done: report(8 + done, total))
        rates = {label: units / times[label] for label, units in (core.units | far.units).items()}
        of_bytes = byte_gauges.rates(
            {label: times[label] / units for label, units in whole.units.items()},
            target.machine,
            multiply_adds_per_ns=rates["multiply_adds"],
            loads_per_ns=rates["loads"],
        )
        found: dict[str, Any] = {figure: _rounded(rate) for figure, rate in of_bytes.items()}
        model = replace(
            packaged(target),
            name=f"{cpu_name()}, {target.level}",
            origin="measured",
            multiply_adds_per_ns=_rounded(rates["multiply_adds"]),
            multiply_add_latency_ns=_rounded(1 / rates["latency"]),
            loads_per_ns=_rounded(rates["loads"]),
            broadcasts_per_ns=_rounded(rates["broadcasts"]),
            operations_per_ns=_rounded(rates["operations"]),
            **found,
            **cache_levels({size: rates[str(size)] for size in gauges.SIZES}),
            **_threads(paths[3]),
        )
    report(total, total)
    return Measured(model, quiet)


def _rounds(paths: Sequence[Path], report: Callable[[int], None]) -> tuple[dict[str, float], bool]:
    """Least nanoseconds of each step of all programs, and whether the rounds agree about those of the first and last.

    The one between reads memory, and runs less often.
    """
    core, far, whole = (compiled.load(path, 1) for path in paths)
    near_times: list[np.ndarray] = []
    far_times: list[np.ndarray] = []
    far.time(_IMAGE)  # touches the memory
    quiet = False
    while not quiet and len(near_times) < _MOST_ROUNDS:
        for _ in range(_ROUNDS):
            near_times.append(
                np.min([np.concatenate([core.time(_IMAGE), whole.time(_IMAGE)]) for _ in range(_REPEATS)], axis=0)
            )
            far_times.append(far.time(_IMAGE))
            report(len(near_times))
        even, odd = (np.min(near_times[i::2], axis=0) for i in range(2))
        quiet = bool((np.abs(even / odd - 1) <= _AGREEMENT).all())
    least = np.concatenate([np.min(near_times, axis=0), np.min(far_times, axis=0)])
    found: dict[str, float] = {}
    for label, ns in zip((*core.labels, *whole.labels, *far.labels), least.tolist(), strict=True):
        found[label] = min(ns, found.get(label, ns))  # a kernel may be called several times in a run
    return found, quiet


def cache_levels(rates: Mapping[int, float]) -> dict[str, Any]:
    """Sizes and rates of the cache levels, from bytes per nanosecond by bytes read again and again.

    A level ends where the rate has fallen below a share of the level's own, which is that of the sizes that surely are
    within it: half the least first level there is, then two to four times the level before.
    """
    sizes = np.array(sorted(rates))
    rate = np.maximum.accumulate(np.array([rates[size] for size in sizes])[::-1])[::-1]  # a larger size did as well

    def plateau(low: int, high: int) -> float:
        return float(np.median(rate[(sizes >= low) & (sizes <= high)]))

    def end(level: float, share: float) -> int:
        return int(sizes[rate >= share * level].max())

    first = end(plateau(0, 16384), 0.8)
    second_rate = plateau(2 * first, 4 * first)
    second = max(first, end(second_rate, 0.85))
    memory_rate = float(rate[-1])
    third_rate = plateau(2 * second, 4 * second) if 4 * second <= sizes[-1] else memory_rate
    third = max(second, end(third_rate, 0.7))
    if third_rate < 1.25 * memory_rate:  # the same: there is no third level, or it is larger than all that was read
        third_rate = memory_rate
    return {
        "first_level_bytes": first,
        "second_level_bytes": second,
        "third_level_bytes": third,
        "second_level_bytes_per_ns": _rounded(second_rate),
        "third_level_bytes_per_ns": _rounded(third_rate),
        "memory_bytes_per_ns": _rounded(memory_rate),
    }


def _threads(path: Path) -> dict[str, Any]:
    """Costs of a step's start and, with two cores, of threads."""
    steps = gauges.STARTS
    alone = compiled.load(path, 1)
    found = {"call_ns": _rounded(_least(alone, 200) / steps)}
    if usable_cores() < 2:
        return found
    both = compiled.load(path, 2)
    together = _least(both, 400)
    found["meeting_ns"] = _rounded(max(1.0, together / steps - found["call_ns"]))
    found["waking_ns"] = _rounded(max(found["meeting_ns"], _least(both, 100, pause=0.001) - together))
    return found


def _least(net: compiled.CompiledFile, runs: int, pause: float = 0.0) -> float:
    """Least nanoseconds of a run, each after a pause in which the other thread falls asleep."""
    image, best = _IMAGE[None], float("inf")
    for _ in range(runs):
        time.sleep(pause)
        begin = time.perf_counter_ns()
        net.run(image)
        best = min(best, time.perf_counter_ns() - begin)
    return best


def _rounded(value: float) -> float:
    """Four digits."""
    return float(f"{value:.4g}")
