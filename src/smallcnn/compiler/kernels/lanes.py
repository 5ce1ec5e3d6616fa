"""Kernels that treat every lane alike (padding, elementwise work, changes of the number type, copies, the image as
floats), and local response normalisation, which reads neighbouring lanes."""

from typing import Any

import halide as hl

from smallcnn.compiler.kernels.pipe import ANY, GUARD, SHIFT, Pipe, constant, lane, variables
from smallcnn.compiler.specs import Gather, Image, Lanes, Machine, Pad, Response


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
    pipe, channels, lanes = Pipe(machine), spec.channels, spec.sink.lanes
    c, p = variables("c", "p")
    source = pipe.operand((channels, None), (1, spec.pitch))
    bordered = hl.BoundaryConditions.constant_exterior(source, 0.0, [(0, channels), ANY])
    near = [bordered[c + i - spec.size // 2, p] for i in range(spec.size)]
    base = hl.f32(spec.bias) + hl.f32(spec.alpha / spec.size) * sum((s * s for s in near[1:]), near[0] * near[0])
    finish = pipe.epilogue(spec.sink, lambda step: pipe.operand((lanes, None), (1, step.pitch)))
    out = hl.Func("response")
    out[c, p] = finish(bordered[c, p] * hl.exp(hl.log(base) * hl.f32(-spec.beta)), c, p)
    out.vectorize(c, machine.vector, SHIFT)
    return pipe.output(out, (lanes, None), (1, spec.sink.pitch))
