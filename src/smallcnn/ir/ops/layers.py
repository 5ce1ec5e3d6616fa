"""Operators with weights."""

from dataclasses import dataclass
from typing import ClassVar

from smallcnn.errors import GraphError
from smallcnn.ir import checks
from smallcnn.ir.ops.op import BYTES, NO_PADDING, Op, Padding, Pair, Weight, sums
from smallcnn.ir.ops.plane import padded, window
from smallcnn.ir.types import NUMBERS, Grid, Number, Shape, Tensor, check_grid


@dataclass(frozen=True, kw_only=True)
class Conv(Op):
    """Cross-correlation: (H, W, C) -> (H', W', out). `groups` = C is a depthwise convolution.

    `dilation` is the distance between the pixels that a filter reads: à trous (Chen et al. 2014, arXiv 1412.7062).
    """

    kind: ClassVar[str] = "conv"
    out: int
    kernel: Pair = (1, 1)
    stride: Pair = (1, 1)
    padding: Padding = NO_PADDING
    dilation: Pair = (1, 1)
    groups: int = 1
    bias: bool = True
    number: Number = "float32"  # of the stored weights, not of the bias
    grid: Grid | None = None  # of the stored weights: one entry, or one per output

    def __post_init__(self) -> None:
        checks.positive("output channels", self.out)
        checks.positive("groups", self.groups)
        checks.flag("bias", self.bias)
        _check_stored(self)
        checks.window(self.kernel, self.stride, self.padding, self.dilation)
        if self.out % self.groups:
            raise GraphError(f"{self.out} output channels do not divide into {self.groups} groups")

    def output_shape(self, *inputs: Shape) -> Shape:
        """(H', W', out)."""
        height, width, channels = checks.as_map(inputs[0])
        if channels % self.groups:
            raise GraphError(f"{channels} input channels do not divide into {self.groups} groups")
        return (*window((height, width), self.reach, self.stride, self.padding), self.out)

    @property
    def reach(self) -> Pair:
        """Height and width of the area from which one output is computed."""
        high, wide = ((kernel - 1) * step + 1 for kernel, step in zip(self.kernel, self.dilation, strict=True))
        return high, wide

    def on_grids(self, shape: Shape, *inputs: Tensor) -> Tensor:
        """Whole sums, one scale per output."""
        return _sums(self, shape, inputs[0])

    def check_bounds(self, *inputs: Tensor) -> None:
        """As for any operator; padding counts."""
        checks.result(padded(inputs[0].shape, self.padding), "pads to")
        super().check_bounds(*inputs)

    def is_depthwise(self, *inputs: Shape) -> bool:
        """Whether every input channel has its own filters."""
        return 1 < self.groups == inputs[0][2]

    def weights(self, *inputs: Tensor) -> dict[str, Weight]:
        """`weight` (out, C / groups, kernel height, kernel width) and optionally `bias` (out,)."""
        return _weights(self, (inputs[0].shape[2] // self.groups, *self.kernel), inputs[0])


@dataclass(frozen=True, kw_only=True)
class Dense(Op):
    """Fully connected layer: (C,) -> (out,)."""

    kind: ClassVar[str] = "dense"
    out: int
    bias: bool = True
    number: Number = "float32"  # of the stored weights, not of the bias
    grid: Grid | None = None  # of the stored weights: one entry, or one per output

    def __post_init__(self) -> None:
        checks.positive("output features", self.out)
        checks.flag("bias", self.bias)
        _check_stored(self)

    def output_shape(self, *inputs: Shape) -> Shape:
        """(out,)."""
        checks.vector(inputs[0])
        return (self.out,)

    def on_grids(self, shape: Shape, *inputs: Tensor) -> Tensor:
        """Whole sums, one scale per output."""
        return _sums(self, shape, inputs[0])

    def weights(self, *inputs: Tensor) -> dict[str, Weight]:
        """`weight` (out, C) and optionally `bias` (out,)."""
        return _weights(self, (inputs[0].shape[0],), inputs[0])


@dataclass(frozen=True, kw_only=True)
class BatchNorm(Op):
    """y = (x - mean) / sqrt(variance + epsilon) * weight + bias, per channel."""

    kind: ClassVar[str] = "batch_norm"
    epsilon: float = 1e-5

    def __post_init__(self) -> None:
        checks.above_zero("epsilon", self.epsilon)

    def weights(self, *inputs: Tensor) -> dict[str, Weight]:
        """Scale and shift, which are learned, and the running statistics, which are measured."""
        shape = (inputs[0].shape[-1],)
        return {
            "weight": Weight(Tensor(shape)),
            "bias": Weight(Tensor(shape)),
            "running_mean": Weight(Tensor(shape), learned=False),
            "running_var": Weight(Tensor(shape), learned=False),
        }


def _check_stored(op: Conv | Dense) -> None:
    checks.choice("number type", op.number, NUMBERS)
    if op.grid is None and op.number != "float32":
        raise GraphError(f"weights of {op.number} need a grid")
    if op.grid is not None:
        check_grid(op.number, op.grid, 1, op.out)


def _sums(op: Conv | Dense, shape: Shape, source: Tensor) -> Tensor:
    if op.number not in BYTES or op.grid is None:
        raise GraphError(f"weights of {op.number} need float32, not {source.number}; a dequantize must come first")
    assert source.grid is not None
    return sums(shape, source.grid.scale, op.grid.scale)


def _weights(op: Conv | Dense, per_output: Shape, source: Tensor) -> dict[str, Weight]:
    """The bias of whole sums is one of them."""
    weights = {"weight": Weight(Tensor((op.out, *per_output), op.number, op.grid))}
    bias = Tensor((op.out,)) if source.grid is None else _sums(op, (op.out,), source)
    return weights | ({"bias": Weight(bias)} if op.bias else {})
