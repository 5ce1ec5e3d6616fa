"""Kernels that treat every lane alike (pooling, elementwise work, changes of the number type, copies, the image as
floats), and local response normalisation, which reads neighbouring lanes."""

from typing import Any

import halide as hl

from smallcnn.compiler.kernels.pipe import ANY, GUARD, SHIFT, Pipe, constant, lane, variables
from smallcnn.compiler.specs import Gather, GlobalPool, Image, Lanes, Machine, Pad, Pool, Response
from smallcnn.ir.types import RANGES

_UNROLLED = 9  # pixels of a window


def pool(spec: Pool, machine: Machine) -> Any:
    """Maximum or average over a window."""
    pipe, window, sink = Pipe(machine), spec.window, spec.sink
    vector = pipe.width(sink.lanes, spec.number, sink.number)
    (rows, columns), (down, right), (top, left) = window.kernel, window.stride, window.before
    c, x, y = variables("c", "x", "y")
    source = pipe.plane(sink.lanes, window.width, window.height, spec.pitch, spec.number)
    r = hl.RDom([(0, columns), (0, rows)], "window")
    over, out = hl.Func("over_window"), hl.Func("pool")
    least = RANGES[spec.number][0] if spec.number in RANGES else float("-inf")
    outside = constant(spec.number, least if spec.function == "max" else 0.0)
    bordered = hl.BoundaryConditions.constant_exterior(source, outside, [ANY, (0, window.width), (0, window.height)])
    value = bordered[c, x * right + r[0] - left, y * down + r[1] - top]
    over[c, x, y] = outside
    if spec.function == "max":
        over[c, x, y] = hl.max(over[c, x, y], value)
        result = over[c, x, y]
    else:
        over[c, x, y] += value
        counts = [_count(at, axis, spec) for axis, at in enumerate((y, x))]
        result = over[c, x, y] / hl.f32(counts[0] * counts[1])
    finish = pipe.epilogue(sink, lambda step: pipe.plane(sink.lanes, window.out_width, window.out_height, step.pitch))
    out[c, x, y] = finish(result, c, x, y)
    co, ci = variables("co", "ci")
    out.split(c, co, ci, vector, SHIFT).reorder(ci, co, x, y).vectorize(ci)
    over.compute_at(out, co).vectorize(c, vector)
    update = over.update().reorder(c, x, r[0], r[1]).vectorize(c, vector)
    if rows * columns <= _UNROLLED:
        update.unroll(r[0]).unroll(r[1])
    return pipe.output(out, (sink.lanes, window.out_width, None), (1, sink.pitch, sink.pitch * window.out_width))


def _count(at: Any, axis: int, spec: Pool) -> Any:
    """Number of the window's pixels at `at` that count, along one axis."""
    window = spec.window
    size, extent = window.kernel[axis], (window.height, window.width)[axis]
    start = at * window.stride[axis] - window.before[axis]
    if spec.count_padding:
        return hl.min(start + size, extent + window.after[axis]) - start
    return hl.min(start + size, extent) - hl.max(start, 0)


def global_pool(spec: GlobalPool, machine: Machine) -> Any:
    """Mean over the plane: rows first, so that no sum has more terms than float32 can take."""
    pipe, lanes, vector = Pipe(machine), spec.sink.lanes, machine.vector
    c, y = variables("c", "y")
    i, j = hl.RDom([(0, spec.width)], "column"), hl.RDom([(0, spec.height)], "row")
    source = pipe.plane(lanes, spec.width, spec.height, spec.pitch)
    row, total, out = hl.Func("row_sum"), hl.Func("plane_sum"), hl.Func("mean")
    row[c, y] = hl.f32(0.0)
    row[c, y] += source[c, i[0], y]
    total[c] = hl.f32(0.0)
    total[c] += row[c, j[0]]
    finish = pipe.epilogue(spec.sink, lambda _: pipe.vector(lanes))
    out[c] = finish(total[c] * hl.f32(1 / (spec.height * spec.width)), c)
    vectors = max(n for n in (1, 2, 4) if lanes % (n * vector) == 0)
    co, ci = variables("co", "ci")
    out.split(c, co, ci, vector * vectors, SHIFT).vectorize(ci, vector).unroll(ci)
    total.compute_at(out, co).vectorize(c, vector).unroll(c)
    total.update().reorder(c, j[0]).vectorize(c, vector).unroll(c)
    row.compute_at(total, j[0]).vectorize(c, vector).unroll(c)
    row.update().reorder(c, i[0]).vectorize(c, vector).unroll(c)
    return pipe.output(out, (lanes,), (1,))


def pad(spec: Pad, machine: Machine) -> Any:
    """Adds zeros around a map, or cuts rows and columns."""
    pipe, window, sink = Pipe(machine), spec.window, spec.sink
    c, x, y = variables("c", "x", "y")
    source = pipe.plane(sink.lanes, window.width, window.height, spec.pitch, spec.number)
    zero = constant(spec.number, spec.zero)
    bordered = hl.BoundaryConditions.constant_exterior(source, zero, [ANY, (0, window.width), (0, window.height)])
    finish = pipe.epilogue(sink, lambda step: pipe.plane(sink.lanes, window.out_width, window.out_height, step.pitch))
    out = hl.Func("pad")
    out[c, x, y] = finish(bordered[c, x - window.before[1], y - window.before[0]], c, x, y)
    out.vectorize(c, pipe.width(sink.lanes, spec.number, sink.number), SHIFT)
    return pipe.output(out, (sink.lanes, window.out_width, None), (1, sink.pitch, sink.pitch * window.out_width))


def elementwise(spec: Lanes, machine: Machine) -> Any:
    """An epilogue alone, or a multiplication by a vector and an epilogue."""
    pipe, sink = Pipe(machine), spec.sink
    c, p = variables("c", "p")
    source = pipe.operand((sink.lanes, None), (1, spec.pitch), spec.number)
    value = source[c, p] * pipe.vector(sink.lanes)[c] if spec.scale else source[c, p]
    finish = pipe.epilogue(sink, lambda step: pipe.operand((sink.lanes, None), (1, step.pitch)))
    out = hl.Func("elementwise")
    out[c, p] = finish(value, c, p)
    out.vectorize(c, machine.vector, SHIFT)
    return pipe.output(out, (sink.lanes, None), (1, sink.pitch))


def gather(spec: Gather, machine: Machine) -> Any:
    """Channel c of the output is lane table[c] of the arena."""
    pipe, channels, lanes = Pipe(machine), spec.source.channels, spec.lanes
    c, p = variables("c", "p")
    arena = pipe.operand((None, None), (1, spec.source.pitch), spec.number)
    table = pipe.operand((channels,), (1,), "int32")
    out = hl.Func("gather")
    value = arena[lane(table[hl.min(c, channels - 1)]), p]
    out[c, p] = value if lanes == channels else hl.select(c < channels, value, constant(spec.number, 0.0))
    out.unroll(c, 4, GUARD)
    return pipe.output(out, (lanes, None), (1, spec.pitch))


def image(spec: Image, machine: Machine) -> Any:
    """Bytes to normalised floats."""
    pipe = Pipe(machine)
    c, p = variables("c", "p")
    pixels = pipe.operand((spec.channels, None), (1, spec.channels), "uint8")
    scale, shift = pipe.vector(spec.channels), pipe.vector(spec.channels)
    out = hl.Func("image")
    at = hl.min(c, spec.channels - 1)
    out[c, p] = hl.select(c < spec.channels, hl.f32(pixels[at, p]) * scale[at] + shift[at], 0.0)
    return pipe.output(out, (spec.lanes, None), (1, spec.pitch))


def response(spec: Response, machine: Machine) -> Any:
    """Local response normalisation over channels."""
    pipe, channels, lanes = Pipe(machine), spec.channels, spec.sink.lanes
    c, p = variables("c", "p")
    source = pipe.operand((channels, None), (1, spec.pitch))
    bordered = hl.BoundaryConditions.constant_exterior(source, 0.0, [(0, channels), ANY])
    near = [bordered[c + i - spec.size // 2, p] for i in range(spec.size)]
    base = hl.f32(spec.bias) + hl.f32(spec.alpha / spec.size) * sum((s * s for s in near[1:]), near[0] * near[0])
    finish = pipe.epilogue(spec.sink, lambda step: pipe.operand((lanes, None), (1, step.pitch)))
    out = hl.Func("response")
    out[c, p] = finish(bordered[c, p] * hl.exp(hl.log(base) * hl.f32(-spec.beta)), c, p)
    out.vectorize(c, machine.vector, SHIFT)
    return pipe.output(out, (lanes, None), (1, spec.sink.pitch))
