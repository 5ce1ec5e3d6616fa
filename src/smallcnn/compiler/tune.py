"""Tunes tiles and strips: times several variants of every kernel on this machine and keeps the fastest.

All variants become steps of one program, which is run repeatedly; a step's time is its minimum. Winners are stored per
CPU, so later compilations for this machine use them without measuring.
"""

import hashlib
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from smallcnn.compiler import build, calls, link
from smallcnn.compiler.assemble import assemble
from smallcnn.compiler.calls import Call, Context
from smallcnn.compiler.choices import Choice, best_tiles
from smallcnn.compiler.specs import Chain, Conv, Machine, Pointwise, Separable, Tile
from smallcnn.compiler.targets import Target
from smallcnn.engines import compiled
from smallcnn.ir.types import Tensor
from smallcnn.system.cache import cache_folder, keep
from smallcnn.system.cpu import cpu_name

_TILES, _RUNS = 4, 30
Report = Callable[[int, int], None]


def remembered(plan: Sequence[Call], context: Context) -> list[Call]:
    """The plan with every choice already measured on this CPU."""
    return [_remembered(call, context) or call for call in plan]


def search(
    plan: Sequence[Call],
    context: Context,
    target: Target,
    workers: int,
    report: Report,
) -> list[Call]:
    """The plan with the fastest variant of every kernel; earlier measurements are reused."""
    machine = context.machine
    forms: dict[str, list[Call]] = {}
    measured: dict[str, Choice] = {}
    for call in plan:
        if _remembered(call, context) is None and len(options := _forms(call, context)) > 1:
            forms.setdefault(build.kernel_name(call.spec, machine), options)
    if forms:
        everything = [form for options in forms.values() for form in options]
        times = _time(everything, context, target, workers, report)
        start = 0
        for name, options in forms.items():
            best = int(times[start : start + len(options)].argmin())
            measured[name] = options[best].choice
            keep(_place(options[0], machine), json.dumps(asdict(measured[name])).encode())
            start += len(options)
    return [
        calls.call(call.layers, choice, context)
        if (choice := measured.get(build.kernel_name(call.spec, machine)))
        else _remembered(call, context) or call
        for call in plan
    ]


def _time(
    forms: Sequence[Call],
    context: Context,
    target: Target,
    workers: int,
    report: Report,
) -> np.ndarray:
    """Minimum nanoseconds of each call on one thread."""
    kernels = build.build([form.spec for form in forms], context.machine, workers, report).objects
    program = assemble(forms, kernels, target, "tuning", {}, context.input_shape, {"unused": Tensor((1,))})
    with tempfile.TemporaryDirectory(prefix="smallcnn-") as folder:
        path = Path(folder) / f"tuning{target.suffixes[0]}"
        link.write(program, path)
        net = compiled.load(path, 1)
        image = np.random.default_rng(0).integers(0, 256, context.input_shape, np.uint8)
        return np.min([net.time(image) for _ in range(_RUNS)], axis=0)


def _forms(call: Call, context: Context) -> list[Call]:
    """A call as planned, and with other tiles and strips."""
    spec = call.spec
    if not isinstance(spec, Pointwise | Conv | Separable | Chain):
        return [call]
    out = call.layers[-1].output.storage
    last = spec.last if isinstance(spec, Chain) else spec
    depth = last.source.channels * (spec.window.kernel[1] if isinstance(spec, Conv) else 1)
    found = {call.choice: call}
    for rows in _strips(call):
        pixels = (rows or out.height) * out.width
        for tile in best_tiles(pixels, last.sink.lanes, depth, context.machine)[:_TILES]:
            for neighbours in _neighbours(call):
                form = calls.call(call.layers, _varied(call, tile, rows, neighbours), context)
                found.setdefault(form.choice, form)
    return list(found.values())


def _varied(call: Call, tile: Tile, rows: int, neighbours: int) -> Choice:
    """The call's choice with another last tile, and other strips and neighbours."""
    pairs = zip(call.layers, call.choice.tiles, strict=True)
    tiles = [Tile(neighbours, 1) if layer.depthwise else planned for layer, planned in pairs]
    return replace(call.choice, tiles=(*tiles[:-1], tile), rows=rows)


def _strips(call: Call) -> list[int]:
    rows, height = call.choice.rows, call.layers[-1].output.storage.height
    if not rows:
        return [0]
    most = max(rows, -(-height // 2))
    return sorted({min(most, max(1, r)) for r in (rows // 2, rows, rows * 2)})


def _neighbours(call: Call) -> list[int]:
    """Pixels that a depthwise stage computes together; 0 without such a stage."""
    for layer, tile in zip(call.layers, call.choice.tiles, strict=True):
        if layer.depthwise:
            return sorted({tile.pixels, min(4, layer.output.storage.width)})
    return [0]


def _place(call: Call, machine: Machine) -> Path:
    cpu = hashlib.sha256(cpu_name().encode()).hexdigest()[:16]
    return cache_folder() / "tuned" / cpu / f"{build.kernel_name(call.spec, machine)}.json"


def _remembered(call: Call, context: Context) -> Call | None:
    if not isinstance(call.spec, Pointwise | Conv | Separable | Chain):
        return None
    try:
        record = json.loads(_place(call, context.machine).read_text())
        tiles = tuple(Tile(**tile) for tile in record["tiles"])
        return calls.call(call.layers, Choice(tiles, record["rows"], record["shares"]), context)
    except (OSError, ValueError, KeyError, TypeError):  # not measured or unreadable: measure again
        return None
