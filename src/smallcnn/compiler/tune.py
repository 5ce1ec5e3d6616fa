"""Tunes tiles and strips: times several variants of every kernel on this machine and keeps the fastest.

All variants become steps of one program, which is run repeatedly; a step's time is its minimum. Winners are stored per
CPU, so later compilations for this machine use them without measuring.
"""

import hashlib
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from smallcnn.compiler import build, link
from smallcnn.compiler.assemble import assemble
from smallcnn.compiler.calls import Call
from smallcnn.compiler.plan import best_tiles
from smallcnn.compiler.specs import Chain, Conv, Depthwise, Machine, Pointwise, Separable, Tile
from smallcnn.compiler.targets import Target
from smallcnn.engines import compiled
from smallcnn.system.cache import cache_folder, keep
from smallcnn.system.cpu import cpu_name

_TILES, _RUNS = 4, 30
Report = Callable[[int, int], None]


def remembered(calls: Sequence[Call], machine: Machine) -> list[Call]:
    """The plan with every choice already measured on this CPU."""
    return [_chosen(call, machine) or call for call in calls]


def search(
    calls: Sequence[Call], target: Target, input_shape: tuple[int, int, int], outputs: int, workers: int, report: Report
) -> list[Call]:
    """The plan with the fastest variant of every kernel; earlier measurements are reused."""
    machine = target.machine
    forms: dict[str, list[Call]] = {}
    measured: dict[str, str] = {}
    for call in calls:
        if _chosen(call, machine) is None and len(options := _forms(call, machine)) > 1:
            forms.setdefault(build.kernel_name(call.spec, machine), options)
    if forms:
        everything = [form for options in forms.values() for form in options]
        times = _time(everything, target, input_shape, outputs, workers, report)
        start = 0
        for name, options in forms.items():
            best = int(times[start : start + len(options)].argmin())
            measured[name] = _choice(options[best])
            keep(_place(options[0], machine), measured[name].encode())
            start += len(options)
    return [
        _with(call, json.loads(choice))
        if (choice := measured.get(build.kernel_name(call.spec, machine)))
        else _chosen(call, machine) or call
        for call in calls
    ]


def _time(
    calls: Sequence[Call],
    target: Target,
    input_shape: tuple[int, int, int],
    outputs: int,
    workers: int,
    report: Report,
) -> np.ndarray:
    """Minimum nanoseconds of each call on one thread."""
    kernels = build.build([call.spec for call in calls], target.machine, workers, report)
    program = assemble(calls, kernels, target, "tuning", {}, input_shape, outputs)
    with tempfile.TemporaryDirectory(prefix="smallcnn-") as folder:
        path = Path(folder) / f"tuning{target.suffixes[0]}"
        link.write(program, path)
        net = compiled.load(path, 1)
        picture = np.random.default_rng(0).integers(0, 256, input_shape, np.uint8)
        return np.min([net.time(picture) for _ in range(_RUNS)], axis=0)


def _forms(call: Call, machine: Machine) -> list[Call]:
    """A call as planned, and with other tiles and strips."""
    spec, out = call.spec, call.layers[-1].output.storage if call.layers else None
    if out is None or not isinstance(spec, Pointwise | Conv | Separable | Chain):
        return [call]
    last = spec.last if isinstance(spec, Chain) else spec
    depth = last.source.channels * (spec.window.kernel[1] if isinstance(spec, Conv) else 1)
    found = {_choice(call): call}
    for rows in _strips(call):
        pixels = (rows or out.height) * out.width
        for tile in best_tiles(pixels, last.sink.lanes, depth, machine)[:_TILES]:
            for neighbours in _neighbours(call):
                form = _with(call, {"tile": [tile.pixels, tile.vectors, tile.unroll], "rows": rows, "taps": neighbours})
                found.setdefault(_choice(form), form)
    return list(found.values())


def _strips(call: Call) -> list[int]:
    if isinstance(call.spec, Pointwise):
        return [0]
    rows, height = call.spec.rows, call.layers[-1].output.storage.height  # type: ignore[union-attr]
    most = max(rows, -(-height // 2))
    return sorted({min(most, max(1, r)) for r in (rows // 2, rows, rows * 2)})


def _neighbours(call: Call) -> list[int]:
    """Pixels that a depthwise stage computes together; 0 without such a stage."""
    stage = _depthwise(call)
    return sorted({stage.pixels, min(4, stage.window.out_width)}) if stage else [0]


def _depthwise(call: Call) -> Depthwise | None:
    if isinstance(call.spec, Separable):
        return call.spec.depthwise
    stages = call.spec.stages if isinstance(call.spec, Chain) else ()
    return next((stage for stage in stages if isinstance(stage, Depthwise)), None)


def _choice(call: Call) -> str:
    """The choices in a call, as JSON."""
    spec: Any = call.spec
    tile = spec.last.tile if isinstance(spec, Chain) else spec.tile
    stage = _depthwise(call)
    return json.dumps({
        "tile": [tile.pixels, tile.vectors, tile.unroll],
        "rows": getattr(spec, "rows", 0),
        "taps": stage.pixels if stage else 0,
    })  # fmt: skip


def _with(call: Call, choice: dict[str, Any]) -> Call:
    """The call with that choice."""
    spec: Any = call.spec
    tile, rows = Tile(*choice["tile"]), choice["rows"]
    if isinstance(spec, Pointwise):
        return replace(call, spec=replace(spec, tile=tile), grain=tile.pixels if call.split == 1 else call.grain)
    if isinstance(spec, Chain):
        stages = tuple(replace(s, pixels=choice["taps"]) if isinstance(s, Depthwise) else s for s in spec.stages)
        stages = tuple(replace(s, rows=rows) if isinstance(s, Conv) else s for s in stages)
        spec = replace(spec, stages=stages, last=replace(spec.last, tile=tile), rows=rows)
    elif isinstance(spec, Separable):
        spec = replace(spec, depthwise=replace(spec.depthwise, pixels=choice["taps"]), tile=tile, rows=rows)
    else:
        spec = replace(spec, tile=tile, rows=rows)
    width = call.layers[-1].output.storage.width
    return replace(call, spec=spec, grain=rows * width, scratch=spec.scratch)


def _place(call: Call, machine: Machine) -> Path:
    cpu = hashlib.sha256(cpu_name().encode()).hexdigest()[:16]
    return cache_folder() / "tuned" / cpu / f"{build.kernel_name(call.spec, machine)}.json"


def _chosen(call: Call, machine: Machine) -> Call | None:
    if not isinstance(call.spec, Pointwise | Conv | Separable | Chain):
        return None
    try:
        return _with(call, json.loads(_place(call, machine).read_text()))
    except (OSError, ValueError, KeyError, TypeError):  # not measured or unreadable: measure again
        return None
