"""Sums of products of a source and weights, of floats or of bytes: what tiles of matrix products have in common.

Of floats, each term takes one lane of the source for all lanes of a vector. Of bytes, `dot` neighbouring lanes are
multiplied by as many weights of each lane and added to its sum, which is one instruction: vpdpbusd (4 bytes); sdot (4
bytes less 128, which the bias makes up for); or, of bytes widened to 16 bits, pmaddwd and its like (2) or smlal (1).
Weights are packed (dot, lane, k, vector, group).
"""

from collections.abc import Callable, Sequence
from typing import Any

import halide as hl

from smallcnn.compiler.arithmetic import RUN, Bytes, Machine
from smallcnn.compiler.kernels.pipe import EXACT, GUARD, Pipe, variables
from smallcnn.compiler.specs import Sink, Tile
from smallcnn.compiler.storage import up
from smallcnn.ir.types import SIZES, Number

Read = Callable[..., Any]


class Terms:
    """The operands (weight, bias) and the reduction. `reduction` is the extents of k and taps.

    `ready`: whoever writes the source converts its bytes as `multiplied` does. `run`: lanes of the source that are
    neighbours.
    """

    def __init__(
        self,
        pipe: Pipe,
        sink: Sink,
        of: Bytes | None,
        reduction: Sequence[int],
        tile: Tile,
        *,
        shared: bool,
        ready: bool = False,
        run: int = 1,
    ) -> None:
        self.pipe, self.of, self.tile, self.ready, self.run = pipe, of, tile, ready, run
        self.staged: Any = None
        self.panel: Any = None
        self.total: Any = None
        self.vector, lanes, first = pipe.machine.vector, sink.lanes, reduction[0]
        self.dot = pipe.machine.dot if of else 1
        steps = (up(first, self.dot) // self.dot, *reduction[1:])
        self.reduction = (up(first, self.dot), *reduction[1:])
        self.r = hl.RDom([(0, extent) for extent in ((self.dot, *steps) if of else steps)], "k")
        self.k = [self.r[i] for i in range(self.r.dimensions())]
        self.row, depth = self.k[1 if of else 0], steps[0]
        for variable, extent in zip(self.k[2 if of else 1 :], steps[1:], strict=True):
            self.row, depth = self.row + variable * depth, depth * extent
        inner = [(self.dot, 1)] if of else []
        size = self.dot * self.vector
        dims = [*inner, (self.vector, self.dot), (depth, size), (lanes // self.vector, size * depth)]
        dims += [(sink.groups, self.dot * depth * lanes)] if shared else []
        extents, strides = zip(*dims, strict=True)
        number: Number = "int8" if of else "float32"
        panel = tile.vectors * depth * size * SIZES[number]
        self.weight = pipe.operand(extents, strides, number, ahead=panel if tile.ahead else 0)
        self.bias = pipe.operand(
            (lanes, sink.groups) if shared else (lanes,), (1, lanes) if shared else (1,), "int32" if of else "float32"
        )

    def start(self, c: Any, *group: Any) -> Any:
        """The first value of a sum."""
        return self.bias[(c, *group)]

    def product(self, c: Any, group: Sequence[Any], pixel: Sequence[Any], read: Read) -> Any:
        """One term at a pixel; `read(pixel, k, taps)`."""
        if self.of is None:
            place = (c % self.vector, self.row, c / self.vector, *group)
            return self.weight[place] * read(pixel, self.k[0], *self.k[1:])
        at, taps, machine = self.k[1] * self.dot + self.k[0], self.k[2:], self.pipe.machine
        t, lane, row, *more = variables("t", "lane", "row", "of")[: 3 + len(group)]
        stored = self.weight[(t, lane % self.vector, row, lane / self.vector, *more)]
        self.panel = hl.Func("panel")
        self.panel[(t, lane, row, *more)] = multiplied_by(stored, self.of, machine)
        weight = self.panel[(self.k[0], c, self.row, *group)]
        if self.ready or (self.dot > 2 and not machine.lowered):
            return hl.i32(read(pixel, at, *taps)) * hl.i32(weight)
        k, *tap = variables("k", "tap", "row")[: 1 + len(taps)]
        self.staged = hl.Func("staged")
        self.staged[(k, *pixel, *group, *tap)] = multiplied(read(pixel, k, *tap), self.of, machine)
        return hl.i32(self.staged[(at, *pixel, *group, *taps)]) * hl.i32(weight)

    def whole(self, sums: Any, group: Sequence[Any], pixel: Sequence[Any], read: Read) -> Any:
        """The sums at a pixel without what the weights' zero adds to them: itself times all bytes that were read."""
        of, machine = self.of, self.pipe.machine
        if of is None or not of.summed(machine):
            return sums
        terms = hl.RDom([(0, extent) for extent in self.reduction], "total")
        at = [terms[i] for i in range(terms.dimensions())]
        value = self.staged[(at[0], *pixel, *group, *at[1:])] if self.staged else read(pixel, *at)
        self.total, self.all = hl.Func("total"), at
        self.total[(*pixel, *group)] = hl.i32(0)
        self.total[(*pixel, *group)] += hl.i32(value)
        return sums - self.total[(*pixel, *group)] * of.weight_zero

    def schedule(self, sums: Any, c: Any, pixel: Any, *outer: Any, of: Any, at: Any, lanes: Any) -> None:
        """A tile of sums in registers: `outer` loops, then terms, pixels, vectors of lanes; in the loop `at` of the
        function `of`.

        Weights that are widened are so for all tiles of the same `lanes`. Where `staged` bytes are converted is the
        caller's to say.
        """
        sums.compute_at(of, at).vectorize(c, self.vector).unroll(c).unroll(pixel)
        if self.total is not None:
            self._schedule_total(of, at, pixel)
        (one,) = variables("one")
        if self.staged is not None:
            width = RUN if self.run == RUN else max(self.dot, 2) * self.vector
            self.staged.vectorize(self.staged.args()[0], width, EXACT)
        if self.tile.widened:
            t, lane, *_ = self.panel.args()
            self.panel.compute_at(of, lanes).bound(t, 0, self.dot).split(lane, lane, one, self.vector, EXACT)
            self.panel.reorder(t, one, lane).vectorize(t).vectorize(one)
        in_registers(sums.update(), c, pixel, self.k, outer, self.tile, self.vector, self.dot if self.of else 0)

    def _schedule_total(self, of: Any, at: Any, pixel: Any) -> None:
        """The sums of all bytes, for a tile's pixels; as many bytes at once as divide their number."""
        k, *taps = self.all
        width = next(n for n in (64, 32, 16, 8, 4) if self.reduction[0] % n == 0)
        steps, together = hl.RVar("steps"), hl.RVar("together")
        self.total.compute_at(of, at).unroll(pixel)
        update = self.total.update().split(k, steps, together, width).reorder(together, pixel, steps, *taps)
        update.atomic().vectorize(together).unroll(pixel)


def in_registers(
    update: Any, c: Any, pixel: Any, terms: Sequence[Any], outer: Sequence[Any], tile: Tile, vector: int, dot: int
) -> None:
    """A tile of sums in registers, of pixels and vectors of `c`, within the loops over `terms` and `outer`. Of bytes,
    the first of the terms are the `dot` that one instruction multiplies; of floats, `dot` is 0."""
    if not dot:
        update.reorder(c, pixel, *terms, *outer).vectorize(c, vector).unroll(c).unroll(pixel)
    else:
        several, one = variables("several", "one")
        together, *steps = terms
        update.split(c, several, one, vector, EXACT).reorder(together, one, several, pixel, *steps, *outer)
        update.atomic().vectorize(together, dot).vectorize(one, vector).unroll(several).unroll(pixel)
    if tile.unroll > 1:
        update.unroll(terms[1 if dot else 0], tile.unroll, GUARD)


def multiplied(value: Any, of: Bytes | None, machine: Machine) -> Any:
    """A byte of the source as the instruction takes it; floats as they are."""
    if of is None:
        return value
    if machine.dot <= 2:
        return hl.i16(value)
    return hl.reinterpret(hl.Int(8), value ^ hl.u8(0x80)) if machine.lowered else value


def multiplied_by(weight: Any, of: Bytes, machine: Machine) -> Any:
    """A weight as the instruction takes it."""
    if machine.dot > 2:
        return weight
    return hl.i16(weight) - of.weight_zero if of.weight_zero else hl.i16(weight)


def number_of(of: Bytes | None) -> Number:
    """The number type of a source."""
    return "uint8" if of else "float32"
