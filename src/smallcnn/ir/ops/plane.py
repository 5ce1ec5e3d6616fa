"""Operators on the plane: windows and their borders, and other sizes."""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor, prod
from typing import ClassVar, Literal, get_args

from smallcnn.errors import GraphError
from smallcnn.ir import checks
from smallcnn.ir.ops.op import NO_PADDING, Op, Padding, Pair, passed_on, sums
from smallcnn.ir.types import Shape, Tensor

Coordinates = Literal["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"]
Rounding = Literal["floor", "ceil", "round_prefer_floor", "round_prefer_ceil"]


@dataclass(frozen=True, kw_only=True)
class Pad(Op):
    """Zeros around a map, (H, W, C) -> (H + top + bottom, W + left + right, C); negative numbers crop."""

    kind: ClassVar[str] = "pad"
    moves: ClassVar[bool] = True
    padding: Padding

    def __post_init__(self) -> None:
        checks.margins(self.padding)

    def output_shape(self, *inputs: Shape) -> Shape:
        """(H', W', C)."""
        height, width, channels = checks.as_map(inputs[0])
        (top, bottom), (left, right) = self.padding
        if min(height + min(top, 0) + min(bottom, 0), width + min(left, 0) + min(right, 0)) < 1:
            raise GraphError(f"cutting {self.padding} off {height}x{width} leaves nothing")
        return (height + top + bottom, width + left + right, channels)


@dataclass(frozen=True, kw_only=True)
class Pool(Op):
    """Maximum or average over a window: (H, W, C) -> (H', W', C).

    Padding never wins a maximum; an average divides by the window's pixels inside the image, or by all of them if
    `count_padding`.
    """

    kind: ClassVar[str] = "pool"
    function: Literal["max", "average"]
    kernel: Pair
    stride: Pair
    padding: Padding = NO_PADDING
    count_padding: bool = False

    def __post_init__(self) -> None:
        if self.function not in ("max", "average"):
            raise GraphError(f"pooling must be max or average, not {checks.shown(self.function)}")
        checks.flag("count_padding", self.count_padding)
        checks.window(self.kernel, self.stride, self.padding)
        for size, pads in zip(self.kernel, self.padding, strict=True):
            if max(pads) >= size:
                raise GraphError(f"padding {self.padding} must be below the window, {self.kernel}, on every side")

    @property
    def keeps_grid(self) -> bool:
        """A maximum chooses."""
        return self.function == "max"

    def output(self, *inputs: Tensor) -> Tensor:
        """A maximum may be of any number type."""
        return passed_on(self, inputs) if self.keeps_grid else super().output(*inputs)

    def on_grids(self, shape: Shape, *inputs: Tensor) -> Tensor:  # noqa: ARG002
        """A mean is a real number."""
        return Tensor(shape)

    def output_shape(self, *inputs: Shape) -> Shape:
        """(H', W', C)."""
        height, width, channels = checks.as_map(inputs[0])
        return (*window((height, width), self.kernel, self.stride, self.padding), channels)

    def check_bounds(self, *inputs: Tensor) -> None:
        """As for any operator; padding counts, and each window is work."""
        checks.result(padded(inputs[0].shape, self.padding), "pads to")
        super().check_bounds(*inputs)
        checks.work(prod(self.output_shape(inputs[0].shape)) * prod(self.kernel))


@dataclass(frozen=True)
class GlobalPool(Op):
    """Mean over the whole plane: (H, W, C) -> (C,)."""

    kind: ClassVar[str] = "global_pool"

    def output_shape(self, *inputs: Shape) -> Shape:
        """(C,)."""
        return (checks.as_map(inputs[0])[2],)

    def on_grids(self, shape: Shape, *inputs: Tensor) -> Tensor:
        """The sum over the plane, on a grid finer by the number of pixels."""
        source = inputs[0]
        assert source.grid is not None
        return sums(shape, source.grid.scale, 1 / prod(source.shape[:2]))


@dataclass(frozen=True, kw_only=True)
class Resize(Op):
    """Another size of a map: (H, W, C) -> (height, width, C), along each axis on its own.

    The result's pixel i of n reads the input of m pixels at position

        half_pixel           (i + 1/2) m / n - 1/2
        pytorch_half_pixel   the same, but 0 for n = 1
        align_corners        i (m - 1) / (n - 1), and 0 for n = 1
        asymmetric           i m / n

    clamped to [0, m - 1]. "nearest" takes the pixel to which `rounding` leads from there; the two that prefer a side
    round to the nearest and a half to that side. "bilinear" weighs the two pixels around it by their distances.

    ONNX's Resize, whose names these are. Positions are exact fractions, so no half depends on the rounding of a scale.
    """

    kind: ClassVar[str] = "resize"
    height: int
    width: int
    mode: Literal["nearest", "bilinear"]
    coordinates: Coordinates = "half_pixel"
    rounding: Rounding = "floor"  # of nearest

    def __post_init__(self) -> None:
        checks.positive("height", self.height)
        checks.positive("width", self.width)
        checks.choice("mode", self.mode, ("nearest", "bilinear"))
        checks.choice("coordinates", self.coordinates, get_args(Coordinates))
        checks.choice("rounding", self.rounding, get_args(Rounding))

    @property
    def keeps_grid(self) -> bool:
        """The nearest pixel is chosen."""
        return self.mode == "nearest"

    def output(self, *inputs: Tensor) -> Tensor:
        """Chosen pixels may be of any number type."""
        return passed_on(self, inputs) if self.keeps_grid else super().output(*inputs)

    def output_shape(self, *inputs: Shape) -> Shape:
        """(height, width, C)."""
        return (self.height, self.width, checks.as_map(inputs[0])[2])

    def taps(self, before: int, after: int) -> list[tuple[int, int, float]]:
        """For each of `after` pixels of an axis: two of the `before` pixels of the input, and the second one's weight.

        The weight of the first is 1 minus that; of "nearest", both are the same pixel.
        """
        found = []
        for pixel in range(after):
            at = min(max(self.position(pixel, before, after), Fraction(0)), Fraction(before - 1))
            if self.mode == "nearest":
                nearest = min(_ROUNDED[self.rounding](at), before - 1)
                found.append((nearest, nearest, 0.0))
            else:
                low = floor(at)
                found.append((low, min(low + 1, before - 1), float(at - low)))
        return found

    def position(self, pixel: int, before: int, after: int) -> Fraction:
        """Where in an axis of `before` pixels one of the `after` pixels reads, not yet clamped."""
        match self.coordinates:
            case "asymmetric":
                return Fraction(pixel * before, after)
            case "align_corners":
                return Fraction(pixel * (before - 1), after - 1) if after > 1 else Fraction(0)
            case "pytorch_half_pixel" if after == 1:
                return Fraction(0)
            case _:
                return Fraction((2 * pixel + 1) * before - after, 2 * after)


_HALF = Fraction(1, 2)
_ROUNDED: dict[Rounding, Callable[[Fraction], int]] = {
    "floor": floor,
    "ceil": ceil,
    "round_prefer_floor": lambda at: ceil(at - _HALF),
    "round_prefer_ceil": lambda at: floor(at + _HALF),
}


def window(plane: Pair, kernel: Pair, stride: Pair, padding: Padding) -> Pair:
    """Height and width of the result of a window; GraphError if the window does not fit."""
    height, width = (
        (size + before + after - k) // s + 1
        for size, k, s, (before, after) in zip(plane, kernel, stride, padding, strict=True)
    )
    if height < 1 or width < 1:
        raise GraphError(f"a {kernel[0]}x{kernel[1]} window does not fit the padded {plane[0]}x{plane[1]} input")
    return height, width


def padded(shape: Shape, padding: Padding) -> Shape:
    """Shape of a map with its border."""
    (top, bottom), (left, right) = padding
    return (shape[0] + top + bottom, shape[1] + left + right, shape[2])
