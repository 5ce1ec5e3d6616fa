"""Depthwise convolution, one filter per lane, any kernel, stride and padding; and with the pointwise one behind it.

    out[c, x, y] = epilogue(bias[c] + sum over i, j of weight[c, j, i] * source(c, x * stride + j - left, ...))

The schedule computes `pixels` neighbours of one vector of lanes in registers, all taps unrolled; the border's zeros cost
nothing inside, because Halide splits the loops where it begins.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import halide as hl

from smallcnn.compiler.kernels.matmul import Product, Tile
from smallcnn.compiler.kernels.pipe import Machine, Pipe, Step, variables


@dataclass(frozen=True)
class Depthwise:
    """(height, width, lanes) -> (out_height, out_width, lanes)."""

    height: int
    width: int
    out_height: int
    out_width: int
    lanes: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    before: tuple[int, int]  # zeros above and to the left
    pitch: int
    out_pitch: int
    epilogue: tuple[Step, ...]
    pixels: int
    first: str = ""  # an activation of what is read

    def build(self, machine: Machine) -> Any:
        """The pipeline. Operands: source, weight, bias, epilogue's, output (lanes, x, y)."""
        pipe = Pipe(machine)
        source = pipe.operand((self.lanes, self.width, self.height), (1, self.pitch, self.pitch * self.width))
        taps = Taps(pipe, self, bordered(source, self))
        taps.schedule()
        layout = (1, self.out_pitch, self.out_pitch * self.out_width)
        return pipe.output(taps.out, (self.lanes, self.out_width, None), layout), pipe.parameters


@dataclass(frozen=True)
class Separable:
    """A depthwise convolution and the pointwise one that reads it: `rows` of pixels at a time stay in the cache."""

    depthwise: Depthwise
    lanes: int
    out_pitch: int
    epilogue: tuple[Step, ...]
    tile: Tile
    rows: int
    channels: int
    groups: int = 1

    def build(self, machine: Machine) -> Any:
        """The pipeline. Operands: source, depthwise's, weight, bias, epilogue's, output (lanes, pixels, 1)."""
        pipe, first = Pipe(machine), self.depthwise
        source = pipe.operand((first.lanes, first.width, first.height), (1, first.pitch, first.pitch * first.width))
        taps = Taps(pipe, first, bordered(source, first))
        product = Product(pipe, self, lambda k, p, _: taps.out[k, p % first.out_width, p / first.out_width])
        strip = product.schedule(self.tile, self.rows * first.out_width)
        taps.schedule()
        taps.out.compute_at(product.out, strip)
        return product.finish()

    @property
    def scratch(self) -> int:
        """Floats of working memory."""
        return self.depthwise.lanes * self.depthwise.out_width * self.rows


def bordered(source: Any, spec: Depthwise) -> Callable[..., Any]:
    """source(c, x, y) with x and y counted from the padded corner, zero outside."""
    (top, left), none = spec.before, (hl.Expr(), hl.Expr())
    func = hl.BoundaryConditions.constant_exterior(source, 0.0, [none, (0, spec.width), (0, spec.height)])
    read = lambda c, x, y: func[c, x - left, y - top]  # noqa: E731
    if spec.first == "relu":
        return lambda c, x, y: hl.max(read(c, x, y), 0.0)
    return read


class Taps:
    """The algorithm and its schedule."""

    def __init__(self, pipe: Pipe, spec: Depthwise, source: Callable[..., Any]) -> None:
        self.pipe, self.spec = pipe, spec
        rows, columns = spec.kernel
        down, right = spec.stride
        lanes = spec.lanes
        self.c, self.x, self.y = c, x, y = variables("c", "x", "y")
        self.r = r = hl.RDom([(0, columns), (0, rows)], "taps")
        weight = pipe.operand((lanes, columns, rows), (1, lanes, lanes * columns))
        bias = pipe.vector(lanes)
        self.sum, self.out = hl.Func("tapped"), hl.Func("depthwise")
        self.sum[c, x, y] = bias[c]
        self.sum[c, x, y] += weight[c, r[0], r[1]] * source(c, x * right + r[0], y * down + r[1])
        like = lambda step: pipe.operand(  # noqa: E731
            (lanes, spec.out_width, None), (1, step.pitch, step.pitch * spec.out_width)
        )
        self.out[c, x, y] = pipe.epilogue(spec.epilogue, lanes, like)(self.sum[c, x, y], c, x, y)

    def schedule(self) -> None:
        """Registers hold `pixels` sums of one vector; all lanes of those pixels before the next ones (memory in order)."""
        vector = self.pipe.machine.vector
        c, x, y, out = self.c, self.x, self.y, self.out
        co, ci, xo, xi = variables("co", "ci", "xo", "xi")
        out.split(c, co, ci, vector, hl.TailStrategy.ShiftInwards)
        out.split(x, xo, xi, self.spec.pixels, hl.TailStrategy.ShiftInwards)
        out.reorder(ci, xi, co, xo, y).vectorize(ci).unroll(xi)
        self.sum.compute_at(out, co).vectorize(c, vector).unroll(x)
        update = self.sum.update().reorder(c, x, self.r[0], self.r[1]).vectorize(c, vector).unroll(x)
        if self.spec.kernel[0] * self.spec.kernel[1] <= 25:
            update.unroll(self.r[0]).unroll(self.r[1])
        else:
            update.unroll(self.r[0])
