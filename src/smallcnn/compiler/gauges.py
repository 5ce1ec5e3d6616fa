"""Kernels that measure a machine, each limited by one thing, as three programs.

    sum = sum * factor + term           independent sums in registers: peak, vector loads, broadcasts
    sum = sum + factor * term           one sum: latency
    sum = sum + data                    bytes of growing size: bandwidth of each cache level
    (nothing)                           instructions issued; steps started

`units` of a step are what it does in one run: multiply-adds, loads, broadcasts, links, instructions or bytes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from smallcnn.compiler import link
from smallcnn.compiler.build import object_file
from smallcnn.compiler.program import Buffer, Program, Step
from smallcnn.compiler.targets import Target
from smallcnn.ir.types import Number, Tensor

_SUMS = 8
"""Sums of the kernels that load: more than hide a latency, with registers left for what is loaded. Of twelve, LLVM puts
some on the stack, where a vector that lies across two pages is slow: 1.9 broadcasts a nanosecond, not 5.7 (Zen 4)."""
_LENGTH, _AGAIN = 8, 800
"""Different terms, 12 KiB of them at most, and how often all are repeated: some ten microseconds."""
_ISSUE_TURNS = 2000
_ISSUED = 96 + 3
"""Instructions of a turn: native/issue.c's, and the loop's."""
_READ_BYTES = 4 << 20
"""Bytes that a step reads at least, again and again if its data are fewer."""
_LEAST_PASSES = 3
_SLACK = 64
"""Bytes after each buffer that a kernel's last vector may touch."""
SIZES = [round(8192 * 2 ** (i / 4) / 4096) * 4096 for i in range(4 * 10 + 1)] + [(8 << 20) << i for i in range(1, 5)]
"""Bytes: quarters of an octave to 8 MiB, then octaves to 128 MiB."""
STARTS = 400
"""Steps of the program of starts."""


@dataclass(frozen=True)
class Gauges:
    """A program and, for each of its steps, what it does in one run."""

    program: Program
    units: dict[str, float]


def throughput(target: Target) -> Gauges:
    """Steps for one thread, data in the first-level cache: multiply-adds, loads, broadcasts, links, instructions."""
    vector, wide = target.vector, target.registers - 4
    weights, arena = Weights(), Arena()
    objects, steps, units = [], [], {}
    rows: list[tuple[str, int, tuple[int, ...], Any, float]] = [
        ("multiply_adds", wide, (_LENGTH,), lambda c, k: (k,), wide),
        ("loads", _SUMS, (_SUMS * vector, _LENGTH), lambda c, k: (c, k), 2 * _SUMS),
        ("broadcasts", _SUMS, (_SUMS, _LENGTH), lambda c, k: (c / vector, k), 2 * _SUMS),
        ("latency", 1, (vector, _LENGTH), lambda c, k: (c, k), 1),
    ]
    for label, vectors, shape, at, each in rows:
        objects.append(_sums(target, label, vectors, shape, at, chain=label == "latency"))
        start, sums = weights.add(np.linspace(1, 2, vectors * vector)), arena.add(vectors * vector)
        reads = [weights.add(np.linspace(*ends, int(np.prod(shape))), shape) for ends in ((0.5, 0.6), (0.4, 0.5))]
        steps.append(Step(label, (start, *reads, sums), None, 1, label))
        units[label] = each * _LENGTH * _AGAIN
    objects.append(link.compiled(link.native("issue.c"), target, (f"-DISSUE_TURNS={_ISSUE_TURNS}",)))
    steps.append(Step("issue", (arena.add(vector),), None, 1, "operations"))
    units["operations"] = _ISSUE_TURNS * _ISSUED
    return Gauges(program_of(target, objects, steps, weights, arena), units)


def bandwidth(target: Target) -> Gauges:
    """Steps for one thread that read data of growing size; `units` has the bytes that each reads."""
    lanes = 8 * target.vector
    arena, units = Arena(), {}
    passes = {size: max(_LEAST_PASSES, _READ_BYTES // size) for size in SIZES}
    sums = arena.add(lanes * max(passes.values()))
    data = arena.add(SIZES[-1] // 4)
    steps = [Step("fill", (_rows(data, lanes, SIZES[-1]),), None, 1, "fill")]
    for size, count in passes.items():
        out = Buffer("arena", sums.offset, "float32", (lanes, count), (1, lanes))
        steps.append(Step("stream", (_rows(data, lanes, size), out), None, 1, str(size)))
        units[str(size)] = float(size * count)
    objects = [_fill(target, lanes), _stream(target, lanes)]
    return Gauges(program_of(target, objects, steps, Weights(), arena), units)


def starts(target: Target) -> Program:
    """Steps with next to no work, in two parts that two threads share."""
    weights, arena = Weights(), Arena()
    start, out = weights.add(np.ones(target.vector)), arena.add(2 * target.vector)
    out = Buffer("arena", out.offset, "float32", (target.vector, 2), (1, target.vector))
    steps = [Step("start", (start, out), 1, 1, "start")] * STARTS
    return program_of(target, [_start(target)], steps, weights, arena)


def _rows(data: Buffer, lanes: int, size: int) -> Buffer:
    return Buffer("arena", data.offset, "float32", (lanes, size // (4 * lanes)), (1, lanes))


class Weights:
    """Constants, one after the other."""

    def __init__(self) -> None:
        self.content = b""

    def add(self, values: np.ndarray, shape: tuple[int, ...] | None = None) -> Buffer:
        """A buffer with these values, real ones as float32, its first dimension innermost."""
        values = values.astype(np.float32) if values.dtype == np.float64 else values
        number: Number = str(values.dtype)  # type: ignore[assignment]
        made = Buffer("weights", len(self.content), number, *_dense(shape or values.shape))
        self.content += values.tobytes()
        self.content += bytes(-len(self.content) % 64 + _SLACK)
        return made


class Arena:
    """Results, one after the other."""

    def __init__(self) -> None:
        self.bytes = 0

    def add(self, count: int, shape: tuple[int, ...] | None = None, number: Number = "float32") -> Buffer:
        """A buffer for `count` numbers."""
        made = Buffer("arena", self.bytes, number, *_dense(shape or (count,)))
        self.bytes += -(-(np.dtype(number).itemsize * count + _SLACK) // 4096) * 4096
        return made


def _dense(shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Extents and strides, the first dimension innermost."""
    return shape, tuple(int(np.prod(shape[:i])) for i in range(len(shape)))


def program_of(
    target: Target, objects: Sequence[bytes], steps: Sequence[Step], weights: Weights, arena: Arena
) -> Program:
    """A program of steps and nothing else."""
    return Program(
        name="gauges",
        target=target.name,
        features=target.features,
        objects=tuple(objects),
        steps=tuple(steps),
        arena_bytes=arena.bytes,
        scratch_bytes=0,
        weights=weights.content,
        metadata={},
        input_shape=(1, 1, 1),
        outputs={"unused": Tensor((1,))},
    )


def _sums(
    target: Target, name: str, vectors: int, shape: tuple[int, ...], at: Callable[..., Any], chain: bool
) -> bytes:
    """Sums of `vectors`; `at(c, k)` is where factor and term of lane c and turn k lie. Operands: start, factor, term,
    output."""
    import halide as hl

    lanes = vectors * target.vector
    start = _param("start", (lanes,))
    factor, term = _param("factor", shape), _param("term", shape)
    c, k = hl.Var("c"), hl.RDom([(0, shape[-1]), (0, _AGAIN)], "k")
    sums, out = hl.Func("sums"), hl.Func("out")
    place = at(c, k[0])
    place = place[0] if len(place) == 1 else place
    sums[c] = start[c]
    sums[c] = sums[c] + factor[place] * term[place] if chain else sums[c] * factor[place] + term[place]
    out[c] = sums[c]
    out.bound(c, 0, lanes).vectorize(c, target.vector).unroll(c)
    sums.compute_root().bound(c, 0, lanes).vectorize(c, target.vector).unroll(c)
    update = sums.update().reorder(c, k[0], k[1]).vectorize(c, target.vector).unroll(c)
    if not chain:
        update.unroll(k[0], 2)
    sums.store_in(hl.MemoryType.Stack)
    out.output_buffer().dim(0).set_bounds(0, lanes)
    return object_file(hl.Pipeline([out]), [start, factor, term], name, target.machine)


def _fill(target: Target, lanes: int) -> bytes:
    """Operand: the output (lane, row)."""
    import halide as hl

    c, k, out = hl.Var("c"), hl.Var("k"), hl.Func("out")
    out[c, k] = hl.f32(1 / 1024) * hl.f32(k % 1024)
    out.bound(c, 0, lanes).vectorize(c, target.vector).unroll(c)
    out.output_buffer().dim(1).set_stride(lanes)
    return object_file(hl.Pipeline([out]), [], "fill", target.machine)


def _stream(target: Target, lanes: int) -> bytes:
    """Sums of all rows, once for each row of the output. Operands: data (lane, row), output (lane, pass)."""
    import halide as hl

    data = _param("data", (lanes, None))
    c, p, k = hl.Var("c"), hl.Var("p"), hl.RDom([(0, data.dim(1).extent())], "k")
    sums, out = hl.Func("sums"), hl.Func("out")
    sums[c, p] = 0.0
    sums[c, p] += data[c, k[0]]
    out[c, p] = sums[c, p]
    out.bound(c, 0, lanes).vectorize(c, target.vector).unroll(c)
    sums.compute_at(out, p).vectorize(c, target.vector).unroll(c)
    sums.update().reorder(c, k[0]).vectorize(c, target.vector).unroll(c)
    out.output_buffer().dim(0).set_bounds(0, lanes)
    out.output_buffer().dim(1).set_stride(lanes)
    return object_file(hl.Pipeline([out]), [data], "stream", target.machine)


def _start(target: Target) -> bytes:
    """A vector copied into each part of the output. Operands: start, output (lane, part)."""
    import halide as hl

    start = _param("start", (target.vector,))
    c, p, out = hl.Var("c"), hl.Var("p"), hl.Func("out")
    out[c, p] = start[c]
    out.bound(c, 0, target.vector).vectorize(c, target.vector)
    out.output_buffer().dim(1).set_stride(target.vector)
    return object_file(hl.Pipeline([out]), [start], "start", target.machine)


def _param(name: str, extents: tuple[int | None, ...]) -> Any:
    import halide as hl

    made, stride = hl.ImageParam(hl.Float(32), len(extents), name), 1
    for i, extent in enumerate(extents):
        made.dim(i).set_stride(stride)
        if extent is not None:
            made.dim(i).set_bounds(0, extent)
            stride *= extent
    return made
