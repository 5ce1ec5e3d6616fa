"""Dense 3x3 convolution by Winograd's minimal filtering.

For a strip of rows, all tiles of pixels are transformed, down their columns and then along their rows. For the lanes of
a register tile, each of a tile's numbers is then a matrix product over channels, with tiles in place of pixels; the
sums stay in the first or second-level cache until they are transformed to outputs.

Bytes are widened to 16 bits, in which their transforms are whole numbers, too: those of filters, with twice G along
either side, at most 9 * 255. So the sums are 4 times the outputs, exactly. The filters are transformed for each strip;
those of floats come transformed.
"""

from collections.abc import Sequence
from typing import Any

import halide as hl
import numpy as np

from smallcnn.compiler.arithmetic import Machine, depth_of
from smallcnn.compiler.kernels.pipe import ANY, EXACT, GUARD, SHIFT, Pipe, Plane, constant, variables
from smallcnn.compiler.kernels.terms import in_registers, multiplied, multiplied_by, number_of
from smallcnn.compiler.specs import Winograd
from smallcnn.compiler.winograd import KERNEL, transform
from smallcnn.ir.types import SIZES


def winograd(spec: Winograd, machine: Machine) -> Any:
    """A 3x3 convolution with stride 1."""
    tiles = (ByteTiles if spec.bytes else Tiles)(Pipe(machine), spec)
    tiles.schedule()
    return tiles.finish()


class Tiles(Plane):
    """The algorithm and its schedule. Tiles are counted along rows of them; i and j are rows and columns of a tile."""

    def __init__(self, pipe: Pipe, spec: Winograd) -> None:
        super().__init__(pipe, spec.window, spec.sink)
        window, side, number = spec.window, spec.tile.side, number_of(spec.bytes)
        self.spec, self.of, self.across = spec, transform(side), -(-window.out_width // side)
        self.depth, self.size = depth_of(spec.source.channels, spec.bytes, pipe.machine), self.of.size
        (top, left), c, x, y, size = window.before, self.c, self.x, self.y, self.size
        self.k, self.t, self.i, self.j, self.row = k, t, i, j, row = variables("k", "t", "i", "j", "row")
        (self.lanes,) = variables("lanes")  # of register tiles
        extents, pitch = (self.depth, window.width, window.height, 1), spec.source.pitch
        source = pipe.operand(extents, (1, pitch, pitch * window.width, spec.source.step), number)
        outside = constant(number, spec.bytes.zero if spec.bytes else 0)
        inside = [ANY, (0, window.width), (0, window.height), ANY]
        bordered = hl.BoundaryConditions.constant_exterior(source, outside, inside)
        pixels = [bordered[k, x - left, row * side + n - top, 0] for n in range(size)]
        pixels = [multiplied(pixel, spec.bytes, pipe.machine) for pixel in pixels]
        self.columns, self.coded = hl.Func("columns"), hl.Func("coded")
        self.columns[k, x, row, i] = hl.mux(i, combined(self.of.pixels, pixels))
        pixels = [self.columns[k, t % self.across * side + n, t / self.across, i] for n in range(size)]
        self.coded[k, t, j, i] = hl.mux(j, combined(self.of.pixels, pixels))

        self.sum, self.product = hl.Func("sum"), hl.Func("product")
        self.define_sum()
        self.product[c, t, j, i] = self.sum[c, t, j, i]

        self.rows, self.out = hl.Func("rows"), hl.Func("winograd")
        sums = [self.product[c, row * self.across + t, j, n] for n in range(size)]
        self.rows[c, t, row, j, i] = hl.mux(i, combined(self.of.outputs, sums))
        sums = [self.rows[c, x / side, y / side, n, y % side] for n in range(size)]
        value = self.whole(hl.mux(x % side, combined(self.of.outputs, sums))) + self.bias[c]
        self.out[c, x, y] = self.epilogue()(value, c, x, y)

    def define_sum(self) -> None:
        """The next operands, weight and bias, and the sums of a tile's numbers over channels."""
        c, t, i, j, vector, sink, size = self.c, self.t, self.i, self.j, self.pipe.machine.vector, self.sink, self.size
        shape = (vector, self.depth, sink.lanes // vector, size, size)
        strides = np.cumprod((1, *shape[:-1])).tolist()
        ahead = strides[3] * SIZES["float32"] if self.spec.tile.ahead else 0
        weight, self.bias = self.pipe.operand(shape, strides, ahead=ahead), self.pipe.vector(sink.lanes)
        k = hl.RDom([(0, self.depth)], "r").x
        self.terms, self.dot = [k], 0
        self.sum[c, t, j, i] = hl.f32(0.0)
        self.sum[c, t, j, i] += weight[c % vector, k, c / vector, j, i] * self.coded[k, t, j, i]

    def whole(self, value: Any) -> Any:
        """An output, of its transform."""
        return value

    def schedule(self) -> None:
        """Outputs beyond the map's end are computed with their tile, and not stored."""
        out, vector, tile = self.out, self.pipe.machine.vector, self.spec.tile
        c, x, y, t, i, j, size = self.c, self.x, self.y, self.t, self.i, self.j, self.size
        cv, ci, xo, xi, strips, yo, yi = variables("cv", "ci", "xo", "xi", "strips", "yo", "yi")
        self._start = self.spec.rows
        out.split(c, self.lanes, cv, vector * tile.vectors, SHIFT).split(cv, cv, ci, vector, EXACT)
        out.split(y, strips, y, self.spec.rows, GUARD).split(y, yo, yi, tile.side, GUARD)
        out.split(x, xo, xi, tile.side, GUARD).reorder(ci, xi, yi, cv, xo, yo, self.lanes, strips)
        out.vectorize(ci).unroll(xi).unroll(yi)
        self.rows.compute_at(out, cv).bound_extent(self.row, 1)  # one tile: the stack holds it
        self.rows.vectorize(c, vector).reorder(c, i, j).unroll(i).unroll(j)

        over, of, at = variables("over", "of", "at")
        self.columns.compute_at(self.coded, over).bound(i, 0, size).reorder(i, self.k, x).unroll(i)
        self.coded.compute_at(out, strips).bound(i, 0, size).bound(j, 0, size)
        self.coded.split(t, over, of, self.across, EXACT).reorder(j, self.k, of, i, over).unroll(j)
        width = 2 * vector if self.spec.bytes and self.depth >= 2 * vector else vector
        for stage in (self.columns, self.coded):
            stage.vectorize(self.k, width, SHIFT if self.depth > width else EXACT)

        self.product.compute_at(out, self.lanes).bound(i, 0, size).bound(j, 0, size)
        self.product.split(t, at, t, tile.pixels, SHIFT).reorder(c, t, at, j, i)
        self.product.vectorize(c, vector).unroll(c).unroll(t)
        self.sum.compute_at(self.product, at).vectorize(c, vector).unroll(c).unroll(t)
        in_registers(self.sum.update(), c, t, self.terms, (j, i), tile, vector, self.dot)


class ByteTiles(Tiles):
    """The same with bytes, two channels at a time."""

    def define_sum(self) -> None:
        """Filters are transformed here."""
        spec, pipe, vector = self.spec, self.pipe, self.pipe.machine.vector
        assert spec.bytes is not None
        self.dot = dot = pipe.machine.dot
        c, t, i, j, k = self.c, self.t, self.i, self.j, self.k
        self.pair, self.column = pair, column = variables("pair", "column")
        shape = (dot, vector, self.depth // dot, KERNEL, KERNEL, self.sink.lanes // vector)
        weight = pipe.operand(shape, np.cumprod((1, *shape[:-1])).tolist(), "int8")
        self.bias = pipe.operand((self.sink.lanes,), (1,), "int32")
        matrix = 2 * self.of.filters
        self.half, self.panel = hl.Func("half"), hl.Func("panel")
        taps = [weight[pair, c % vector, k, column, n, c / vector] for n in range(KERNEL)]
        taps = [multiplied_by(tap, spec.bytes, pipe.machine) for tap in taps]
        self.half[pair, c, k, column, i] = hl.mux(i, combined(matrix, taps))
        taps = [self.half[pair, c, k, n, i] for n in range(KERNEL)]
        self.panel[pair, c, k, j, i] = hl.mux(j, combined(matrix, taps))
        r = hl.RDom([(0, dot), (0, self.depth // dot)], "r")
        self.terms = [r[0], r[1]]
        self.sum[c, t, j, i] = hl.i32(0)
        factor = hl.i32(self.panel[r[0], c, r[1], j, i])
        self.sum[c, t, j, i] += hl.i32(self.coded[r[1] * dot + r[0], t, j, i]) * factor

    def whole(self, value: Any) -> Any:
        """Of sums that are 4 times the outputs."""
        return value >> 2

    def schedule(self) -> None:
        """Filters are transformed for the lanes of a register tile."""
        super().schedule()
        c, i, j, k, vector = self.c, self.i, self.j, self.k, self.pipe.machine.vector
        several, one = variables("several", "one")
        for stage in (self.half, self.panel):
            stage.bound(self.pair, 0, self.dot).bound(i, 0, self.size)
        self.panel.compute_at(self.out, self.lanes).bound(j, 0, self.size).split(c, several, one, vector, EXACT)
        self.panel.reorder(self.pair, one, i, j, k, several).unroll(i).unroll(j)
        self.half.compute_at(self.panel, k).bound(self.column, 0, KERNEL).unroll(i).unroll(self.column)
        self.panel.vectorize(self.pair).vectorize(one)
        self.half.vectorize(self.pair).vectorize(c, vector)


def combined(matrix: np.ndarray, values: Sequence[Any]) -> list[Any]:
    """`matrix` times a vector of expressions.

    Points come in pairs +-p. So two columns of equal or opposite numbers take the sum and the difference of two values;
    and two rows that differ in the signs of their odd or of their even columns are the sum and the difference of the
    same two halves.
    """
    matrix, values = _paired(matrix, [value if isinstance(value, hl.Expr) else hl.Expr(value) for value in values])
    signs = np.where(np.arange(len(values)) % 2, -1, 1)
    found: dict[int, Any] = {}
    for n, row in enumerate(matrix):
        for sign, twin in ((1, row * signs), (-1, -row * signs)):
            other = next((m for m in range(n + 1, len(matrix)) if np.allclose(matrix[m], twin)), None)
            if n not in found and other is not None and np.count_nonzero(row) > 2:
                even, odd = (_sum(np.where(signs == kind, row, 0), values) for kind in (1, -1))
                found[n], found[other] = even + odd, (even - odd if sign == 1 else odd - even)
        if n not in found:
            found[n] = _sum(row, values)
    return [found[n] for n in range(len(matrix))]


def _paired(matrix: np.ndarray, values: Sequence[Any]) -> tuple[np.ndarray, list[Any]]:
    """The same product with sums and differences of values whose columns are equal or opposite in every row."""
    matrix, values = matrix.copy(), list(values)
    for n in range(len(values) - 1):
        one, other = matrix[:, n], matrix[:, n + 1]
        if np.allclose(np.abs(one), np.abs(other)) and np.count_nonzero(one) > 1:
            equal = np.isclose(one, other)
            values[n : n + 2] = values[n] + values[n + 1], values[n] - values[n + 1]
            matrix[:, n : n + 2] = np.stack((np.where(equal, one, 0), np.where(equal, 0, one)), 1)
    return matrix, values


def _sum(row: np.ndarray, values: Sequence[Any]) -> Any:
    """A weighted sum of expressions, in their type."""
    kind = values[0].type()
    total = hl.cast(kind, 0)
    for factor, value in zip(row.tolist(), values, strict=True):
        if factor:
            term = value if abs(factor) == 1 else value * hl.cast(kind, float(np.float32(abs(factor))))
            total = total + term if factor > 0 else total - term
    return total
