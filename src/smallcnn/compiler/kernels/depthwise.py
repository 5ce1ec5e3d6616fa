"""Depthwise convolution, one filter per lane, any kernel, stride and padding; alone or before a pointwise one.

    out[c, x, y] = epilogue(bias[c] + sum over i, j of
                            weight[c, j, i] * source(c, x * stride + j * dilation - left, ...))

The schedule computes a few neighbouring pixels of one vector of lanes in registers with all taps unrolled, then the
other lanes of these pixels, so memory is read in order. The border's zeros cost nothing inside the plane, because
Halide splits the loops at the border.
"""

from typing import Any

import halide as hl

from smallcnn.compiler.arithmetic import Bytes, Machine, depth_of
from smallcnn.compiler.kernels.matmul import Product
from smallcnn.compiler.kernels.pipe import ANY, EXACT, SHIFT, Pipe, Plane, constant, variables
from smallcnn.compiler.kernels.rows import Rows
from smallcnn.compiler.kernels.terms import multiplied, multiplied_by, number_of
from smallcnn.compiler.specs import Depthwise, Pointwise, Separable

_UNROLLED = 25  # taps


def depthwise(spec: Depthwise, machine: Machine) -> Any:
    """A depthwise convolution on its own."""
    pipe, window, sink = Pipe(machine), spec.window, spec.sink
    source = pipe.plane(sink.lanes, window.width, window.height, spec.pitch, number_of(spec.bytes))
    taps = taps_of(pipe, spec, source)
    taps.schedule()
    return taps.finish()


def separable(spec: Separable, machine: Machine) -> Any:
    """With the pointwise convolution after it; one strip of rows at a time stays in the cache."""
    pipe, window = Pipe(machine), spec.depthwise.window
    first = spec.depthwise
    source = pipe.plane(first.sink.lanes, window.width, window.height, first.pitch, number_of(first.bytes))
    taps = taps_of(pipe, first, source, spec.bytes)
    product = read_by(spec, pipe, taps.out, (window.out_width, window.out_height))
    strip = product.schedule(spec.rows)
    taps.schedule()
    taps.out.bound(taps.c, 0, spec.depthwise.sink.lanes).compute_at(product.out, strip)
    return product.finish()


def read_by(spec: Pointwise | Separable, pipe: Pipe, source: Any, plane: tuple[int, int]) -> Rows | Product:
    """The product that reads `source`, a stage of the same kernel that converts its bytes, in tiles as `spec` says."""
    reduction, width = (depth_of(spec.source.channels, spec.bytes, pipe.machine),), plane[0]
    if spec.tile.across:
        read = lambda k, p, _: source[k, p % width, p / width]  # noqa: E731
        return Product(pipe, spec.sink, spec.bytes, read, reduction, spec.tile, plane, ready=True)
    read = lambda k, x, y, *_: source[k, x, y]  # noqa: E731
    return Rows(pipe, spec.sink, spec.bytes, read, reduction, spec.tile, plane, ready=True)


def taps_of(pipe: Pipe, spec: Depthwise, source: Any, reader: Bytes | None = None) -> "Taps | ByteTaps":
    """The algorithm for floats or bytes. `reader`: the product of bytes that reads the result, converted for it."""
    return ByteTaps(pipe, spec, source, reader) if spec.bytes else Taps(pipe, spec, source)


class Taps(Plane):
    """The algorithm and its schedule. `source` is a map without its border."""

    def __init__(self, pipe: Pipe, spec: Depthwise, source: Any) -> None:
        super().__init__(pipe, spec.window, spec.sink)
        self.spec, window, sink = spec, spec.window, spec.sink
        (rows, columns), (down, right), (top, left) = window.kernel, window.stride, window.before
        c, x, y = self.c, self.x, self.y
        self.r = r = hl.RDom([(0, columns), (0, rows)], "taps")
        bordered = hl.BoundaryConditions.constant_exterior(source, 0.0, [ANY, (0, window.width), (0, window.height)])
        step_y, step_x = window.dilation
        value = bordered[c, x * right + r[0] * step_x - left, y * down + r[1] * step_y - top]
        weight = pipe.operand((sink.lanes, columns, rows), (1, sink.lanes, sink.lanes * columns))
        bias = pipe.vector(sink.lanes)
        self.sum, self.out = hl.Func("tapped"), hl.Func("depthwise")
        self.sum[c, x, y] = bias[c]
        self.sum[c, x, y] += weight[c, r[0], r[1]] * (hl.max(value, 0.0) if spec.relu else value)
        self.out[c, x, y] = self.epilogue()(self.sum[c, x, y], c, x, y)

    def schedule(self) -> None:
        """Registers hold `pixels` sums of one vector. With `block`, rows of so many vectors stay in the first-level
        cache until the windows of the next rows have read them."""
        vector = self.pipe.machine.vector
        c, x, y, out = self.c, self.x, self.y, self.out
        blocks, co, ci, xo, xi = variables("blocks", "co", "ci", "xo", "xi")
        out.split(c, co, ci, vector, SHIFT).split(x, xo, xi, self.spec.pixels, SHIFT)
        if self.spec.block:
            out.split(co, blocks, co, self.spec.block, EXACT).reorder(ci, xi, co, xo, y, blocks)
        else:
            out.reorder(ci, xi, co, xo, y)
        out.vectorize(ci).unroll(xi)
        self.sum.compute_at(out, co).vectorize(c, vector).unroll(x)
        update = self.sum.update().reorder(c, x, self.r[0], self.r[1]).vectorize(c, vector).unroll(x)
        update.unroll(self.r[0])
        if self.spec.window.kernel[0] * self.spec.window.kernel[1] <= _UNROLLED:
            update.unroll(self.r[1])


class ByteTaps(Plane):
    """The same with bytes: of each column of the source, `dot` rows are interleaved, so that one instruction multiplies
    them with as many weights of each lane and adds them to its sum. The columns are interleaved once for all windows.

    Weights are packed (dot, lane, rows / dot, columns), zero where the window ends.
    """

    def __init__(self, pipe: Pipe, spec: Depthwise, source: Any, reader: Bytes | None) -> None:
        super().__init__(pipe, spec.window, spec.sink)
        self.spec, window, sink, of = spec, spec.window, spec.sink, spec.bytes
        assert of is not None
        self.dot = dot = pipe.machine.dot
        (rows, columns), (down, right), (top, left) = window.kernel, window.stride, window.before
        several = -(-rows // dot)
        c, x, y = self.c, self.x, self.y
        self.t, self.q = t, q = variables("t", "q")
        outside = constant("uint8", of.zero)
        bordered = hl.BoundaryConditions.constant_exterior(
            source, outside, [ANY, (0, window.width), (0, window.height)]
        )
        self.woven = woven = hl.Func("woven")
        row, (step_y, step_x) = hl.min(q * dot + t, rows - 1), window.dilation
        value = bordered[c, x - left, y * down + row * step_y - top]
        if dot == 2:  # a zero is one instruction less than a row again
            value = hl.select(q * dot + t < rows, value, hl.u8(0))
        woven[t, c, x, q, y] = multiplied(value, of, pipe.machine)
        self.r = r = hl.RDom([(0, dot), (0, columns), (0, several)], "taps")
        shape = (dot, sink.lanes, several, columns)
        strides = (1, dot, dot * sink.lanes, dot * sink.lanes * several)
        weight = pipe.operand(shape, strides, "int8")
        bias = pipe.operand((sink.lanes,), (1,), "int32")
        factor = multiplied_by(weight[r[0], c, r[2], r[1]], of, pipe.machine)
        taken = hl.i32(woven[r[0], c, x * right + r[1] * step_x, r[2], y])
        self.sums, self.out = [hl.Func("tapped")], hl.Func("depthwise")
        self.sums[0][c, x, y] = bias[c]
        self.sums[0][c, x, y] += taken * hl.i32(factor)
        value = self.sums[0][c, x, y]
        if of.summed(pipe.machine):  # what the weights' zero adds: itself times all bytes of the window
            self.zero, total = hl.Func("zero"), hl.Func("total")
            self.zero[t] = hl.i8(of.weight_zero)
            total[c, x, y] = hl.i32(0)
            total[c, x, y] += taken * hl.i32(self.zero[r[0]])
            value -= total[c, x, y]
            self.sums.append(total)
        self.out[c, x, y] = multiplied(self.epilogue()(value, c, x, y), reader, pipe.machine)

    def schedule(self) -> None:
        """Registers hold `pixels` sums of one vector."""
        vector = self.pipe.machine.vector
        c, x, y, out, r = self.c, self.x, self.y, self.out, self.r
        co, ci, xo, xi, one = variables("co", "ci", "xo", "xi", "one")
        out.split(c, co, ci, vector, SHIFT).split(x, xo, xi, self.spec.pixels, SHIFT)
        out.reorder(ci, xi, co, xo, y).vectorize(ci).unroll(xi)
        rows, columns = self.spec.window.kernel
        for sums in self.sums:
            sums.compute_at(out, co).vectorize(c, vector).unroll(x)
            update = sums.update().split(c, c, one, vector, EXACT).reorder(r[0], one, c, x, r[1], r[2])
            update.atomic().vectorize(r[0], self.dot).vectorize(one, vector).unroll(c).unroll(x)
            if rows * columns <= _UNROLLED:
                update.unroll(r[1]).unroll(r[2])
        if len(self.sums) > 1:
            self.zero.compute_root().bound(self.t, 0, self.dot).vectorize(self.t)  # a constant would be no factor
        woven = self.woven.bound(self.t, 0, self.dot)
        if self.dot == 2:  # few registers: the first rows are done with before the next are interleaved
            woven.compute_at(self.sums[0], r[2])
        else:
            woven.compute_at(out, co)
        woven.split(c, c, one, vector, EXACT).reorder(one, self.t, c, x, self.q, y).vectorize(one).unroll(self.t)
        woven.unroll(c)
        if rows * columns <= _UNROLLED:
            woven.unroll(x).unroll(self.q)
