"""Sums over channels as a matrix product: pointwise and fully connected layers, and kernels that end in one.

    out[c, p, g] = epilogue(bias[c, g] + sum over k of weight[c, k, g] * source(k, p, g))

p counts pixels, g groups. The schedule keeps a tile of pixels x vectors of sums in registers while k runs: each k takes
one load per vector of weights and one broadcast per pixel, and feeds pixels * vectors multiply-adds. Weights are packed
(lane, k, vector) so that k walks through memory; the panel of a tile's vectors stays in the first-level cache while all
pixels pass. One thread of a Zen 3 (16 registers of 8 floats) reaches 93 to 97 % of its multiply-add peak with 5x2, 6x2
and 4x3 where the tiles fit the shape.
"""

from typing import Any

import halide as hl

from smallcnn.compiler.arithmetic import Bytes, Machine, depth_of
from smallcnn.compiler.kernels.pipe import EXACT, SHIFT, Pipe, lane, variables
from smallcnn.compiler.kernels.terms import Read, Terms, number_of
from smallcnn.compiler.specs import Pointwise, Sink, Tile


def pointwise(spec: Pointwise, machine: Machine) -> Any:
    """1x1 convolution over flattened pixels."""
    pipe = Pipe(machine)
    source, groups = spec.source, spec.sink.groups
    depth, number = depth_of(source.channels, spec.bytes, machine), number_of(spec.bytes)
    if source.table:
        arena = pipe.operand((None, None), (1, source.pitch), number)
        run = source.run
        entries = max(depth, machine.converted(depth) if spec.bytes else 0) // run
        table = pipe.operand((entries, groups), (1, entries), "int32")
        read = lambda k, p, g: arena[lane(table[k / run, g]) + k % run, p]  # noqa: E731
        product = Product(pipe, spec.sink, spec.bytes, read, (depth,), spec.tile, run=run)
    else:
        maps = pipe.operand((depth, None, groups), (1, source.pitch, source.step), number)
        product = Product(pipe, spec.sink, spec.bytes, lambda k, p, g: maps[k, p, g], (depth,), spec.tile)
    product.schedule()
    return product.finish()


class Product:
    """The algorithm and its register tiling. `source(k, p, g, *taps)`; `reduction` is the extents of k and taps.

    Pixels are counted through the rows of `plane` (width, height); a tile may hold pixels of two rows. `ready`, `run`:
    see `Terms`.
    """

    def __init__(
        self,
        pipe: Pipe,
        sink: Sink,
        of: Bytes | None,
        source: Read,
        reduction: tuple[int, ...],
        tile: Tile,
        plane: tuple[int, int] = (1, 1),
        *,
        ready: bool = False,
        run: int = 1,
    ) -> None:
        self.pipe, self.sink, self.tile, self.plane = pipe, sink, tile, plane
        lanes, groups = sink.lanes, sink.groups
        self.c, self.p, self.g = c, p, g = variables("c", "p", "g")
        self.terms = terms = Terms(pipe, sink, of, reduction, tile, shared=True, ready=ready, run=run)
        self.sum, self.out = hl.Func("sum"), hl.Func("out")
        self.sum[c, p, g] = terms.start(c, g)
        read = lambda pixel, k, *taps: source(k, *pixel, g, *taps)  # noqa: E731
        self.sum[c, p, g] += terms.product(c, (g,), (p,), read)
        finish = pipe.epilogue(
            sink, lambda step: pipe.operand((lanes, None, groups), (1, step.pitch, lanes), step.number)
        )
        self.out[c, p, g] = finish(terms.whole(self.sum[c, p, g], (g,), (p,), read), c, p, g)

    def schedule(self, rows: int = 0) -> Any:
        """Tiles pixels and lanes. With `rows` of the plane: in strips; returns their loop variable."""
        vector, (width, height) = self.pipe.machine.vector, self.plane
        c, p, g, out = self.c, self.p, self.g, self.out
        co, ci, po, pi, strips = variables("co", "ci", "po", "pi", "strips")
        self.start, self.whole = max(rows * width, 1), width if rows and height % rows else max(rows * width, 1)
        out.split(c, co, ci, vector * self.tile.vectors, SHIFT)
        if rows:
            out.split(p, strips, p, rows * width, SHIFT if height % rows else EXACT)
        out.split(p, po, pi, self.tile.pixels, SHIFT)
        out.reorder(ci, pi, po, co, g, *([strips] if rows else []))
        out.vectorize(ci, self.pipe.stored(self.sink, self.tile.vectors)).unroll(ci).unroll(pi)
        self.terms.schedule(self.sum, c, p, g, of=out, at=po, lanes=co)
        if self.terms.staged is not None:
            self.terms.staged.compute_at(out, strips if rows else po)
        return strips

    def finish(self) -> tuple[Any, list[Any]]:
        """The pipeline and its operands."""
        lanes = self.sink.lanes
        return self.pipe.output(
            self.out,
            (lanes, None, self.sink.groups if self.start > 1 else None),
            (1, self.sink.pitch, lanes),
            self.start,
            self.whole,
        )
