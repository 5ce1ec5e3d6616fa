"""Dense and grouped convolution with any kernel, as a matrix product over channels and taps.

A strip of `rows` output rows first copies what it reads, with the border's zeros, to a small buffer (for the network's
first layer it turns bytes to normalised floats on the way); then no address needs a check, and the channels of a
gathered view lie side by side.
"""

from dataclasses import dataclass
from typing import Any

import halide as hl

from smallcnn.compiler.kernels.matmul import Product, Tile
from smallcnn.compiler.kernels.pipe import Machine, Pipe, Step, lane, variables


@dataclass(frozen=True)
class Conv:
    """(height, width, channels * groups) -> (out_height, out_width, lanes * groups).

    `source` is "plain" (operand 0: lanes, x, y, groups), "table" (the arena, and which lanes) or "image" (bytes, then
    scale and shift for each column of a row).
    """

    height: int
    width: int
    out_height: int
    out_width: int
    channels: int
    lanes: int
    groups: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    before: tuple[int, int]
    source: str
    pitch: int
    step: int
    out_pitch: int
    epilogue: tuple[Step, ...]
    tile: Tile
    rows: int

    def build(self, machine: Machine) -> Any:
        """The pipeline. Operands: source's, weight, bias, epilogue's, output (lanes, pixels, groups)."""
        pipe = Pipe(machine)
        down, right = self.stride
        strip = self._image(pipe) if self.source == "image" else self._floats(pipe)
        width = self.out_width
        if self.source == "image":
            c = self.channels

            def read(k: Any, p: Any, _g: Any, i: Any, j: Any) -> Any:
                return strip[((p % width) * right + i) * c + k, p / width * down + j]
        else:

            def read(k: Any, p: Any, g: Any, i: Any, j: Any) -> Any:
                return strip[k, (p % width) * right + i, p / width * down + j, g]

        product = Product(pipe, self, read, (self.kernel[1], self.kernel[0]))
        at = product.schedule(self.tile, self.rows * width)
        strip.compute_at(product.out, at)
        return product.finish()

    def _floats(self, pipe: Pipe) -> Any:
        """strip(k, x, y, group), x and y counted from the padded corner."""
        (top, left), none, vector = self.before, (hl.Expr(), hl.Expr()), pipe.machine.vector
        k, x, y, g = variables("k", "x", "y", "g")
        inside = [none, (0, self.width), (0, self.height)]
        strip = hl.Func("strip")
        if self.source == "table":
            arena = pipe.operand(
                (None, self.width, self.height), (1, self.pitch, self.pitch * self.width)
            )
            table = pipe.operand((self.channels, self.groups), (1, self.channels), hl.Int(32))
            source = hl.BoundaryConditions.constant_exterior(arena, 0.0, inside)
            strip[k, x, y, g] = source[lane(table[k, g]), x - left, y - top]
            return strip
        maps = pipe.operand(
            (None, self.width, self.height, self.groups), (1, self.pitch, self.pitch * self.width, self.step)
        )
        source = hl.BoundaryConditions.constant_exterior(maps, 0.0, [*inside, none])
        strip[k, x, y, g] = source[k, x - left, y - top, g]
        if self.channels >= vector:
            strip.vectorize(k, vector, hl.TailStrategy.ShiftInwards)
        return strip

    def _image(self, pipe: Pipe) -> Any:
        """strip(x * channels + k, y): a row of the picture as one vector."""
        (top, left), none, vector = self.before, (hl.Expr(), hl.Expr()), pipe.machine.vector
        row = self.width * self.channels
        image = pipe.operand((row, self.height), (1, row), hl.UInt(8))
        scale, shift = pipe.vector(row), pipe.vector(row)
        i, y = variables("i", "y")
        normal, strip = hl.Func("normal"), hl.Func("strip")
        normal[i, y] = hl.f32(image[i, y]) * scale[i] + shift[i]
        source = hl.BoundaryConditions.constant_exterior(normal, 0.0, [(0, row), (0, self.height)])
        strip[i, y] = source[i - left * self.channels, y - top]
        strip.vectorize(i, vector, hl.TailStrategy.RoundUp)
        return strip

    @property
    def scratch(self) -> int:
        """Floats of working memory."""
        (rows, columns), (down, right) = self.kernel, self.stride
        height, width = (self.rows - 1) * down + rows, (self.out_width - 1) * right + columns
        return height * (width * self.channels * self.groups + 64)
