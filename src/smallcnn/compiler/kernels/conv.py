"""Dense and grouped convolution with any kernel, as a matrix product over channels and taps.

A strip of output rows first copies its input, with the border's zeros, to a small buffer; for the network's first layer
this also turns bytes into normalised floats, and bytes that are multiplied as 16 bits are widened. In the buffer the
channels of a row's pixels are consecutive, so channels and columns of the window are one run of memory and no address
needs a check. A dilated filter's columns are apart; each is a run of its own.
"""

from collections.abc import Sequence
from typing import Any

import halide as hl

from smallcnn.compiler.arithmetic import MAGIC_BITS, Machine, depth_of
from smallcnn.compiler.kernels.matmul import Product
from smallcnn.compiler.kernels.pipe import (
    ANY,
    GUARD,
    SHIFT,
    Pipe,
    constant,
    lane,
    rounded,
    variables,
)
from smallcnn.compiler.kernels.rows import Rows
from smallcnn.compiler.kernels.terms import multiplied, number_of
from smallcnn.compiler.specs import Conv, Window


def conv(spec: Conv, machine: Machine) -> Any:
    """Any convolution that is not 1x1 with stride 1."""
    pipe, window = Pipe(machine), spec.window
    (down, right), width = window.stride, window.out_width
    channels, number = (
        depth_of(spec.source.channels, None if spec.image else spec.bytes, machine),
        number_of(spec.bytes),
    )
    strip: Any = None
    if spec.direct:
        pitch, groups = spec.source.pitch, spec.sink.groups
        strides = (1, pitch, pitch * window.width, spec.source.step)
        maps = pipe.operand((channels, window.width, window.height, groups), strides, number)
    elif spec.image:
        strip = image_rows(pipe, spec)
    else:
        strip = _strip(pipe, spec)

    def read(k: Any, x: Any, y: Any, g: Any, *taps: Any) -> Any:
        i, j = offset(window, taps)
        x, y = x * right + i, y * down + j
        if spec.direct:
            return maps[k, x, y, g]
        if spec.image:
            return strip[(x - window.before[1]) * channels + k, y]
        return strip[k, x, y, g] if window.dilation[1] > 1 else strip[k % channels, x + k / channels, y, g]

    ready = not spec.direct
    reduction, plane = window.terms(channels), (width, window.out_height)
    product: Product | Rows
    if spec.tile.across:
        across = lambda k, p, *more: read(k, p % width, p / width, *more)  # noqa: E731
        product = Product(pipe, spec.sink, spec.bytes, across, reduction, spec.tile, plane, ready=ready)
    else:
        product = Rows(pipe, spec.sink, spec.bytes, read, reduction, spec.tile, plane, ready=ready)
    at = product.schedule(spec.rows)
    if strip is not None:
        strip.compute_at(product.out, at)
    return product.finish()


def offset(window: Window, taps: Sequence[Any]) -> tuple[Any, Any]:
    """Columns and rows from a window's corner to the pixel of these terms, beyond those that its channels count."""
    *column, row = taps
    return column[0] * window.dilation[1] if column else 0, row * window.dilation[0]


def _strip(pipe: Pipe, spec: Conv) -> Any:
    """strip(k, x, y, group), x and y counted from the padded corner; bytes as they are multiplied."""
    window, source, vector = spec.window, spec.source, pipe.machine.vector
    (top, left), groups = window.before, spec.sink.groups
    number, depth = number_of(spec.bytes), depth_of(source.channels, spec.bytes, pipe.machine)
    outside = constant(number, spec.bytes.zero if spec.bytes else 0)
    k, x, y, g = variables("k", "x", "y", "g")
    inside = [ANY, (0, window.width), (0, window.height)]
    strides = (1, source.pitch, source.pitch * window.width)
    strip = hl.Func("strip")
    if source.table:
        arena = pipe.operand((None, window.width, window.height), strides, number)
        table = pipe.operand((depth, groups), (1, depth), "int32")
        bordered = hl.BoundaryConditions.constant_exterior(arena, outside, inside)
        value = bordered[lane(table[k, g]), x - left, y - top]
        strip[k, x, y, g] = multiplied(value, spec.bytes, pipe.machine)
        return strip
    maps = pipe.operand((None, window.width, window.height, groups), (*strides, source.step), number)
    bordered = hl.BoundaryConditions.constant_exterior(maps, outside, [*inside, ANY])
    strip[k, x, y, g] = multiplied(bordered[k, x - left, y - top, g], spec.bytes, pipe.machine)
    if depth >= vector:
        strip.vectorize(k, vector, SHIFT)
    return strip


def image_rows(pipe: Pipe, spec: Conv) -> Any:
    """strip((x - left) * channels + k, y): a row of the image as one vector, between the zeros of its border; in
    floats, or in bytes as they are multiplied."""
    window, channels, vector = spec.window, spec.source.channels, pipe.machine.vector
    (top, left), row = window.before, window.width * channels
    image = pipe.operand((row, window.height), (1, row), "uint8")
    of = spec.bytes
    outside = multiplied(constant(number_of(of), of.zero if of else 0), of, pipe.machine)
    if spec.lookup:
        table = pipe.operand((channels, 256), (1, channels), "uint8")
    else:
        scale, shift = pipe.vector(row), pipe.vector(row)
    i, y = variables("i", "y")
    strip = hl.Func("strip")
    strip[i, y] = hl.undef(outside.type())
    inside = (y >= top) & (y < top + window.height)
    at = hl.RDom([(0, row)], "row").x
    pixel = image[at, hl.clamp(y - top, 0, window.height - 1)]
    if spec.lookup:
        value = table[at % channels, hl.i32(pixel)]
    else:
        value = hl.f32(pixel) * scale[at] + shift[at]
        value = hl.u8(rounded(value, None if pipe.machine.rounds else hl.i32(MAGIC_BITS))) if of else value
    strip[at, y] = hl.select(inside, multiplied(value, of, pipe.machine), outside)
    strip.align_bounds(i, vector).update(0).vectorize(at, vector, GUARD)
    for start, columns in ((-left, left), (window.width, window.read_width - left - window.width)):
        if columns > 0:
            border = hl.RDom([(start * channels, columns * channels)], "border").x
            strip[border, y] = outside
            strip.update(strip.num_update_definitions() - 1).unscheduled()
    return strip
