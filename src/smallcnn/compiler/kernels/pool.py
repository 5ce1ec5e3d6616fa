"""Pooling over a window, alone or between other layers, and the mean over a plane.

    out[c, x, y] = epilogue(maximum or average over i, j of source(c, x * stride + j - left, y * stride + i - top))

Registers hold a few neighbouring pixels of one vector of lanes while their windows are read, which overlap; then come
the other lanes of these pixels, as memory lies.
"""

from typing import Any

import halide as hl

from smallcnn.compiler.arithmetic import Bytes, Machine
from smallcnn.compiler.kernels.pipe import ANY, SHIFT, Pipe, Plane, constant, variables
from smallcnn.compiler.kernels.terms import multiplied
from smallcnn.compiler.specs import GlobalPool, Pool
from smallcnn.ir.types import RANGES

_UNROLLED = 9  # pixels of a window


def pool(spec: Pool, machine: Machine) -> Any:
    """Maximum or average over a window."""
    pipe, window, sink = Pipe(machine), spec.window, spec.sink
    source = pipe.plane(sink.lanes, window.width, window.height, spec.pitch, spec.number)
    over = Over(pipe, spec, source)
    over.schedule()
    return over.finish()


class Over(Plane):
    """The algorithm and its schedule. `source` is a map without its border, `reader` as in `depthwise.taps_of`."""

    def __init__(self, pipe: Pipe, spec: Pool, source: Any, reader: Bytes | None = None) -> None:
        super().__init__(pipe, spec.window, spec.sink)
        self.spec, window = spec, spec.window
        (rows, columns), (down, right), (top, left) = window.kernel, window.stride, window.before
        c, x, y = self.c, self.x, self.y
        self.r = r = hl.RDom([(0, columns), (0, rows)], "window")
        self.over, self.out = over, out = hl.Func("over_window"), hl.Func("pool")
        least = RANGES[spec.number][0] if spec.number in RANGES else float("-inf")
        outside = constant(spec.number, least if spec.function == "max" else spec.zero)
        bordered = hl.BoundaryConditions.constant_exterior(
            source, outside, [ANY, (0, window.width), (0, window.height)]
        )
        value = bordered[c, x * right + r[0] - left, y * down + r[1] - top]
        if spec.function == "max":
            over[c, x, y] = outside
            over[c, x, y] = hl.max(over[c, x, y], value)
            result = over[c, x, y]
        elif spec.number != "float32":
            scales = pipe.operand((2,), (1,))  # of the source and the result
            over[c, x, y] = hl.i32(-rows * columns * spec.zero)
            over[c, x, y] += hl.i32(value)
            counts = [_count(at, axis, spec) for axis, at in enumerate((y, x))]
            result = hl.f32(over[c, x, y]) * ((scales[0] / hl.f32(counts[0] * counts[1])) / scales[1])
        else:
            over[c, x, y] = outside
            over[c, x, y] += value
            counts = [_count(at, axis, spec) for axis, at in enumerate((y, x))]
            result = over[c, x, y] / hl.f32(counts[0] * counts[1])
        out[c, x, y] = multiplied(self.epilogue()(result, c, x, y), reader, pipe.machine)

    def schedule(self) -> None:
        """Registers hold `pixels` neighbours of one vector."""
        numbers = (self.spec.number, self.spec.sink.number) if self.spec.function == "max" else ("float32",)
        vector = self.pipe.width(self.spec.sink.lanes, *numbers)
        c, x, y, r = self.c, self.x, self.y, self.r
        co, ci, xo, xi = variables("co", "ci", "xo", "xi")
        self.out.split(c, co, ci, vector, SHIFT).split(x, xo, xi, self.spec.pixels, SHIFT)
        self.out.reorder(ci, xi, co, xo, y).vectorize(ci).unroll(xi)
        self.over.compute_at(self.out, co).vectorize(c, vector).unroll(x)
        update = self.over.update().reorder(c, x, r[0], r[1]).vectorize(c, vector).unroll(x)
        if self.spec.window.kernel[0] * self.spec.window.kernel[1] <= _UNROLLED:
            update.unroll(r[0]).unroll(r[1])


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
    source = pipe.plane(lanes, spec.width, spec.height, spec.pitch, spec.number)
    of_bytes = spec.number != "float32"
    row, total, out = hl.Func("row_sum"), hl.Func("plane_sum"), hl.Func("mean")
    nothing = hl.i32(0) if of_bytes else hl.f32(0.0)
    row[c, y] = nothing
    row[c, y] += hl.i32(source[c, i[0], y]) if of_bytes else source[c, i[0], y]
    total[c] = hl.i32(-spec.height * spec.width * spec.zero) if of_bytes else nothing
    total[c] += row[c, j[0]]
    finish = pipe.epilogue(spec.sink, lambda step: pipe.operand((lanes,), (1,), step.number))
    out[c] = finish(total[c] if of_bytes else total[c] * hl.f32(1 / (spec.height * spec.width)), c)
    vectors = max(n for n in (1, 2, 4) if lanes % (n * vector) == 0)
    co, ci = variables("co", "ci")
    out.split(c, co, ci, vector * vectors, SHIFT).vectorize(ci, vector).unroll(ci)
    total.compute_at(out, co).vectorize(c, vector).unroll(c)
    total.update().reorder(c, j[0]).vectorize(c, vector).unroll(c)
    row.compute_at(total, j[0]).vectorize(c, vector).unroll(c)
    row.update().reorder(c, i[0]).vectorize(c, vector).unroll(c)
    return pipe.output(out, (lanes,), (1,))
