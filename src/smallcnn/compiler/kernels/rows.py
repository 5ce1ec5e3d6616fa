"""The same sums as `matmul`, over a plane: (lane, x, y), with groups (lane, x, y, group).

A tile of pixels lies within a row, so the addresses it reads are evenly spaced: no register holds an address per pixel.
At 56x56x64 to 128 with AVX-512, one thread of an Emerald Rapids takes 328 us; 370 with tiles that run on from row to
row.
"""

from collections.abc import Callable
from typing import Any

import halide as hl

from smallcnn.compiler.arithmetic import Bytes
from smallcnn.compiler.kernels.pipe import EXACT, SHIFT, Pipe, variables
from smallcnn.compiler.kernels.terms import Terms
from smallcnn.compiler.specs import Sink, Tile


class Rows:
    """The algorithm and its register tiling. `read(k, x, y, group, tap)`; `reduction` is the extents of k and taps.

    `ready`: see `Terms`.
    """

    def __init__(
        self,
        pipe: Pipe,
        sink: Sink,
        of: Bytes | None,
        read: Callable[..., Any],
        reduction: tuple[int, ...],
        tile: Tile,
        plane: tuple[int, int],
        *,
        ready: bool = False,
    ) -> None:
        self.pipe, self.sink, self.tile, self.plane = pipe, sink, tile, plane
        self.c, self.x, self.y = c, x, y = variables("c", "x", "y")
        self.g = variables("g") if sink.groups > 1 else []
        self.terms = terms = Terms(pipe, sink, of, reduction, tile, shared=bool(self.g), ready=ready)
        self.sum, self.out = hl.Func("row_sum"), hl.Func("rows")
        at = (c, x, y, *self.g)
        group = self.g[0] if self.g else 0
        self.sum[at] = terms.start(c, *self.g)
        place = lambda pixel, k, *tap: read(k, *pixel, group, *(tap or (0,)))  # noqa: E731
        self.sum[at] += terms.product(c, self.g, (x, y), place)
        finish = pipe.epilogue(
            sink, lambda step: pipe.operand(self._extents(plane[1]), self._strides(step.pitch), step.number)
        )
        self.out[at] = finish(terms.whole(self.sum[at], self.g, (x, y), place), *at)
        self.feeds: list[Any] = []

    def schedule(self, rows: int = 0) -> Any:
        """All requested rows pass a tile's weights before the next lanes start. With `rows`: in strips; returns their
        loop variable."""
        vector, out, c, x, y = self.pipe.machine.vector, self.out, self.c, self.x, self.y
        co, ci, xo, xi, strips, inner = variables("co", "ci", "xo", "xi", "strips", "inner")
        out.split(c, co, ci, vector * self.tile.vectors, SHIFT).split(x, xo, xi, self.tile.pixels, SHIFT)
        within = [y]
        if rows == 1:  # Halide follows several stages from row to row, but not from one part of a split to the next
            strips, within = y, []
        elif rows:
            out.split(y, strips, inner, rows, SHIFT if self.plane[1] % rows else EXACT)
            within = [inner]
        out.reorder(ci, xi, xo, *within, co, *self.g, *([strips] if rows else []))
        out.vectorize(ci, self.pipe.stored(self.sink, self.tile.vectors)).unroll(ci).unroll(xi)
        self.terms.schedule(self.sum, c, x, y, *self.g, of=out, at=xo, lanes=co)
        if self.terms.staged is not None:
            if rows:
                self.terms.staged.compute_at(out, strips)
            else:
                self.feeds = [self.terms.staged]
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
