"""Inverted residuals as one kernel: expand, depthwise, project, with a sliding window of expanded rows.

    expanded[c, x, y]  = epilogue(bias[c] + sum over k of weight[c, k] * source[k, x, y])
    depthwise[c, x, y] = epilogue(bias[c] + sum over taps of weight[c, i, j] * expanded[...])     zero outside the plane
    out[c, p]          = epilogue(bias[c] + sum over k of weight[c, k] * depthwise[k, p])

For each strip of output rows only those expanded rows are computed that the strip before did not need; they stay in a
buffer of a few rows, folded so that it fits the second-level cache. The expanded map, six times as wide as what the
block reads and writes, never exists as a whole (MobileNetV2, section 5.1).
"""

from typing import Any

import halide as hl

from smallcnn.compiler.kernels.depthwise import Taps
from smallcnn.compiler.kernels.matmul import Product
from smallcnn.compiler.kernels.pipe import GUARD, SHIFT, Pipe, variables
from smallcnn.compiler.specs import Bottleneck, Machine


def bottleneck(spec: Bottleneck, machine: Machine) -> Any:
    """Expand, depthwise, project."""
    pipe, window, vector = Pipe(machine), spec.depthwise.window, machine.vector
    channels, lanes = spec.expand_source.channels, spec.expand.lanes
    source = pipe.plane(channels, window.width, window.height, spec.expand_source.pitch)
    weight = pipe.operand((vector, channels, lanes // vector), (1, vector, vector * channels))
    bias = pipe.vector(lanes)
    c, x, y = variables("c", "x", "y")
    r = hl.RDom([(0, channels)], "k")
    total, expanded = hl.Func("expand_sum"), hl.Func("expanded")
    total[c, x, y] = bias[c]
    total[c, x, y] += weight[c % vector, r[0], c / vector] * source[r[0], x, y]
    finish = pipe.epilogue(spec.expand, lambda step: pipe.plane(lanes, window.width, window.height, step.pitch))
    expanded[c, x, y] = finish(total[c, x, y], c, x, y)
    taps = Taps(pipe, spec.depthwise, expanded)
    product = Product(pipe, spec.sink, taps.flat, (spec.source.channels,))
    strip = product.schedule(spec.tile, window.out_width, spec.rows, window.out_height)
    taps.schedule()
    taps.out.compute_at(product.out, strip)
    co, ci, xo, xi = variables("co", "ci", "xo", "xi")
    tile = spec.expand_tile
    expanded.store_root().compute_at(product.out, strip).fold_storage(y, spec.fold)
    expanded.split(c, co, ci, vector * tile.vectors, SHIFT).split(x, xo, xi, tile.pixels, SHIFT)
    expanded.reorder(ci, xi, xo, y, co).vectorize(ci, vector).unroll(ci).unroll(xi)
    total.compute_at(expanded, xo).vectorize(c, vector).unroll(c).unroll(x)
    update = total.update().reorder(c, x, r[0], y).vectorize(c, vector).unroll(c).unroll(x)
    if tile.unroll > 1:
        update.unroll(r[0], tile.unroll, GUARD)
    return product.finish()
