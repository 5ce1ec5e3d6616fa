"""Everything that treats each lane alike: pooling, elementwise work, copies, and the image as floats.

    Pool        maximum or average over a window           (lanes, x, y) -> (lanes, x', y')
    GlobalPool  mean over the plane                         (lanes, pixels) -> (lanes)
    Pad         zeros around a map, or rows and columns off
    Lanes       the epilogue alone; "scale" first multiplies by a vector
    Gather      lanes from anywhere, side by side
    Image       bytes to normalised floats
    Response    local response normalisation over channels
"""

from dataclasses import dataclass
from typing import Any

import halide as hl

from smallcnn.compiler.kernels.pipe import Machine, Pipe, Step, lane, variables


@dataclass(frozen=True)
class Pool:
    """Padding never wins a maximum; an average divides by `count` = all of the window, or what lies inside."""

    function: str
    height: int
    width: int
    out_height: int
    out_width: int
    lanes: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    before: tuple[int, int]
    after: tuple[int, int]
    count_padding: bool
    pitch: int
    out_pitch: int
    epilogue: tuple[Step, ...]

    def build(self, machine: Machine) -> Any:
        """The pipeline. Operands: source, epilogue's, output (lanes, x, y)."""
        pipe, none = Pipe(machine), (hl.Expr(), hl.Expr())
        (top, left), (rows, columns), (down, right) = self.before, self.kernel, self.stride
        c, x, y = variables("c", "x", "y")
        source = pipe.operand((self.lanes, self.width, self.height), (1, self.pitch, self.pitch * self.width))
        inside = [none, (0, self.width), (0, self.height)]
        r = hl.RDom([(0, columns), (0, rows)], "window")
        total, out = hl.Func("window_sum"), hl.Func("pool")
        outside = float("-inf") if self.function == "max" else 0.0
        read = hl.BoundaryConditions.constant_exterior(source, hl.f32(outside), inside)
        value = read[c, x * right + r[0] - left, y * down + r[1] - top]
        if self.function == "max":
            total[c, x, y] = hl.f32(outside)
            total[c, x, y] = hl.max(total[c, x, y], value)
            result = total[c, x, y]
        else:
            total[c, x, y] = hl.f32(0.0)
            total[c, x, y] += value
            result = total[c, x, y] / hl.f32(
                self._count(x, columns, right, left, self.width, self.after[1])
                * self._count(y, rows, down, top, self.height, self.after[0])
            )
        finish = pipe.epilogue(self.epilogue, self.lanes, lambda step: _map(pipe, self, step))
        out[c, x, y] = finish(result, c, x, y)
        co, ci = variables("co", "ci")
        out.split(c, co, ci, machine.vector, hl.TailStrategy.ShiftInwards).reorder(ci, x, co, y).vectorize(ci)
        total.compute_at(out, x).vectorize(c, machine.vector)
        update = total.update().reorder(c, x, r[0], r[1]).vectorize(c, machine.vector)
        if rows * columns <= 9:
            update.unroll(r[0]).unroll(r[1])
        layout = (1, self.out_pitch, self.out_pitch * self.out_width)
        return pipe.output(out, (self.lanes, self.out_width, None), layout), pipe.parameters

    def _count(self, at: Any, size: int, stride: int, before: int, extent: int, after: int) -> Any:
        """Pixels of the window that count, along one axis."""
        start = at * stride - before
        if self.count_padding:
            return hl.min(start + size, extent + after) - start
        return hl.min(start + size, extent) - hl.max(start, 0)


@dataclass(frozen=True)
class GlobalPool:
    """Mean over `pixels`."""

    pixels: int
    lanes: int
    pitch: int
    epilogue: tuple[Step, ...]

    def build(self, machine: Machine) -> Any:
        """The pipeline. Operands: source, epilogue's, output (lanes,)."""
        pipe = Pipe(machine)
        (c,), r = variables("c"), hl.RDom([(0, self.pixels)], "pixels")
        source = pipe.operand((self.lanes, self.pixels), (1, self.pitch))
        total, out = hl.Func("plane_sum"), hl.Func("mean")
        total[c] = hl.f32(0.0)
        total[c] += source[c, r[0]]
        finish = pipe.epilogue(self.epilogue, self.lanes, lambda _: pipe.vector(self.lanes))
        out[c] = finish(total[c] * hl.f32(1 / self.pixels), c)
        vectors = max(n for n in (1, 2, 4) if self.lanes % (n * machine.vector) == 0)
        co, ci = variables("co", "ci")
        out.split(c, co, ci, machine.vector * vectors, hl.TailStrategy.ShiftInwards)
        out.vectorize(ci, machine.vector).unroll(ci)
        total.compute_at(out, co).vectorize(c, machine.vector).unroll(c)
        total.update().reorder(c, r[0]).vectorize(c, machine.vector).unroll(c)
        return pipe.output(out, (None,), (1,)), pipe.parameters


@dataclass(frozen=True)
class Pad:
    """Zeros around a map; negative numbers cut."""

    height: int
    width: int
    out_width: int
    lanes: int
    before: tuple[int, int]
    pitch: int
    out_pitch: int
    epilogue: tuple[Step, ...]

    def build(self, machine: Machine) -> Any:
        """The pipeline. Operands: source, epilogue's, output (lanes, x, y)."""
        pipe, none = Pipe(machine), (hl.Expr(), hl.Expr())
        c, x, y = variables("c", "x", "y")
        source = pipe.operand((self.lanes, self.width, self.height), (1, self.pitch, self.pitch * self.width))
        read = hl.BoundaryConditions.constant_exterior(source, 0.0, [none, (0, self.width), (0, self.height)])
        finish = pipe.epilogue(self.epilogue, self.lanes, lambda step: _map(pipe, self, step))
        out = hl.Func("pad")
        out[c, x, y] = finish(read[c, x - self.before[1], y - self.before[0]], c, x, y)
        out.vectorize(c, machine.vector, hl.TailStrategy.ShiftInwards)
        layout = (1, self.out_pitch, self.out_pitch * self.out_width)
        return pipe.output(out, (self.lanes, self.out_width, None), layout), pipe.parameters


@dataclass(frozen=True)
class Lanes:
    """Elementwise over (lanes, pixels). With `scale`, times a vector first."""

    lanes: int
    pitch: int
    scale: bool
    out_pitch: int
    epilogue: tuple[Step, ...]

    def build(self, machine: Machine) -> Any:
        """The pipeline. Operands: source, [vector], epilogue's, output (lanes, pixels)."""
        pipe = Pipe(machine)
        c, p = variables("c", "p")
        source = pipe.operand((self.lanes, None), (1, self.pitch))
        value = source[c, p] * pipe.vector(self.lanes)[c] if self.scale else source[c, p]
        like = lambda step: pipe.operand((self.lanes, None), (1, step.pitch))  # noqa: E731
        out = hl.Func("lanes")
        out[c, p] = pipe.epilogue(self.epilogue, self.lanes, like)(value, c, p)
        out.vectorize(c, machine.vector, hl.TailStrategy.ShiftInwards)
        return pipe.output(out, (self.lanes, None), (1, self.out_pitch)), pipe.parameters


@dataclass(frozen=True)
class Gather:
    """Lane c of the output is lane table[c] of the arena."""

    channels: int
    pitch: int
    out_pitch: int

    def build(self, machine: Machine) -> Any:
        """The pipeline. Operands: the arena, table, output (channels, pixels)."""
        pipe = Pipe(machine)
        c, p = variables("c", "p")
        arena = pipe.operand((None, None), (1, self.pitch))
        table = pipe.operand((self.channels,), (1,), hl.Int(32))
        out = hl.Func("gather")
        out[c, p] = arena[lane(table[c]), p]
        out.unroll(c, 4, hl.TailStrategy.GuardWithIf)
        return pipe.output(out, (self.channels, None), (1, self.out_pitch)), pipe.parameters


@dataclass(frozen=True)
class Image:
    """Bytes (channels, pixels) to floats (lanes, pixels), normalised."""

    channels: int
    out_pitch: int

    def build(self, machine: Machine) -> Any:
        """The pipeline. Operands: image, scale, shift, output (channels, pixels)."""
        pipe = Pipe(machine)
        c, p = variables("c", "p")
        image = pipe.operand((self.channels, None), (1, self.channels), hl.UInt(8))
        scale, shift = pipe.vector(self.channels), pipe.vector(self.channels)
        out = hl.Func("image")
        out[c, p] = hl.f32(image[c, p]) * scale[c] + shift[c]
        return pipe.output(out, (self.channels, None), (1, self.out_pitch)), pipe.parameters


@dataclass(frozen=True)
class Response:
    """x / (bias + alpha / size * sum of squares of `size` neighbouring channels) ** beta."""

    size: int
    alpha: float
    beta: float
    bias: float
    channels: int
    pitch: int
    out_pitch: int
    epilogue: tuple[Step, ...]

    def build(self, machine: Machine) -> Any:
        """The pipeline. Operands: source, epilogue's, output (channels, pixels)."""
        pipe, none = Pipe(machine), (hl.Expr(), hl.Expr())
        c, p = variables("c", "p")
        source = pipe.operand((self.channels, None), (1, self.pitch))
        read = hl.BoundaryConditions.constant_exterior(source, 0.0, [(0, self.channels), none])
        squares = [read[c + i - self.size // 2, p] for i in range(self.size)]
        base = self.bias + (self.alpha / self.size) * sum((s * s for s in squares[1:]), squares[0] * squares[0])
        like = lambda step: pipe.operand((self.channels, None), (1, step.pitch))  # noqa: E731
        out = hl.Func("response")
        value = read[c, p] * hl.exp(hl.log(base) * hl.f32(-self.beta))
        out[c, p] = pipe.epilogue(self.epilogue, self.channels, like)(value, c, p)
        if self.channels >= machine.vector:
            out.vectorize(c, machine.vector, hl.TailStrategy.ShiftInwards)
        return pipe.output(out, (self.channels, None), (1, self.out_pitch)), pipe.parameters


def _map(pipe: Pipe, spec: Any, step: Step) -> Any:
    return pipe.operand((spec.lanes, spec.out_width, None), (1, step.pitch, step.pitch * spec.out_width))
