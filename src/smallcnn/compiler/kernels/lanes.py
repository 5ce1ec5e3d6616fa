"""Kernels that treat every lane alike (padding, elementwise work, changes of the number type, copies, the image as
floats), and local response normalisation, which reads neighbouring lanes."""

from typing import Any

import halide as hl

from smallcnn.compiler.arithmetic import Machine
from smallcnn.compiler.kernels.pipe import ANY, GUARD, SHIFT, Pipe, constant, lane, variables
from smallcnn.compiler.specs import Gather, Image, Lanes, Pad, Response
from smallcnn.compiler.storage import up

_UNROLLED = 9  # channels of a window


def pad(spec: Pad, machine: Machine) -> Any:
    """Adds zeros around a map, or cuts rows and columns."""
    pipe, window, sink = Pipe(machine), spec.window, spec.sink
    c, x, y = variables("c", "x", "y")
    source = pipe.plane(sink.lanes, window.width, window.height, spec.pitch, spec.number)
    zero = constant(spec.number, spec.zero)
    bordered = hl.BoundaryConditions.constant_exterior(source, zero, [ANY, (0, window.width), (0, window.height)])
    finish = pipe.epilogue(
        sink, lambda step: pipe.plane(sink.lanes, window.out_width, window.out_height, step.pitch, step.number)
    )
    out = hl.Func("pad")
    out[c, x, y] = finish(bordered[c, x - window.before[1], y - window.before[0]], c, x, y)
    out.vectorize(c, pipe.width(sink.lanes, spec.number, sink.number), SHIFT)
    return pipe.output(out, (sink.lanes, window.out_width, None), (1, sink.pitch, sink.pitch * window.out_width))


def elementwise(spec: Lanes, machine: Machine) -> Any:
    """An epilogue alone, or a multiplication by a vector and an epilogue."""
    pipe, sink = Pipe(machine), spec.sink
    c, p = variables("c", "p")
    source = pipe.operand((sink.lanes, None), (1, spec.pitch), spec.number)
    value = source[c, p]
    if spec.scale:
        factors = pipe.operand((sink.lanes,), (1,), spec.number)
        value *= factors[c]
        if spec.number != "float32":
            value = (hl.i32(source[c, p]) - spec.zeros[0]) * (hl.i32(factors[c]) - spec.zeros[1])
    finish = pipe.epilogue(sink, lambda step: pipe.operand((sink.lanes, None), (1, step.pitch), step.number))
    out = hl.Func("elementwise")
    out[c, p] = finish(value, c, p)
    out.vectorize(c, machine.vector, SHIFT)
    return pipe.output(out, (sink.lanes, None), (1, sink.pitch))


def gather(spec: Gather, machine: Machine) -> Any:
    """Channel c of the output is lane table[c] of the arena."""
    pipe, channels, lanes = Pipe(machine), spec.source.channels, spec.lanes
    c, p = variables("c", "p")
    arena = pipe.operand((None, None), (1, spec.source.pitch), spec.number)
    table = pipe.operand((channels,), (1,), "int32")
    out = hl.Func("gather")
    value = arena[lane(table[hl.min(c, channels - 1)]), p]
    out[c, p] = value if lanes == channels else hl.select(c < channels, value, constant(spec.number, 0.0))
    out.unroll(c, 4, GUARD)
    return pipe.output(out, (lanes, None), (1, spec.pitch))


def image(spec: Image, machine: Machine) -> Any:
    """Bytes to normalised floats."""
    pipe = Pipe(machine)
    c, p = variables("c", "p")
    pixels = pipe.operand((spec.channels, None), (1, spec.channels), "uint8")
    if spec.number == "uint8":
        table = pipe.operand((spec.channels, 256), (1, spec.channels), "uint8")
        out = hl.Func("image")
        at = hl.min(c, spec.channels - 1)
        out[c, p] = hl.select(c < spec.channels, table[at, hl.i32(pixels[at, p])], hl.u8(0))
        return pipe.output(out, (spec.lanes, None), (1, spec.pitch))
    scale, shift = pipe.vector(spec.channels), pipe.vector(spec.channels)
    out = hl.Func("image")
    at = hl.min(c, spec.channels - 1)
    out[c, p] = hl.select(c < spec.channels, hl.f32(pixels[at, p]) * scale[at] + shift[at], 0.0)
    return pipe.output(out, (spec.lanes, None), (1, spec.pitch))


def response(spec: Response, machine: Machine) -> Any:
    """Local response normalisation over channels."""
    pipe, channels, lanes, vector = Pipe(machine), spec.channels, spec.sink.lanes, machine.vector
    c, p = variables("c", "p")
    source = pipe.operand((channels, None), (1, spec.pitch))
    bordered = hl.BoundaryConditions.constant_exterior(source, 0.0, [(0, channels), ANY])

    def power(squares: Any) -> Any:
        base = hl.f32(spec.bias) + hl.f32(spec.alpha / spec.size) * squares
        return hl.exp(hl.log(base) * hl.f32(-spec.beta))

    finish = pipe.epilogue(spec.sink, lambda step: pipe.operand((lanes, None), (1, step.pitch)))
    out = hl.Func("response")
    if spec.size // 2 >= channels - 1:  # every window holds all channels
        factor, stages = _of_all(channels, vector, bordered, power)
        out[c, p] = finish(bordered[c, p] * factor[c % vector, p], c, p)
        for stage in stages:
            stage.compute_at(out, p)
    else:
        near = hl.RDom([(-(spec.size // 2), spec.size)], "near").x
        squares = hl.Func("squares")
        squares[c, p] = hl.f32(0.0)
        squares[c, p] += bordered[c + near, p] * bordered[c + near, p]
        out[c, p] = finish(bordered[c, p] * power(squares[c, p]), c, p)
        co, ci = variables("co", "ci")
        out.split(c, co, ci, vector, SHIFT)
        squares.compute_at(out, co).vectorize(c, vector).update().reorder(c, near).vectorize(c, vector)
        if spec.size <= _UNROLLED:
            squares.update().unroll(near)
        c = ci
    out.vectorize(c, vector, SHIFT)
    return pipe.output(out, (lanes, None), (1, spec.sink.pitch))


def _of_all(channels: int, vector: int, bordered: Any, power: Any) -> tuple[Any, list[Any]]:
    """factor(lane, p): of the squares of a pixel's channels, summed once, on every lane of a vector; and its stages.

    A vector, because Halide computes logarithms of vectors itself and those of single numbers by a library's function.
    """
    lane, p = variables("lane", "p")
    parts, total, factor = hl.Func("parts"), hl.Func("total"), hl.Func("factor")
    k, j = hl.RDom([(0, up(channels, vector) // vector)], "k").x, hl.RDom([(0, vector)], "j").x
    parts[lane, p] = hl.f32(0.0)
    parts[lane, p] += bordered[k * vector + lane, p] * bordered[k * vector + lane, p]
    total[lane, p] = hl.f32(0.0)
    total[lane, p] += parts[j, p]
    factor[lane, p] = power(total[lane, p])
    stages = [parts, total, factor]
    for stage in stages:
        stage.bound(lane, 0, vector).vectorize(lane, vector)
    for stage, turn in ((parts, k), (total, j)):
        stage.update().reorder(lane, turn).vectorize(lane, vector)
    return factor, stages
