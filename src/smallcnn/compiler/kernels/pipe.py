"""Code shared by all kernels: operands with constant shapes, epilogues, the finished Halide pipeline."""

from collections.abc import Callable, Sequence
from typing import Any

import halide as hl

from smallcnn.compiler.arithmetic import Machine
from smallcnn.compiler.prefetch import MARK
from smallcnn.compiler.specs import Elementwise, Sink, Window
from smallcnn.ir.types import SIZES, Number

SHIFT, EXACT, GUARD = hl.TailStrategy.ShiftInwards, hl.TailStrategy.RoundUp, hl.TailStrategy.GuardWithIf
TYPES = {"float32": hl.Float(32), "uint8": hl.UInt(8), "int8": hl.Int(8), "int32": hl.Int(32)}
ANY = (hl.Expr(), hl.Expr())
"""A dimension without a border."""


class Pipe:
    """Collects the operands of one kernel while its algorithm is defined."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.parameters: list[Any] = []

    def operand(
        self, extents: Sequence[int | None], strides: Sequence[int], number: Number = "float32", ahead: int = 0
    ) -> Any:
        """The next input, its dimension 0 innermost; an extent of None is not fixed. Each read also fetches what lies
        `ahead` bytes further on, if not 0 (`prefetch`)."""
        name = f"operand{len(self.parameters)}" + (f"{MARK}{ahead}" if ahead else "")
        param = hl.ImageParam(TYPES[number], len(strides), name)
        for i, (extent, stride) in enumerate(zip(extents, strides, strict=True)):
            if extent is not None:
                param.dim(i).set_bounds(0, extent)
            param.dim(i).set_stride(stride)
        self.parameters.append(param)
        return param

    def vector(self, length: int) -> Any:
        """The next input, one value per lane."""
        return self.operand((length,), (1,))

    def plane(self, lanes: int, width: int, height: int, pitch: int, number: Number = "float32") -> Any:
        """The next input, a map."""
        return self.operand((lanes, width, height), (1, pitch, pitch * width), number)

    def width(self, lanes: int, *numbers: Number) -> int:
        """Lanes computed together: a register of the largest of these numbers, if there are as many."""
        vector, size = self.machine.vector, max(SIZES[number] for number in numbers)
        return max(n * vector for n in (1, 2, 4) if n == 1 or (n * size <= 4 and n * vector <= lanes))

    def stored(self, sink: Sink, vectors: int) -> int:
        """Lanes that follow a register tile's sums together: those of four or two vectors where instructions pack
        bytes."""
        packs = sink.number == "uint8" and self.machine.packs
        return self.machine.vector * (next(n for n in (4, 2, 1) if vectors % n == 0) if packs else 1)

    def epilogue(self, sink: Sink, like: Callable[[Elementwise], Any]) -> Callable[..., Any]:
        """Turns (sum, lane, *place) into the result; `like(step)` makes a "plus" its operand, shaped as the output."""
        applied = [self._step(step, sink, like) for step in sink.epilogue]

        def apply(value: Any, *place: Any) -> Any:
            for one in applied:
                value = one(value, *place)
            return hl.u8(value) if sink.number == "uint8" and applied else value

        return apply

    def _step(self, step: Elementwise, sink: Sink, like: Callable[[Elementwise], Any]) -> Callable[..., Any]:
        lanes = sink.lanes * sink.groups

        def at(c: Any, place: Sequence[Any]) -> Any:  # the lane among all groups'
            return c if sink.groups == 1 else c + place[-1] * sink.lanes

        match step.kind:
            case "relu":
                return lambda v, *_: hl.max(v, 0.0)
            case "relu6":
                return lambda v, *_: hl.max(hl.min(v, 6.0), 0.0)
            case "clip":
                return lambda v, *_: hl.max(hl.min(v, hl.f32(step.high)), hl.f32(step.low))
            case "leaky_relu":
                return lambda v, *_: hl.select(v > 0.0, v, v * hl.f32(step.low))
            case "hard_sigmoid":
                return lambda v, *_: hl.max(hl.min(v + 3.0, 6.0), 0.0) * hl.f32(1 / 6)
            case "hard_swish":
                return lambda v, *_: v * (hl.max(hl.min(v + 3.0, 6.0), 0.0) * hl.f32(1 / 6))
            case "sigmoid":
                return lambda v, *_: 1.0 / (1.0 + hl.exp(-v))
            case "exp":
                return lambda v, *_: hl.exp(v)
            case "prelu":
                slope = self.vector(lanes)
                return lambda v, c, *place: hl.select(v > 0.0, v, v * slope[at(c, place)])
            case "affine":
                scale, shift = self.vector(lanes), self.vector(lanes)
                return lambda v, c, *place: v * scale[at(c, place)] + shift[at(c, place)]
            case "quantize":
                scale, zero = self.vector(lanes), self.vector(lanes)

                def quantize(v: Any, c: Any, *place: Any) -> Any:
                    nearest = hl.strict_float(hl.round(v / scale[at(c, place)]))  # a real division, ties to even
                    stored = hl.max(hl.min(nearest + zero[at(c, place)], hl.f32(step.high)), hl.f32(step.low))
                    return hl.cast(TYPES[step.number], stored)

                return quantize
            case "dequantize":
                scale, zero = self.vector(lanes), self.vector(lanes)
                return lambda v, c, *place: hl.strict_float((hl.f32(v) - zero[at(c, place)]) * scale[at(c, place)])
            case "plus" | "minus" | "from":
                other = like(step)
                if step.kind == "plus":
                    return lambda v, *place: v + other[place]
                return lambda v, *place: v - other[place] if step.kind == "minus" else other[place] - v
            case "requantize" | "rescale":
                multiplier, offset = self.vector(lanes), self._offset()
                offset = None if step.kind == "rescale" and self.machine.rounds else offset
                return lambda v, c, *place: rounded(hl.f32(v) * multiplier[at(c, place)], offset, step.high > 0)
            case "scale":
                own = self.operand((2,), (1,))
                return lambda v, *_: (hl.f32(v) - own[1]) * own[0]
            case "term":
                of, bytes = self.operand((2,), (1,)), like(step)
                return lambda v, *place: hl.strict_float(v + (hl.f32(bytes[place]) - of[1]) * of[0])
            case "swish":
                own = self.operand((3,), (1,))

                def swish(v: Any, *_: Any) -> Any:
                    x = (hl.f32(hl.i32(v)) - own[1]) * own[0]
                    return hl.strict_float(x * (hl.max(hl.min(x + 3.0, 6.0), 0.0) * own[2]))

                return swish
            case "round":
                offset = self._offset()
                return lambda v, *_: rounded(v, offset)
            case "bound":
                return lambda v, *_: hl.max(hl.min(hl.u32(v), hl.u32(int(step.high))), hl.u32(int(step.low)))
            case "table":
                entries = self.operand((256,), (1,), "uint8")
                return lambda v, *_: hl.u32(entries[hl.i32(hl.u8(v))])
            case kind:
                raise NotImplementedError(f"no epilogue {kind}")

    def _offset(self) -> Any:
        """The next input: what turns a rounded number's bits into a byte."""
        return self.operand((1,), (1,), "int32")[0]

    def output(
        self, func: Any, extents: Sequence[int | None], strides: Sequence[int], start: int = 1, whole: int = 1
    ) -> tuple[Any, list[Any]]:
        """Fixes the output's layout; returns the finished pipeline and its operands.

        Along a dimension that is not fixed, a thread's range starts at a multiple of `start` and has a multiple of
        `whole` elements.
        """
        buffer = func.output_buffer()
        for i, (extent, stride) in enumerate(zip(extents, strides, strict=True)):
            if extent is not None:
                buffer.dim(i).set_bounds(0, extent)
            elif start > 1:
                buffer.dim(i).set_min(buffer.dim(i).min() / start * start)
                buffer.dim(i).set_extent(buffer.dim(i).extent() / whole * whole)
            buffer.dim(i).set_stride(stride)
        return hl.Pipeline([func]), self.parameters


class Plane:
    """What kernels over (lane, x, y) share: their output, whole or in strips. `out` is set by the kernel."""

    out: Any

    def __init__(self, pipe: Pipe, window: Window, sink: Sink) -> None:
        self.pipe, self.window, self.sink = pipe, window, sink
        self.c, self.x, self.y = variables("c", "x", "y")
        self.feeds: list[Any] = []
        self._start = self._whole = 1

    def epilogue(self) -> Callable[..., Any]:
        """Turns (value, lane, x, y) into the result."""
        plane = self.sink.lanes, self.window.out_width, self.window.out_height
        return self.pipe.epilogue(self.sink, lambda step: self.pipe.plane(*plane, step.pitch, step.number))

    def strips(self, rows: int) -> Any:
        """Computes the scheduled output in strips of rows; returns their loop variable."""
        if rows == 1:  # not split: see `Rows.schedule`
            return self.y
        (strips,) = variables("strips")
        partial = self.window.out_height % rows > 0
        self._start, self._whole = rows, 1 if partial else rows
        self.out.split(self.y, strips, self.y, rows, SHIFT if partial else EXACT)
        return strips

    def finish(self) -> tuple[Any, list[Any]]:
        """The pipeline and its operands."""
        pitch, width = self.sink.pitch, self.window.out_width
        layout = (1, pitch, pitch * width)
        return self.pipe.output(self.out, (self.sink.lanes, width, None), layout, self._start, self._whole)


def rounded(steps: Any, offset: Any, large: bool = False) -> Any:
    """The nearest whole numbers, ties to even, as bytes; without an offset, of a zero of 0.

    The sum with 1.5 * 2**23 has the unit 1, so its bits less its own are the rounded number, if that is below 2**22;
    `offset` is its own bits less a zero.
    """
    if large:
        steps = hl.max(hl.min(steps, hl.f32(2.0**21)), hl.f32(-(2.0**21)))
    if offset is None:
        whole = hl.i32(hl.strict_float(hl.round(steps)))  # no product and sum of an image's pixel are fused
    else:
        whole = hl.reinterpret(hl.Int(32), hl.strict_float(steps + hl.f32(1.5 * 2**23))) - offset
    return hl.min(hl.u32(hl.max(whole, 0)), hl.u32(255))


def constant(number: Number, value: float) -> Any:
    """A number of this type."""
    return hl.f32(value) if number == "float32" else hl.cast(TYPES[number], int(value))


def lane(index: Any) -> Any:
    """An index read from a table; Halide must be told its range."""
    return hl.unsafe_promise_clamped(index, 0, 1 << 30)


def variables(*names: str) -> Any:
    """Halide variables."""
    return [hl.Var(name) for name in names]
