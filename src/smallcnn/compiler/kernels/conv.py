"""Dense and grouped convolution with any kernel, as a matrix product over channels and taps.

A strip of output rows first copies its input, with the border's zeros, to a small buffer; for the network's first layer
this also turns bytes into normalised floats. In the buffer the channels of a row's pixels are consecutive, so channels
and columns of the window are one run of memory and no address needs a check.
"""

from typing import Any

import halide as hl

from smallcnn.compiler.kernels.matmul import Product
from smallcnn.compiler.kernels.pipe import ANY, EXACT, SHIFT, Pipe, lane, variables
from smallcnn.compiler.specs import Conv, Machine


def conv(spec: Conv, machine: Machine) -> Any:
    """Any convolution that is not 1x1 with stride 1."""
    pipe, window = Pipe(machine), spec.window
    (rows, columns), (down, right), width = window.kernel, window.stride, window.out_width
    channels = spec.source.channels
    strip: Any = None
    if spec.direct:
        pitch, groups = spec.source.pitch, spec.sink.groups
        strides = (1, pitch, pitch * window.width, spec.source.step)
        maps = pipe.operand((channels, window.width, window.height, groups), strides)
    elif spec.image:
        strip = image_rows(pipe, spec)
    else:
        strip = _strip(pipe, spec)

    def read(k: Any, p: Any, g: Any, j: Any) -> Any:
        x, y = p % width * right, p / width * down + j
        if spec.direct:
            return maps[k, x, y, g]
        if spec.image:
            return strip[x * channels + k, y]
        return strip[k % channels, x + k / channels, y, g]

    product = Product(pipe, spec.sink, read, (columns * channels, rows))
    at = product.schedule(spec.tile, width, spec.rows, window.out_height)
    if strip is not None:
        strip.compute_at(product.out, at)
    return product.finish()


def _strip(pipe: Pipe, spec: Conv) -> Any:
    """strip(k, x, y, group), x and y counted from the padded corner."""
    window, source, vector = spec.window, spec.source, pipe.machine.vector
    (top, left), groups = window.before, spec.sink.groups
    k, x, y, g = variables("k", "x", "y", "g")
    inside = [ANY, (0, window.width), (0, window.height)]
    strides = (1, source.pitch, source.pitch * window.width)
    strip = hl.Func("strip")
    if source.table:
        arena = pipe.operand((None, window.width, window.height), strides)
        table = pipe.operand((source.channels, groups), (1, source.channels), "int32")
        bordered = hl.BoundaryConditions.constant_exterior(arena, 0.0, inside)
        strip[k, x, y, g] = bordered[lane(table[k, g]), x - left, y - top]
        return strip
    maps = pipe.operand((None, window.width, window.height, groups), (*strides, source.step))
    bordered = hl.BoundaryConditions.constant_exterior(maps, 0.0, [*inside, ANY])
    strip[k, x, y, g] = bordered[k, x - left, y - top, g]
    if source.channels >= vector:
        strip.vectorize(k, vector, SHIFT)
    return strip


def image_rows(pipe: Pipe, spec: Conv) -> Any:
    """strip(x * channels + k, y): a row of the image as one vector."""
    window, channels = spec.window, spec.source.channels
    (top, left), row = window.before, window.width * channels
    image = pipe.operand((row, window.height), (1, row), "uint8")
    scale, shift = pipe.vector(row), pipe.vector(row)
    i, y = variables("i", "y")
    normal, strip = hl.Func("normal"), hl.Func("strip")
    normal[i, y] = hl.f32(image[i, y]) * scale[i] + shift[i]
    bordered = hl.BoundaryConditions.constant_exterior(normal, 0.0, [(0, row), (0, window.height)])
    strip[i, y] = bordered[i - left * channels, y - top]
    strip.vectorize(i, pipe.machine.vector, EXACT)
    return strip
