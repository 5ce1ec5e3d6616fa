"""What every operator has: its inputs, the tensor it gives, its weights."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import ClassVar

from smallcnn.errors import GraphError
from smallcnn.ir import checks
from smallcnn.ir.types import Grid, Number, Shape, Tensor

Pair = tuple[int, int]
Padding = tuple[Pair, Pair]

NO_PADDING: Padding = ((0, 0), (0, 0))
BYTES: tuple[Number, ...] = ("uint8", "int8")
"""Number types of what lies between the layers of a quantized network."""


@dataclass(frozen=True, slots=True)
class Weight:
    """One stored tensor of an operator. `learned` is false for batch norm's running statistics."""

    tensor: Tensor
    learned: bool = True

    @property
    def shape(self) -> Shape:
        """Shape of the tensor."""
        return self.tensor.shape


@dataclass(frozen=True)
class Op:
    """One operator. Subclasses define the number of inputs, the shape of the result and the weights."""

    kind: ClassVar[str]
    moves: ClassVar[bool] = False  # passes numbers of any type on, as it only moves them; others compute
    inputs_min: ClassVar[int] = 1
    inputs_max: ClassVar[int | None] = 1

    @property
    def bounds(self) -> tuple[float, float] | None:
        """The bounds that it puts on numbers, which may be infinite; None if it does anything else."""
        return None

    @property
    def keeps_grid(self) -> bool:
        """Whether bytes stay on their grid: it only moves, chooses or bounds them."""
        return self.moves or self.bounds is not None

    def output(self, *inputs: Tensor) -> Tensor:
        """The result for these inputs; GraphError if they do not fit.

        Operators that compute take bytes on a grid as the real numbers they stand for, if `on_grids` allows.
        """
        if self.moves:
            return passed_on(self, inputs)
        shape = self.output_shape(*(tensor.shape for tensor in inputs))
        if all(tensor.number == "float32" for tensor in inputs):
            return Tensor(shape)
        for tensor in inputs:
            if tensor.number not in BYTES:
                other = (
                    "; a quantize must come first" if tensor.number == "int32" else ", as its other inputs are bytes"
                )
                raise GraphError(f"needs bytes on a grid, not {tensor.number}{other}")
        return self.on_grids(shape, *inputs)

    def on_grids(self, shape: Shape, *inputs: Tensor) -> Tensor:  # noqa: ARG002
        """The result of this shape for inputs of bytes on grids; by default there is none."""
        raise GraphError(f"needs float32, not {inputs[0].number}; a dequantize must come first")

    def output_shape(self, *inputs: Shape) -> Shape:
        """Shape of the result, by default that of the input. Raises GraphError if the inputs do not fit."""
        return inputs[0]

    def weights(self, *inputs: Tensor) -> dict[str, Weight]:  # noqa: ARG002
        """Name, tensor and kind of each stored tensor, in storage order."""
        return {}

    def check_bounds(self, *inputs: Tensor) -> None:
        """Raises GraphError if the operator's result, weights or work on these inputs is beyond any small CNN's."""
        shape = self.output_shape(*(tensor.shape for tensor in inputs))
        checks.result(shape)
        for name, weight in self.weights(*inputs).items():
            checks.stored(name, weight.shape)
            checks.work(prod(shape[:-1]) * prod(weight.shape))


def passed_on(op: Op, inputs: Sequence[Tensor]) -> Tensor:
    """The result of an operator that only moves or chooses numbers: of its inputs' type, on their grid."""
    kinds = {(tensor.number, tensor.grid) for tensor in inputs}
    if len(kinds) > 1:
        numbers = " and ".join(sorted({tensor.number for tensor in inputs}))
        raise GraphError(f"joins {numbers} of different grids; all its inputs need one number type and grid")
    shape = op.output_shape(*(tensor.shape for tensor in inputs))
    return Tensor(shape, inputs[0].number, inputs[0].grid)


def sums(shape: Shape, *scales: float | tuple[float, ...]) -> Tensor:
    """Whole sums, int32, of products whose scales these are; one of them may have an entry per channel.

    Raises GraphError if a product of scales is beyond float32's normal numbers.
    """
    product: tuple[float, ...] = (1.0,)
    for scale in scales:
        many = scale if isinstance(scale, tuple) else (scale,)
        product = tuple(a * b for a in product for b in many)
    return Tensor(shape, "int32", Grid(product, (0,) * len(product)))


def listed(shapes: Sequence[Shape]) -> str:
    """Shapes for a message."""
    return " and ".join(map(str, shapes))
