"""Inverted residuals as one kernel: expand, depthwise, project, with a sliding window of expanded rows.

    expanded[c, x, y]  = act(bias[c] + sum over k of weight[c, k] * source[k, x, y])          as wide as `expand.lanes`
    tapped[c, x, y]    = act(bias[c] + sum over taps of weight[c, i, j] * expanded[...])      zero outside the plane
    out[c, p]          = bias[c] + sum over k of weight[c, k] * tapped[k, p] (+ residual)

For each strip of output rows only the expanded rows that the strip before did not need are computed; they stay in a
buffer of a few rows, folded so that it fits the second-level cache. The expanded map, six times as wide as what the
block reads and writes, never exists as a whole (MobileNetV2, section 5.1).
"""

from dataclasses import dataclass
from typing import Any

import halide as hl

from smallcnn.compiler.kernels.depthwise import Depthwise, Taps, bordered
from smallcnn.compiler.kernels.matmul import Product, Tile
from smallcnn.compiler.kernels.pipe import Machine, Pipe, Step, variables


@dataclass(frozen=True)
class Expand:
    """The first pointwise convolution: `channels` side by side in, `lanes` out, tiles along a row."""

    channels: int
    lanes: int
    pitch: int
    epilogue: tuple[Step, ...]
    tile: Tile


@dataclass(frozen=True)
class Bottleneck:
    """(height, width, channels) -> (out_height, out_width, lanes); `fold` rows of the expanded map are kept."""

    expand: Expand
    depthwise: Depthwise
    lanes: int
    channels: int
    out_pitch: int
    epilogue: tuple[Step, ...]
    tile: Tile
    rows: int
    fold: int
    groups: int = 1

    def build(self, machine: Machine) -> Any:
        """The pipeline. Operands: source, expand's weight and bias, depthwise's, project's, epilogue's, output."""
        pipe, first, taps_spec = Pipe(machine), self.expand, self.depthwise
        width, height, vector = taps_spec.width, taps_spec.height, machine.vector
        source = pipe.operand((first.channels, width, height), (1, first.pitch, first.pitch * width))
        weight = pipe.operand(
            (vector, first.channels, first.lanes // vector), (1, vector, vector * first.channels)
        )
        bias = pipe.vector(first.lanes)
        c, x, y = variables("c", "x", "y")
        r = hl.RDom([(0, first.channels)], "k")
        total, expanded = hl.Func("expand_sum"), hl.Func("expanded")
        total[c, x, y] = bias[c]
        total[c, x, y] += weight[c % vector, r[0], c / vector] * source[r[0], x, y]
        expanded[c, x, y] = pipe.epilogue(first.epilogue, first.lanes, _no_map)(total[c, x, y], c, x, y)
        taps = Taps(pipe, taps_spec, bordered(expanded, taps_spec))
        product = Product(pipe, self, lambda k, p, _: taps.out[k, p % taps_spec.out_width, p / taps_spec.out_width])
        strip = product.schedule(self.tile, self.rows * taps_spec.out_width)
        taps.schedule()
        taps.out.compute_at(product.out, strip)
        co, ci, xo, xi = variables("co", "ci", "xo", "xi")
        tile = first.tile
        expanded.store_root().compute_at(product.out, strip).fold_storage(y, self.fold)
        expanded.split(c, co, ci, vector * tile.vectors, hl.TailStrategy.ShiftInwards)
        expanded.split(x, xo, xi, tile.pixels, hl.TailStrategy.ShiftInwards)
        expanded.reorder(ci, xi, xo, y, co).vectorize(ci, vector).unroll(ci).unroll(xi)
        total.compute_at(expanded, xo).vectorize(c, vector).unroll(c).unroll(x)
        update = total.update().reorder(c, x, r[0], y).vectorize(c, vector).unroll(c).unroll(x)
        if tile.unroll > 1:
            update.unroll(r[0], tile.unroll, hl.TailStrategy.GuardWithIf)
        return product.finish()

    @property
    def scratch(self) -> int:
        """Floats of working memory."""
        taps = self.depthwise
        return taps.lanes * (taps.out_width * self.rows + taps.width * self.fold)


def _no_map(_step: Step) -> Any:
    raise NotImplementedError("an intermediate map adds nothing")
