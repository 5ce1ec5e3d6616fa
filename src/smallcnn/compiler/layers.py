"""Layers: the computations that will run, each with everything elementwise that follows it (its epilogue)."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from smallcnn.compiler.arithmetic import Bytes
from smallcnn.compiler.specs import Rows
from smallcnn.compiler.storage import View, up
from smallcnn.ir import ops
from smallcnn.ir.types import Grid, Number

_MANY = 256
"""Number of outputs from which a fully connected layer is large."""


@dataclass(frozen=True)
class Act:
    """An elementwise function in an epilogue."""

    function: str
    low: float = 0.0
    high: float = 0.0


@dataclass(frozen=True, eq=False)
class Affine:
    """A batch norm that was not folded: scale and shift per channel."""

    scale: np.ndarray
    shift: np.ndarray


@dataclass(frozen=True, eq=False)
class Slopes:
    """What is below 0, times a number per channel."""

    slope: np.ndarray


@dataclass(frozen=True, eq=False)
class Plus:
    """Adds another map or vector, or subtracts it ("minus"), or subtracts from it ("from")."""

    other: View
    sign: Literal["plus", "minus", "from"] = "plus"


@dataclass(frozen=True)
class OntoGrid:
    """Real numbers to stored ones."""

    number: Number
    grid: Grid


@dataclass(frozen=True)
class OffGrid:
    """Stored numbers to the real ones they stand for."""

    grid: Grid


@dataclass(frozen=True, eq=False)
class Requantize:
    """Whole sums to bytes: round(sum * multiplier) + zero, a multiplier per channel; `large`: products may be beyond
    2**22."""

    multiplier: np.ndarray
    zero: int
    large: bool


@dataclass(frozen=True)
class Term:
    """One summand of bytes: (byte - zero) * factor, as float32."""

    factor: float
    zero: int


@dataclass(frozen=True, eq=False)
class AddBytes:
    """Bytes as `own` plus others, a real number."""

    own: Term
    others: tuple[tuple[View, Term], ...]


@dataclass(frozen=True)
class Round:
    """Real numbers of steps to bytes: rounded, plus `zero`, saturated."""

    zero: int


@dataclass(frozen=True, eq=False)
class Lookup:
    """Bytes to bytes, as 256 of them say."""

    values: np.ndarray


@dataclass(frozen=True)
class Swish:
    """Hard-swish of bytes, as real numbers of steps: x * (bounded(x + 3, 0, 6) * `sixth`), x the real number of a byte
    and `sixth` 1/6 over the scale of the result."""

    own: Term
    sixth: float


@dataclass(frozen=True)
class Bound:
    """Bytes between two."""

    low: int
    high: int


Step = Act | Affine | Slopes | Plus | OntoGrid | OffGrid | Requantize | AddBytes | Round | Lookup | Swish | Bound
Epilogue = tuple[Step, ...]

ELEMENTWISE = (ops.Activation, ops.PRelu, ops.Exp, ops.Clip, ops.BatchNorm, ops.Quantize, ops.Dequantize)
"""Operators that are steps of the epilogue of the layer before them, or a layer that is nothing but an epilogue."""


@dataclass(eq=False)
class Layer:
    """One computation: `op` of the graph, or "copy" (gathered channels), "image" (the input's bytes as floats).

    A `Join` is a copy of rows that something else than a detector's end reads.

    `zero` is the stored number that stands for 0, which padding adds.
    """

    names: tuple[str, ...]
    op: ops.Op | str
    inputs: tuple[View, ...]
    output: View
    epilogue: Epilogue = ()
    weight: np.ndarray | None = None
    bias: np.ndarray | None = None
    zero: int = 0
    bytes: Bytes | None = None  # it computes with bytes
    from_image: bool = False  # reads the network's input as bytes
    grid: Grid | None = None  # of the bytes that stand for the image's
    other_zero: int = 0  # of the vector that scales a map of bytes
    mean: tuple[float, float] | None = None  # scales of the source and the result of an average of bytes
    relu_first: bool = False  # on the input (depthwise convolutions only)
    rows: tuple[Rows, ...] = ()  # how the inputs, pieces of rows, belong together

    @property
    def label(self) -> str:
        """The graph nodes computed."""
        return "+".join(self.names)

    @property
    def reads(self) -> tuple[View, ...]:
        """Everything read, epilogue included."""
        others = [step.other for step in self.epilogue if isinstance(step, Plus)]
        others += [view for step in self.epilogue if isinstance(step, AddBytes) for view, _ in step.others]
        return (*self.inputs, *others)

    @property
    def weight_number(self) -> Number:
        """The number type of its weights, as kernels read them."""
        return "int8" if self.bytes else "float32"

    @property
    def source_number(self) -> Number:
        """The number type that it computes with."""
        return "uint8" if self.bytes else "float32"

    @property
    def groups(self) -> int:
        """The groups of a convolution; 1 for other layers."""
        return self.op.groups if isinstance(self.op, ops.Conv) else 1

    @property
    def reach(self) -> tuple[int, int]:
        """Height and width of the area from which one output is computed."""
        match self.op:
            case ops.Conv() as op:
                return op.reach
            case ops.Pool(kernel=kernel):
                return kernel
            case _:
                return 1, 1

    @property
    def apart(self) -> bool:
        """Whether its window reads columns that are not neighbours."""
        op = self.op
        return isinstance(op, ops.Conv) and op.kernel[1] > 1 and op.dilation[1] > 1

    @property
    def depthwise(self) -> bool:
        """Whether every channel has its own single filter."""
        op = self.op
        return isinstance(op, ops.Conv) and bool(self.inputs) and 1 < op.groups == op.out == self.inputs[0].channels

    def pointwise(self, *, grouped: bool = False) -> bool:
        """Whether it is a 1x1 convolution of a map at stride 1; only with `grouped` may it have groups."""
        op = self.op
        return (
            isinstance(op, ops.Conv)
            and (grouped or op.groups == 1)
            and op.kernel == op.stride == (1, 1)
            and op.padding == ops.NO_PADDING
            and not self.from_image
        )

    @property
    def small_filters(self) -> bool:
        """Whether it is a dense 3x3 convolution with stride 1, read from one place (`winograd`)."""
        op = self.op
        return (
            isinstance(op, ops.Conv)
            and (op.kernel, op.stride, op.dilation, op.groups) == ((3, 3), (1, 1), (1, 1), 1)
            and not self.from_image
            and self.inputs[0].contiguous
        )

    @property
    def windowed(self) -> bool:
        """Whether it reads each lane by itself through a window: depthwise or pool."""
        return self.depthwise or isinstance(self.op, ops.Pool)

    @property
    def matrix(self) -> bool:
        """Whether it is a matrix product: a convolution that is not depthwise, or fully connected."""
        return isinstance(self.op, ops.Conv | ops.Dense) and not self.depthwise

    @property
    def unstripped(self) -> bool:
        """Whether its kernel counts pixels through the map, without strips of rows: pointwise or fully connected."""
        return isinstance(self.op, ops.Dense) or self.pointwise(grouped=True)

    def lanes(self, vector: int) -> int:
        """Lanes that it writes: whole vectors, per group for grouped convolutions."""
        groups = 1 if self.depthwise else self.groups
        if groups > 1:
            return groups * up(self.op.out // groups, vector)  # type: ignore[union-attr]
        if isinstance(self.op, ops.Dense):
            return dense_lanes(self.op.out, vector)
        low, high = self.output.span(vector)
        return high - low


def dense_lanes(outputs: int, vector: int) -> int:
    """Lanes of a fully connected layer: for a large one a multiple of four vectors, which threads can split."""
    return up(outputs, 4 * vector if outputs >= _MANY else vector)
