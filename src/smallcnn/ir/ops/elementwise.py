"""Elementwise operators, and those that combine tensors element by element."""

from dataclasses import dataclass
from math import inf
from typing import ClassVar, Literal, get_args

from smallcnn.errors import GraphError
from smallcnn.ir import checks
from smallcnn.ir.ops.op import Op, Weight, listed, passed_on, sums
from smallcnn.ir.types import Shape, Tensor

ActivationKind = Literal["relu", "relu6", "leaky_relu", "hard_swish", "hard_sigmoid", "sigmoid"]


@dataclass(frozen=True, kw_only=True)
class Activation(Op):
    """An elementwise function.

    relu max(x, 0); relu6 min(max(x, 0), 6); leaky_relu x or slope * x; hard_sigmoid relu6(x + 3) / 6;
    hard_swish x * hard_sigmoid(x) (MobileNetV3, section 5.2); sigmoid.
    """

    kind: ClassVar[str] = "activation"
    function: ActivationKind
    slope: float = 0.01  # of leaky_relu

    def __post_init__(self) -> None:
        checks.choice("activation", self.function, get_args(ActivationKind))
        checks.above_zero("slope", self.slope)

    def on_grids(self, shape: Shape, *inputs: Tensor) -> Tensor:
        """Bounds keep the grid; any other function gives real numbers."""
        return passed_on(self, inputs) if self.bounds else Tensor(shape)

    @property
    def bounds(self) -> tuple[float, float] | None:
        """Those of relu and relu6."""
        return {"relu": (0.0, inf), "relu6": (0.0, 6.0)}.get(self.function)


@dataclass(frozen=True, kw_only=True)
class Clip(Op):
    """min(max(x, low), high): an integer network's saturation in floating point."""

    kind: ClassVar[str] = "clip"
    low: float
    high: float

    def __post_init__(self) -> None:
        if not (checks.is_number(self.low) and checks.is_number(self.high) and self.low < self.high):
            raise GraphError(
                f"a clip needs numbers low < high, not {checks.shown(self.low)} and {checks.shown(self.high)}"
            )

    def on_grids(self, shape: Shape, *inputs: Tensor) -> Tensor:  # noqa: ARG002
        """On the same grid."""
        return passed_on(self, inputs)

    @property
    def bounds(self) -> tuple[float, float]:
        """Its attributes."""
        return self.low, self.high


@dataclass(frozen=True)
class PRelu(Op):
    """x, or slope * x where x is below 0, with a learned slope for each channel.

    He et al. 2015 (arXiv 1502.01852), section 2.1.
    """

    kind: ClassVar[str] = "prelu"

    def on_grids(self, shape: Shape, *inputs: Tensor) -> Tensor:  # noqa: ARG002
        """Real numbers."""
        return Tensor(shape)

    def weights(self, *inputs: Tensor) -> dict[str, Weight]:
        """`slope` (C,)."""
        return {"slope": Weight(Tensor(inputs[0].shape[-1:]))}


@dataclass(frozen=True)
class Exp(Op):
    """e to the power of x."""

    kind: ClassVar[str] = "exp"


@dataclass(frozen=True)
class Add(Op):
    """Elementwise sum of two or more tensors of one shape."""

    kind: ClassVar[str] = "add"
    inputs_min: ClassVar[int] = 2
    inputs_max: ClassVar[int | None] = None

    def output_shape(self, *inputs: Shape) -> Shape:
        """The common shape."""
        if len(set(inputs)) > 1:
            raise GraphError(f"cannot add shapes {listed(inputs)}: they differ")
        return inputs[0]

    def on_grids(self, shape: Shape, *inputs: Tensor) -> Tensor:  # noqa: ARG002
        """Real numbers."""
        return Tensor(shape)


@dataclass(frozen=True)
class Sub(Op):
    """Elementwise difference of two tensors of one shape: the first minus the second."""

    kind: ClassVar[str] = "sub"
    inputs_min: ClassVar[int] = 2
    inputs_max: ClassVar[int | None] = 2

    def output_shape(self, *inputs: Shape) -> Shape:
        """The common shape."""
        if len(set(inputs)) > 1:
            raise GraphError(f"cannot subtract shapes {listed(inputs)}: they differ")
        return inputs[0]

    def on_grids(self, shape: Shape, *inputs: Tensor) -> Tensor:  # noqa: ARG002
        """Real numbers."""
        return Tensor(shape)


@dataclass(frozen=True)
class Scale(Op):
    """Channel c of a map times entry c of a vector, as in squeeze-and-excitation: (H, W, C), (C,) -> (H, W, C)."""

    kind: ClassVar[str] = "scale"
    inputs_min: ClassVar[int] = 2
    inputs_max: ClassVar[int | None] = 2

    def output_shape(self, *inputs: Shape) -> Shape:
        """The shape of the map."""
        channels = checks.as_map(inputs[0])[2]
        if inputs[1] != (channels,):
            raise GraphError(f"cannot scale the {channels} channels of {inputs[0]} by {inputs[1]}")
        return inputs[0]

    def on_grids(self, shape: Shape, *inputs: Tensor) -> Tensor:
        """Whole products."""
        grids = [tensor.grid for tensor in inputs]
        return sums(shape, *(grid.scale for grid in grids if grid))


@dataclass(frozen=True, kw_only=True)
class LocalResponseNorm(Op):
    """y_c = x_c / (bias + alpha / size * sum of x² over the `size` channels around c) ** beta.

    As PyTorch and ONNX define it; AlexNet's paper (section 3.3) has alpha without the division by size.
    """

    kind: ClassVar[str] = "local_response_norm"
    size: int
    alpha: float
    beta: float
    bias: float

    def __post_init__(self) -> None:
        checks.positive("size", self.size)
        if self.size % 2 == 0:
            raise GraphError(f"size must be odd, not {self.size}: frameworks place an even window differently")
        for name in ("alpha", "beta", "bias"):
            checks.above_zero(name, getattr(self, name))

    def output_shape(self, *inputs: Shape) -> Shape:
        """The shape of the input."""
        checks.as_map(inputs[0])
        return inputs[0]


@dataclass(frozen=True, kw_only=True)
class Dropout(Op):
    """Zeroes entries with this probability in training; does nothing at inference."""

    kind: ClassVar[str] = "dropout"
    moves: ClassVar[bool] = True
    rate: float

    def __post_init__(self) -> None:
        if not (checks.is_number(self.rate) and 0 <= self.rate < 1):
            raise GraphError(f"dropout rate must be at least 0 and below 1, not {checks.shown(self.rate)}")
