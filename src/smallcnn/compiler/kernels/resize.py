"""A map in another size, by tables of the rows and columns that each pixel reads.

nearest    out[c, x, y] = source[c, column(x), row(y)]
bilinear   rows are weighed first, then columns, as in the definition
"""

from typing import Any

import halide as hl

from smallcnn.compiler.arithmetic import Machine
from smallcnn.compiler.kernels.pipe import SHIFT, Pipe, variables
from smallcnn.compiler.specs import Resize


def resize(spec: Resize, machine: Machine) -> Any:
    """Nearest and bilinear resizing."""
    pipe, sink, (height, width), (high, wide) = Pipe(machine), spec.sink, spec.plane, spec.size
    c, x, y = variables("c", "x", "y")
    source = pipe.plane(sink.lanes, width, height, spec.pitch, spec.number)
    count = 2 if spec.linear else 1
    rows, columns = (pipe.operand((count, extent), (1, count), "int32") for extent in (high, wide))

    def pixel(i: int, j: int) -> Any:
        column = hl.unsafe_promise_clamped(columns[j, x], 0, width - 1)
        return source[c, column, hl.unsafe_promise_clamped(rows[i, y], 0, height - 1)]

    value = pixel(0, 0)
    if spec.linear:
        down, right = pipe.vector(high), pipe.vector(wide)
        first, second = (pixel(0, j) * (1.0 - down[y]) + pixel(1, j) * down[y] for j in range(2))
        value = first * (1.0 - right[x]) + second * right[x]
    finish = pipe.epilogue(sink, lambda step: pipe.plane(sink.lanes, wide, high, step.pitch, step.number))
    out = hl.Func("resized")
    out[c, x, y] = finish(value, c, x, y)
    out.vectorize(c, pipe.width(sink.lanes, spec.number, sink.number), SHIFT)
    return pipe.output(out, (sink.lanes, wide, None), (1, sink.pitch, sink.pitch * wide))
