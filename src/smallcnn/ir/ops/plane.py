"""Operators with a window over the plane, and their borders."""

from dataclasses import dataclass
from math import prod
from typing import ClassVar, Literal

from smallcnn.errors import GraphError
from smallcnn.ir import checks
from smallcnn.ir.ops.op import NO_PADDING, Op, Padding, Pair, passed_on, sums
from smallcnn.ir.types import Shape, Tensor


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
