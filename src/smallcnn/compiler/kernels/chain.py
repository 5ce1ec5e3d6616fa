"""Several layers as one kernel, with sliding windows: an inverted residual, or a network's first blocks.

    stage 0   convolution of the image, or pointwise or depthwise of a map
    stage i   pointwise or depthwise of the stage before it, zero outside the plane
    the last  pointwise, flattened, with the epilogue that may add a residual

For each strip of output rows every stage computes only the rows that the previous strip did not need. They stay in a
buffer of a few rows, folded so that everything fits the second-level cache. The maps between the stages never exist as
a whole: in MobileNetV2 they are six times as wide as a block's input and output (section 5.1).
"""

from collections.abc import Callable
from typing import Any

import halide as hl

from smallcnn.compiler.kernels.conv import image_rows
from smallcnn.compiler.kernels.depthwise import Taps
from smallcnn.compiler.kernels.matmul import Product
from smallcnn.compiler.kernels.pipe import GUARD, SHIFT, Pipe, variables
from smallcnn.compiler.specs import Chain, Conv, Depthwise, Machine, Pointwise, Sink, Tile


def chain(spec: Chain, machine: Machine) -> Any:
    """All stages of a specification."""
    pipe = Pipe(machine)
    (width, height), first = spec.plane, spec.stages[0]
    made: list[Any] = []
    source: Any = None
    if isinstance(first, Pointwise):
        source = pipe.plane(first.source.channels, width, height, first.source.pitch)
    elif isinstance(first, Depthwise):
        source = pipe.plane(first.sink.lanes, width, height, first.pitch)
    for stage in spec.stages:
        if isinstance(stage, Depthwise):
            made.append(Taps(pipe, stage, source))
            width, height = stage.window.out_width, stage.window.out_height
        elif isinstance(stage, Conv):
            made.append(_first_conv(pipe, stage))
            width, height = stage.window.out_width, stage.window.out_height
        else:
            read = lambda k, x, y, _, source=source: source[k, x, y]  # noqa: E731
            made.append(Rows(pipe, stage.sink, stage.tile, read, (stage.source.channels,), (width, height)))
        source = made[-1].out
    last = spec.last
    product = Product(pipe, last.sink, lambda k, p, _: source[k, p % width, p / width], (last.source.channels,))
    strip = product.schedule(last.tile, width, spec.rows, height)
    for stage, fold, window in zip(made, spec.folds, spec.windowed, strict=True):
        stage.schedule()
        stage.out.compute_at(product.out, strip)
        if window:
            stage.out.store_root().fold_storage(stage.y, fold)
        for func in stage.feeds:
            func.compute_at(product.out, strip)
    return product.finish()


def _first_conv(pipe: Pipe, spec: Conv) -> "Rows":
    """The convolution of the image, which reads its normalised rows."""
    window, channels = spec.window, spec.source.channels
    rows = image_rows(pipe, spec)
    (down, right), (high, wide) = window.stride, window.kernel

    def read(k: Any, x: Any, y: Any, j: Any) -> Any:
        return rows[x * (right * channels) + k, y * down + j]

    made = Rows(pipe, spec.sink, spec.tile, read, (wide * channels, high), (window.out_width, window.out_height))
    made.feeds = [rows]
    return made


class Rows:
    """A matrix product over (lane, x, y), tiled along rows. `read(k, x, y, tap)`."""

    def __init__(
        self,
        pipe: Pipe,
        sink: Sink,
        tile: Tile,
        read: Callable[..., Any],
        reduction: tuple[int, ...],
        plane: tuple[int, int],
    ) -> None:
        self.vector, self.tile = pipe.machine.vector, tile
        vector, lanes = self.vector, sink.lanes
        self.c, self.x, self.y = c, x, y = variables("c", "x", "y")
        self.r = hl.RDom([(0, extent) for extent in reduction], "k")
        taps = self.r[1] if len(reduction) > 1 else 0
        depth = reduction[0] * (reduction[1] if len(reduction) > 1 else 1)
        weight = pipe.operand((vector, depth, lanes // vector), (1, vector, vector * depth))
        bias = pipe.vector(lanes)
        self.sum, self.out = hl.Func("row_sum"), hl.Func("rows")
        self.sum[c, x, y] = bias[c]
        self.sum[c, x, y] += weight[c % vector, taps * reduction[0] + self.r[0], c / vector] * read(
            self.r[0], x, y, taps
        )
        finish = pipe.epilogue(sink, lambda step: pipe.plane(lanes, *plane, step.pitch))
        self.out[c, x, y] = finish(self.sum[c, x, y], c, x, y)
        self.feeds: list[Any] = []

    def schedule(self) -> None:
        """All requested rows pass a tile's weights before the next lanes start."""
        vector, tile, out = self.vector, self.tile, self.out
        c, x, y = self.c, self.x, self.y
        co, ci, xo, xi = variables("co", "ci", "xo", "xi")
        out.split(c, co, ci, vector * tile.vectors, SHIFT).split(x, xo, xi, tile.pixels, SHIFT)
        out.reorder(ci, xi, xo, y, co).vectorize(ci, vector).unroll(ci).unroll(xi)
        self.sum.compute_at(out, xo).vectorize(c, vector).unroll(c).unroll(x)
        update = self.sum.update()
        update.reorder(c, x, *[self.r[i] for i in range(self.r.dimensions())], y)
        update.vectorize(c, vector).unroll(c).unroll(x)
        if tile.unroll > 1:
            update.unroll(self.r[0], tile.unroll, GUARD)
