"""The operators of a network: attributes, shape rule and weights.

Shapes are channels last and without the batch: a map is (H, W, C), a vector is (C,). Padding is always explicit
numbers, ((top, bottom), (left, right)), so that TensorFlow's asymmetric SAME needs no special case. Convolution weights
are stored as (out, in / groups, kernel height, kernel width) and dense ones as (out, in), as in PyTorch and ONNX.

Each class is one operator; everything else (cost, module, ONNX, reference) reads these classes.
"""

from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields
from math import prod
from typing import Any, ClassVar, Literal, get_args

from smallcnn.errors import GraphError
from smallcnn.ir import checks

Shape = tuple[int, ...]
Pair = tuple[int, int]
Padding = tuple[Pair, Pair]
ActivationKind = Literal["relu", "relu6", "leaky_relu", "hard_swish", "hard_sigmoid", "sigmoid"]

NO_PADDING: Padding = ((0, 0), (0, 0))


@dataclass(frozen=True, slots=True)
class Weight:
    """One stored tensor of an operator. `learned` is false for batch norm's running statistics."""

    shape: Shape
    learned: bool = True


@dataclass(frozen=True)
class Op:
    """One operator. Subclasses define the number of inputs, the output shape and the weights."""

    kind: ClassVar[str]
    inputs_min: ClassVar[int] = 1
    inputs_max: ClassVar[int | None] = 1

    def output_shape(self, *inputs: Shape) -> Shape:
        """Shape of the result for inputs of these shapes; GraphError if they do not fit."""
        raise NotImplementedError

    def weights(self, *inputs: Shape) -> dict[str, Weight]:  # noqa: ARG002
        """Name, shape and kind of each stored tensor, in storage order."""
        return {}

    def check_bounds(self, *inputs: Shape) -> None:
        """Raises GraphError if the operator's result, weights or work on these inputs is beyond any small CNN's."""
        shape = self.output_shape(*inputs)
        checks.result(shape)
        for name, weight in self.weights(*inputs).items():
            checks.stored(name, weight.shape)
            checks.work(prod(shape[:-1]) * prod(weight.shape))


@dataclass(frozen=True)
class Input(Op):
    """The image, (H, W, C)."""

    kind: ClassVar[str] = "input"
    inputs_min: ClassVar[int] = 0
    inputs_max: ClassVar[int | None] = 0
    shape: Shape

    def __post_init__(self) -> None:
        if not (isinstance(self.shape, tuple) and len(self.shape) == 3 and all(map(checks.is_whole, self.shape))):
            raise GraphError(
                f"needs (height, width, channels), whole numbers of at least 1, not {checks.shown(self.shape)}"
            )

    def output_shape(self, *inputs: Shape) -> Shape:  # noqa: ARG002
        """(H, W, C) as declared."""
        return self.shape


@dataclass(frozen=True, kw_only=True)
class Conv(Op):
    """Cross-correlation: (H, W, C) -> (H', W', out). `groups` = C is a depthwise convolution."""

    kind: ClassVar[str] = "conv"
    out: int
    kernel: Pair = (1, 1)
    stride: Pair = (1, 1)
    padding: Padding = NO_PADDING
    groups: int = 1
    bias: bool = True

    def __post_init__(self) -> None:
        checks.positive("output channels", self.out)
        checks.positive("groups", self.groups)
        checks.flag("bias", self.bias)
        checks.window(self.kernel, self.stride, self.padding)
        if self.out % self.groups:
            raise GraphError(f"{self.out} output channels do not divide into {self.groups} groups")

    def output_shape(self, *inputs: Shape) -> Shape:
        """(H', W', out)."""
        height, width, channels = checks.as_map(inputs[0])
        if channels % self.groups:
            raise GraphError(f"{channels} input channels do not divide into {self.groups} groups")
        return (*_window((height, width), self.kernel, self.stride, self.padding), self.out)

    def check_bounds(self, *inputs: Shape) -> None:
        """As for any operator; padding counts."""
        checks.result(_padded(inputs[0], self.padding), "pads to")
        super().check_bounds(*inputs)

    def is_depthwise(self, *inputs: Shape) -> bool:
        """Whether every input channel has its own filters."""
        return 1 < self.groups == inputs[0][2]

    def weights(self, *inputs: Shape) -> dict[str, Weight]:
        """`weight` (out, C / groups, kernel height, kernel width) and optionally `bias` (out,)."""
        weights = {"weight": Weight((self.out, inputs[0][2] // self.groups, *self.kernel))}
        if self.bias:
            weights["bias"] = Weight((self.out,))
        return weights


@dataclass(frozen=True, kw_only=True)
class Dense(Op):
    """Fully connected layer: (C,) -> (out,)."""

    kind: ClassVar[str] = "dense"
    out: int
    bias: bool = True

    def __post_init__(self) -> None:
        checks.positive("output features", self.out)
        checks.flag("bias", self.bias)

    def output_shape(self, *inputs: Shape) -> Shape:
        """(out,)."""
        checks.vector(inputs[0])
        return (self.out,)

    def weights(self, *inputs: Shape) -> dict[str, Weight]:
        """`weight` (out, C) and optionally `bias` (out,)."""
        weights = {"weight": Weight((self.out, inputs[0][0]))}
        if self.bias:
            weights["bias"] = Weight((self.out,))
        return weights


@dataclass(frozen=True, kw_only=True)
class BatchNorm(Op):
    """y = (x - mean) / sqrt(variance + epsilon) * weight + bias, per channel."""

    kind: ClassVar[str] = "batch_norm"
    epsilon: float = 1e-5

    def __post_init__(self) -> None:
        checks.above_zero("epsilon", self.epsilon)

    def output_shape(self, *inputs: Shape) -> Shape:
        """The shape of the input."""
        return inputs[0]

    def weights(self, *inputs: Shape) -> dict[str, Weight]:
        """Scale and shift, which are learned, and the running statistics, which are measured."""
        shape = (inputs[0][-1],)
        return {
            "weight": Weight(shape),
            "bias": Weight(shape),
            "running_mean": Weight(shape, learned=False),
            "running_var": Weight(shape, learned=False),
        }


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

    def output_shape(self, *inputs: Shape) -> Shape:
        """The shape of the input."""
        return inputs[0]


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

    def output_shape(self, *inputs: Shape) -> Shape:
        """The shape of the input."""
        return inputs[0]


@dataclass(frozen=True, kw_only=True)
class Pad(Op):
    """Zeros around a map, (H, W, C) -> (H + top + bottom, W + left + right, C); negative numbers crop."""

    kind: ClassVar[str] = "pad"
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

    def output_shape(self, *inputs: Shape) -> Shape:
        """(H', W', C)."""
        height, width, channels = checks.as_map(inputs[0])
        return (*_window((height, width), self.kernel, self.stride, self.padding), channels)

    def check_bounds(self, *inputs: Shape) -> None:
        """As for any operator; padding counts, and each window is work."""
        checks.result(_padded(inputs[0], self.padding), "pads to")
        super().check_bounds(*inputs)
        checks.work(prod(self.output_shape(*inputs)) * prod(self.kernel))


@dataclass(frozen=True)
class GlobalPool(Op):
    """Mean over the whole plane: (H, W, C) -> (C,)."""

    kind: ClassVar[str] = "global_pool"

    def output_shape(self, *inputs: Shape) -> Shape:
        """(C,)."""
        return (checks.as_map(inputs[0])[2],)


@dataclass(frozen=True)
class Flatten(Op):
    """(H, W, C) -> (H * W * C,), channels last: the channel index runs fastest."""

    kind: ClassVar[str] = "flatten"

    def output_shape(self, *inputs: Shape) -> Shape:
        """(H * W * C,)."""
        height, width, channels = checks.as_map(inputs[0])
        return (height * width * channels,)


@dataclass(frozen=True)
class Add(Op):
    """Elementwise sum of two or more tensors of one shape."""

    kind: ClassVar[str] = "add"
    inputs_min: ClassVar[int] = 2
    inputs_max: ClassVar[int | None] = None

    def output_shape(self, *inputs: Shape) -> Shape:
        """The common shape."""
        if len(set(inputs)) > 1:
            raise GraphError(f"cannot add shapes {_listed(inputs)}: they differ")
        return inputs[0]


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


@dataclass(frozen=True)
class Concat(Op):
    """Joins two or more tensors along the channels."""

    kind: ClassVar[str] = "concat"
    inputs_min: ClassVar[int] = 2
    inputs_max: ClassVar[int | None] = None

    def output_shape(self, *inputs: Shape) -> Shape:
        """Planes as given, channels summed."""
        if len({shape[:-1] for shape in inputs}) > 1:
            raise GraphError(f"cannot join shapes {_listed(inputs)}: their planes differ")
        return (*inputs[0][:-1], sum(shape[-1] for shape in inputs))


@dataclass(frozen=True, kw_only=True)
class Shuffle(Op):
    """Channel shuffle (ShuffleNet v1, figure 1): channels read as (groups, n), transposed to (n, groups), flattened."""

    kind: ClassVar[str] = "shuffle"
    groups: int

    def __post_init__(self) -> None:
        checks.positive("groups", self.groups)

    def output_shape(self, *inputs: Shape) -> Shape:
        """The shape of the input."""
        channels = checks.as_map(inputs[0])[2]
        if channels % self.groups:
            raise GraphError(f"{channels} channels do not divide into {self.groups} groups to shuffle")
        return inputs[0]


@dataclass(frozen=True, kw_only=True)
class Slice(Op):
    """Channels start to stop (exclusive). A channel split is one slice per part."""

    kind: ClassVar[str] = "slice"
    start: int
    stop: int

    def __post_init__(self) -> None:
        if not (checks.is_whole(self.start, least=0) and checks.is_whole(self.stop) and self.start < self.stop):
            raise GraphError(
                f"a slice needs 0 <= start < stop, not {checks.shown(self.start)} to {checks.shown(self.stop)}"
            )

    def output_shape(self, *inputs: Shape) -> Shape:
        """(..., stop - start)."""
        if self.stop > inputs[0][-1]:
            raise GraphError(
                f"cannot take channels {self.start} to {self.stop} of {inputs[0]}, which has {inputs[0][-1]}"
            )
        return (*inputs[0][:-1], self.stop - self.start)


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
    rate: float

    def __post_init__(self) -> None:
        if not (checks.is_number(self.rate) and 0 <= self.rate < 1):
            raise GraphError(f"dropout rate must be at least 0 and below 1, not {checks.shown(self.rate)}")

    def output_shape(self, *inputs: Shape) -> Shape:
        """The shape of the input."""
        return inputs[0]


OPS: dict[str, type[Op]] = {op.kind: op for op in Op.__subclasses__()}

IN_PLACE = (BatchNorm, Activation, Clip, Dropout, Flatten)
"""Operators that need no second buffer: an executor may write their result over their input."""


def to_json(op: Op) -> dict[str, Any]:
    """{"op": kind, attribute: value, ...} with tuples as lists once dumped."""
    return {"op": op.kind} | {field.name: getattr(op, field.name) for field in fields(op)}


def from_json(record: dict[str, Any]) -> Op:
    """The inverse of `to_json`; GraphError on an unknown operator, a missing or surplus attribute, or a bad value."""
    attributes = dict(record)
    kind = attributes.pop("op", None)
    checks.choice("operator", kind, OPS)
    known = fields(OPS[kind])
    if surplus := sorted(attributes.keys() - {field.name for field in known}):
        names = ", ".join(field.name for field in known) or "none"
        raise GraphError(f"{kind} has no attribute {checks.shown(surplus[0])}; it has {names}")
    if missing := [field.name for field in known if field.default is MISSING and field.name not in attributes]:
        raise GraphError(f"{kind} lacks {', '.join(missing)}")
    return OPS[kind](**{name: _as_tuple(value) for name, value in attributes.items()})


def _as_tuple(value: Any) -> Any:
    """Lists as tuples, two levels deep, the most an attribute may have."""
    if not isinstance(value, list):
        return value
    return tuple(tuple(item) if isinstance(item, list) else item for item in value)


def _window(plane: Pair, kernel: Pair, stride: Pair, padding: Padding) -> Pair:
    height, width = (
        (size + before + after - k) // s + 1
        for size, k, s, (before, after) in zip(plane, kernel, stride, padding, strict=True)
    )
    if height < 1 or width < 1:
        raise GraphError(f"a {kernel[0]}x{kernel[1]} window does not fit the padded {plane[0]}x{plane[1]} input")
    return height, width


def _padded(shape: Shape, padding: Padding) -> Shape:
    (top, bottom), (left, right) = padding
    return (shape[0] + top + bottom, shape[1] + left + right, shape[2])


def _listed(shapes: Sequence[Shape]) -> str:
    return " and ".join(map(str, shapes))
