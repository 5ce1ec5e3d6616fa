"""Dense 3x3 convolution by Winograd's minimal filtering.

For a strip of rows, all tiles of pixels are transformed, down their columns and then along their rows. For the lanes of
a register tile, each of a tile's numbers is then a matrix product over channels, with tiles in place of pixels; the
sums stay in the first or second-level cache until they are transformed to outputs.
"""

from collections.abc import Sequence
from typing import Any

import halide as hl
import numpy as np

from smallcnn.compiler.kernels.pipe import ANY, EXACT, GUARD, SHIFT, Pipe, Plane, variables
from smallcnn.compiler.specs import Machine, Winograd
from smallcnn.compiler.winograd import transform
from smallcnn.ir.types import SIZES


def winograd(spec: Winograd, machine: Machine) -> Any:
    """A 3x3 convolution with stride 1."""
    tiles = Tiles(Pipe(machine), spec)
    tiles.schedule()
    return tiles.finish()


class Tiles(Plane):
    """The algorithm and its schedule. Tiles are counted along rows of them; i and j are rows and columns of a tile."""

    def __init__(self, pipe: Pipe, spec: Winograd) -> None:
        super().__init__(pipe, spec.window, spec.sink)
        self.spec, window, sink, channels = spec, spec.window, spec.sink, spec.source.channels
        side, of, vector = spec.tile.side, transform(spec.tile.side), pipe.machine.vector
        self.size, self.across = of.size, -(-window.out_width // side)
        (top, left), c, x, y = window.before, self.c, self.x, self.y
        self.k, self.t, self.i, self.j, self.row = k, t, i, j, row = variables("k", "t", "i", "j", "row")
        source = pipe.plane(channels, window.width, window.height, spec.source.pitch)
        bordered = hl.BoundaryConditions.constant_exterior(source, 0.0, [ANY, (0, window.width), (0, window.height)])
        self.columns = hl.Func("columns")
        pixels = [bordered[k, x - left, row * side + n - top] for n in range(self.size)]
        self.columns[k, x, row, i] = hl.mux(i, combined(of.pixels, pixels))
        self.coded = hl.Func("coded")
        pixels = [self.columns[k, t % self.across * side + n, t / self.across, i] for n in range(self.size)]
        self.coded[k, t, j, i] = hl.mux(j, combined(of.pixels, pixels))

        shape = (vector, channels, sink.lanes // vector, self.size, self.size)
        strides = np.cumprod((1, *shape[:-1])).tolist()
        ahead = strides[3] * SIZES["float32"] if spec.tile.ahead else 0
        weight = pipe.operand(shape, strides, ahead=ahead)
        self.bias = pipe.vector(sink.lanes)
        self.r = hl.RDom([(0, channels)], "r").x
        self.sum, self.product = hl.Func("sum"), hl.Func("product")
        self.sum[c, t, j, i] = hl.f32(0.0)
        self.sum[c, t, j, i] += weight[c % vector, self.r, c / vector, j, i] * self.coded[self.r, t, j, i]
        self.product[c, t, j, i] = self.sum[c, t, j, i]

        self.rows, self.out = hl.Func("rows"), hl.Func("winograd")
        sums = [self.product[c, row * self.across + t, j, n] for n in range(self.size)]
        self.rows[c, t, row, j, i] = hl.mux(i, combined(of.outputs, sums))
        sums = [self.rows[c, x / side, y / side, n, y % side] for n in range(self.size)]
        value = self.bias[c] + hl.mux(x % side, combined(of.outputs, sums))
        self.out[c, x, y] = self.epilogue()(value, c, x, y)

    def schedule(self) -> None:
        """Outputs beyond the map's end are computed with their tile, and not stored."""
        out, vector, tile, channels = self.out, self.pipe.machine.vector, self.spec.tile, self.spec.source.channels
        c, x, y, t, i, j = self.c, self.x, self.y, self.t, self.i, self.j
        co, cv, ci, xo, xi, strips, yo, yi = variables("co", "cv", "ci", "xo", "xi", "strips", "yo", "yi")
        self._start = self.spec.rows
        out.split(c, co, cv, vector * tile.vectors, SHIFT).split(cv, cv, ci, vector, EXACT)
        out.split(y, strips, y, self.spec.rows, GUARD).split(y, yo, yi, tile.side, GUARD)
        out.split(x, xo, xi, tile.side, GUARD).reorder(ci, xi, yi, cv, xo, yo, co, strips)
        out.vectorize(ci).unroll(xi).unroll(yi)
        self.rows.compute_at(out, cv).bound_extent(self.row, 1)  # one tile: the stack holds it
        self.rows.vectorize(c, vector).reorder(c, i, j).unroll(i).unroll(j)

        over, of, at = variables("over", "of", "at")
        self.columns.compute_at(self.coded, over).bound(i, 0, self.size).reorder(i, self.k, x).unroll(i)
        self.coded.compute_at(out, strips).bound(i, 0, self.size).bound(j, 0, self.size)
        self.coded.split(t, over, of, self.across, EXACT).reorder(j, self.k, of, i, over).unroll(j)
        for stage in (self.columns, self.coded):
            stage.vectorize(self.k, vector, SHIFT if channels > vector else EXACT)

        product, update = self.product, self.sum.update()
        product.compute_at(out, co).bound(i, 0, self.size).bound(j, 0, self.size)
        product.split(t, at, t, tile.pixels, SHIFT).reorder(c, t, at, j, i).vectorize(c, vector).unroll(c).unroll(t)
        self.sum.compute_at(product, at).vectorize(c, vector).unroll(c).unroll(t)
        update.reorder(c, t, self.r, j, i).vectorize(c, vector).unroll(c).unroll(t).unroll(self.r, tile.unroll, GUARD)


def combined(matrix: np.ndarray, values: Sequence[Any]) -> list[Any]:
    """`matrix` times a vector of expressions.

    Points come in pairs +-p. So two columns of equal or opposite numbers take the sum and the difference of two values;
    and two rows that differ in the signs of their odd or of their even columns are the sum and the difference of the
    same two halves.
    """
    matrix, values = _paired(matrix, values)
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
    """A weighted sum of expressions."""
    total: Any = hl.f32(0.0)
    for factor, value in zip(row.tolist(), values, strict=True):
        if factor:
            term = value if abs(factor) == 1 else value * hl.f32(abs(factor))
            total = total + term if factor > 0 else total - term
    return total
