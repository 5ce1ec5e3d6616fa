"""The same sums as `matmul`, over a plane: (lane, x, y), with groups (lane, x, y, group).

A tile of pixels lies within a row, so the addresses it reads are evenly spaced: no register holds an address per pixel.
At 56x56x64 to 128 with AVX-512, one thread of an Emerald Rapids takes 328 us; 370 with tiles that run on from row to
row.
"""

from collections.abc import Callable
from typing import Any

import halide as hl

from smallcnn.compiler.kernels.pipe import EXACT, GUARD, SHIFT, Pipe, variables
from smallcnn.compiler.specs import Sink, Tile


class Rows:
    """The algorithm and its register tiling. `read(k, x, y, group, tap)`; `reduction` is the extents of k and taps."""

    def __init__(
        self, pipe: Pipe, sink: Sink, read: Callable[..., Any], reduction: tuple[int, ...], plane: tuple[int, int]
    ) -> None:
        self.pipe, self.sink, self.plane = pipe, sink, plane
        vector, lanes, groups = pipe.machine.vector, sink.lanes, sink.groups
        self.c, self.x, self.y = c, x, y = variables("c", "x", "y")
        self.g = variables("g") if groups > 1 else []
        self.r = hl.RDom([(0, extent) for extent in reduction], "k")
        tap = self.r[1] if len(reduction) > 1 else 0
        depth = reduction[0] * (reduction[1] if len(reduction) > 1 else 1)
        shared = [groups] if groups > 1 else []
        weight = pipe.operand(
            (vector, depth, lanes // vector, *shared), (1, vector, vector * depth, *(depth * lanes for _ in shared))
        )
        bias = pipe.operand((lanes, *shared), (1, *(lanes for _ in shared)))
        self.sum, self.out = hl.Func("row_sum"), hl.Func("rows")
        at = (c, x, y, *self.g)
        group = self.g[0] if self.g else 0
        self.sum[at] = bias[(c, *self.g)]
        row = tap * reduction[0] + self.r[0]
        self.sum[at] += weight[(c % vector, row, c / vector, *self.g)] * read(self.r[0], x, y, group, tap)
        finish = pipe.epilogue(sink, lambda step: pipe.operand(self._extents(plane[1]), self._strides(step.pitch)))
        self.out[at] = finish(self.sum[at], *at)
        self.feeds: list[Any] = []

    def schedule(self, tile: Tile, rows: int = 0) -> Any:
        """All requested rows pass a tile's weights before the next lanes start. With `rows`: in strips; returns their
        loop variable."""
        vector, out, c, x, y = self.pipe.machine.vector, self.out, self.c, self.x, self.y
        co, ci, xo, xi, strips, inner = variables("co", "ci", "xo", "xi", "strips", "inner")
        out.split(c, co, ci, vector * tile.vectors, SHIFT).split(x, xo, xi, tile.pixels, SHIFT)
        if rows:
            out.split(y, strips, inner, rows, SHIFT if self.plane[1] % rows else EXACT)
        out.reorder(ci, xi, xo, inner if rows else y, co, *self.g, *([strips] if rows else []))
        out.vectorize(ci, vector).unroll(ci).unroll(xi)
        self.sum.compute_at(out, xo).vectorize(c, vector).unroll(c).unroll(x)
        update = self.sum.update()
        update.reorder(c, x, *[self.r[i] for i in range(self.r.dimensions())], y, *self.g)
        update.vectorize(c, vector).unroll(c).unroll(x)
        if tile.unroll > 1:
            update.unroll(self.r[0], tile.unroll, GUARD)
        self.rows = rows
        return strips

    def finish(self) -> tuple[Any, list[Any]]:
        """The pipeline and its operands; a thread's rows start at a multiple of a strip's."""
        return self.pipe.output(self.out, self._extents(None), self._strides(self.sink.pitch), self.rows)

    def _extents(self, height: int | None) -> tuple[int | None, ...]:
        groups = [self.sink.groups] if self.g else []
        return (self.sink.lanes, self.plane[0], height, *groups)

    def _strides(self, pitch: int) -> tuple[int, ...]:
        groups = [self.sink.lanes] if self.g else []
        return (1, pitch, pitch * self.plane[0], *groups)
