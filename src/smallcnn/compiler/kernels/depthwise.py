"""Depthwise convolution, one filter per lane, any kernel, stride and padding; alone or before a pointwise one.

    out[c, x, y] = epilogue(bias[c] + sum over i, j of weight[c, j, i] * source(c, x * stride + j - left, ...))

The schedule computes a few neighbouring pixels of one vector of lanes in registers with all taps unrolled, then the
other lanes of these pixels, so memory is read in order. The border's zeros cost nothing inside the plane, because
Halide splits the loops at the border.
"""

from typing import Any

import halide as hl

from smallcnn.compiler.kernels.matmul import Product
from smallcnn.compiler.kernels.pipe import ANY, SHIFT, Pipe, Plane, variables
from smallcnn.compiler.kernels.rows import Rows
from smallcnn.compiler.specs import Depthwise, Machine, Pointwise, Separable

_UNROLLED = 25  # taps


def depthwise(spec: Depthwise, machine: Machine) -> Any:
    """A depthwise convolution on its own."""
    pipe, window, sink = Pipe(machine), spec.window, spec.sink
    source = pipe.plane(sink.lanes, window.width, window.height, spec.pitch)
    taps = Taps(pipe, spec, source)
    taps.schedule()
    return taps.finish()


def separable(spec: Separable, machine: Machine) -> Any:
    """With the pointwise convolution after it; one strip of rows at a time stays in the cache."""
    pipe, window = Pipe(machine), spec.depthwise.window
    source = pipe.plane(spec.depthwise.sink.lanes, window.width, window.height, spec.depthwise.pitch)
    taps = Taps(pipe, spec.depthwise, source)
    product = read_by(spec, pipe, taps.out, (window.out_width, window.out_height))
    strip = product.schedule(spec.tile, spec.rows)
    taps.schedule()
    taps.out.bound(taps.c, 0, spec.depthwise.sink.lanes).compute_at(product.out, strip)
    return product.finish()


def read_by(spec: Pointwise | Separable, pipe: Pipe, source: Any, plane: tuple[int, int]) -> Rows | Product:
    """The product that reads `source`, a stage of the same kernel, in tiles as `spec` says."""
    reduction, width = (spec.source.channels,), plane[0]
    if spec.tile.across:
        return Product(pipe, spec.sink, lambda k, p, _: source[k, p % width, p / width], reduction, plane)
    return Rows(pipe, spec.sink, lambda k, x, y, *_: source[k, x, y], reduction, plane)


class Taps(Plane):
    """The algorithm and its schedule. `source` is a map without its border."""

    def __init__(self, pipe: Pipe, spec: Depthwise, source: Any) -> None:
        super().__init__(pipe, spec.window, spec.sink)
        self.spec, window, sink = spec, spec.window, spec.sink
        (rows, columns), (down, right), (top, left) = window.kernel, window.stride, window.before
        c, x, y = self.c, self.x, self.y
        self.r = r = hl.RDom([(0, columns), (0, rows)], "taps")
        bordered = hl.BoundaryConditions.constant_exterior(source, 0.0, [ANY, (0, window.width), (0, window.height)])
        value = bordered[c, x * right + r[0] - left, y * down + r[1] - top]
        weight = pipe.operand((sink.lanes, columns, rows), (1, sink.lanes, sink.lanes * columns))
        bias = pipe.vector(sink.lanes)
        self.sum, self.out = hl.Func("tapped"), hl.Func("depthwise")
        self.sum[c, x, y] = bias[c]
        self.sum[c, x, y] += weight[c, r[0], r[1]] * (hl.max(value, 0.0) if spec.relu else value)
        self.out[c, x, y] = self.epilogue()(self.sum[c, x, y], c, x, y)

    def schedule(self) -> None:
        """Registers hold `pixels` sums of one vector."""
        vector = self.pipe.machine.vector
        c, x, y, out = self.c, self.x, self.y, self.out
        co, ci, xo, xi = variables("co", "ci", "xo", "xi")
        out.split(c, co, ci, vector, SHIFT).split(x, xo, xi, self.spec.pixels, SHIFT)
        out.reorder(ci, xi, co, xo, y).vectorize(ci).unroll(xi)
        self.sum.compute_at(out, co).vectorize(c, vector).unroll(x)
        update = self.sum.update().reorder(c, x, self.r[0], self.r[1]).vectorize(c, vector).unroll(x)
        update.unroll(self.r[0])
        if self.spec.window.kernel[0] * self.spec.window.kernel[1] <= _UNROLLED:
            update.unroll(self.r[1])
