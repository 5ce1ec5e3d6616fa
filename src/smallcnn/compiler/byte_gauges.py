"""Kernels of bytes that measure a machine: three of those that networks are made of, data in the first-level cache.

    deep, shallow   products with sums of many bytes and of few: the same epilogues, so the difference is their sums
    window          a depthwise convolution, 3x3

`rates` solves their times for the figures of a machine's model, by the formulas of `estimate`.
"""

import math
from collections.abc import Mapping

import numpy as np

from smallcnn.compiler import build
from smallcnn.compiler.arithmetic import MAGIC_BITS, Bytes, Machine
from smallcnn.compiler.estimate import FIT, WIDENING
from smallcnn.compiler.gauges import Arena, Gauges, Weights, program_of
from smallcnn.compiler.program import Buffer, Step
from smallcnn.compiler.specs import Depthwise, Elementwise, Pointwise, Sink, Source, Spec, Tile, Window
from smallcnn.compiler.storage import up
from smallcnn.compiler.targets import Target

_DEPTHS = {"deep": 256, "shallow": 32}
_TILES = 8
"""Tiles of pixels of a product; one of lanes, so that all weights stay in the first level."""
_NEIGHBOURS, _PLANE, _KERNEL = 7, (12, 28), 3
"""Of the depthwise convolution: pixels of a tile, rows and columns of the result."""
_AGAIN = 4
"""Calls of each kernel in a run."""
_BYTES = Bytes(zero=3)
_EPILOGUE = (Elementwise("rescale"),)


def products_of_bytes(target: Target) -> Gauges:
    """Steps for one thread; `units` are the tiles that each computes."""
    machine, weights, arena = target.machine, Weights(), Arena()
    steps: list[Step] = []
    units: dict[str, float] = {}
    specs: list[Spec] = []
    tile = _tile(machine)
    for label, depth in _DEPTHS.items():
        lanes, pixels = tile.vectors * machine.vector, _TILES * tile.pixels
        spec = Pointwise(Source(depth, depth), Sink(lanes, lanes, _EPILOGUE, number="uint8"), tile, _BYTES)
        shapes = [(depth, pixels, 1), (machine.dot, machine.vector, depth // machine.dot, tile.vectors, 1), (lanes, 1)]
        buffers = _buffers(weights, arena, lanes, [*shapes, (lanes, pixels, 1)])
        steps += [Step(build.kernel_name(spec, machine), buffers, None, 1, label)] * _AGAIN
        units[label] = _TILES
        specs.append(spec)
    lanes, (height, width), more = 2 * machine.vector, _PLANE, _KERNEL - 1
    window = Window(height + more, width + more, height, width, (_KERNEL, _KERNEL), (1, 1), (0, 0), (0, 0))
    taps = Depthwise(window, lanes, Sink(lanes, lanes, _EPILOGUE, number="uint8"), _NEIGHBOURS, bytes=_BYTES)
    several = up(_KERNEL, machine.dot) // machine.dot
    shapes = [(lanes, width + more, height + more), (machine.dot, lanes, several, _KERNEL), (lanes,)]
    buffers = _buffers(weights, arena, lanes, [*shapes, (lanes, width, height)])
    steps += [Step(build.kernel_name(taps, machine), buffers, None, 1, "window")] * _AGAIN
    units["window"] = 2 * height * width / _NEIGHBOURS
    objects = build.build([*specs, taps], machine, 1).objects
    return Gauges(program_of(target, list(objects.values()), steps, weights, arena), units)


def rates(
    times: Mapping[str, float], machine: Machine, *, multiply_adds_per_ns: float, loads_per_ns: float
) -> dict[str, float]:
    """The model's figures of bytes, from nanoseconds of a tile of each kernel."""
    tile, dot = _tile(machine), machine.dot
    sums = tile.pixels * tile.vectors

    def converted(depth: int) -> float:
        vectors = tile.pixels * depth / (max(dot, 2) * machine.vector)
        return FIT.converted * vectors / loads_per_ns if machine.converts else 0.0

    deep, shallow = _DEPTHS.values()
    between = times["deep"] - times["shallow"] - (converted(deep) - converted(shallow))
    widened = WIDENING if dot <= 2 else 0.0
    term = sums + widened * tile.vectors
    dots = term * (deep - shallow) / dot / between
    ends = times["shallow"] - converted(shallow) - term * shallow / dot / dots - FIT.tile / multiply_adds_per_ns
    several = math.ceil(_KERNEL / dot)
    columns = _NEIGHBOURS - 1 + _KERNEL
    woven = times["window"] - FIT.window / multiply_adds_per_ns - _NEIGHBOURS * ends / sums
    woven -= (_NEIGHBOURS + widened) * several * _KERNEL / dots
    return {
        "dots_per_ns": dots,
        "requantized_per_ns": sums / ends,
        "woven_per_ns": several * columns / woven,
    }


def _tile(machine: Machine) -> Tile:
    return Tile((machine.registers - 4) // 2, 2, 4)


def _buffers(weights: Weights, arena: Arena, lanes: int, shapes: list[tuple[int, ...]]) -> tuple[Buffer, ...]:
    """Operands of a kernel: source, weight, bias, the epilogue's and output, of which `shapes` has all but the
    epilogue's."""
    source, weight, bias, output = shapes
    random = np.random.default_rng(0)
    return (
        weights.add(random.integers(0, 256, math.prod(source)).astype(np.uint8), source),
        weights.add(random.integers(-127, 128, math.prod(weight)).astype(np.int8), weight),
        weights.add(np.zeros(math.prod(bias), np.int32), bias),
        weights.add(np.full(lanes, 1e-3, np.float32)),
        weights.add(np.array([MAGIC_BITS], np.int32)),
        arena.add(math.prod(output), output, "uint8"),
    )
