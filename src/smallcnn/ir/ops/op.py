"""What every operator has: its inputs, the tensor it gives, its weights."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import ClassVar

from smallcnn.errors import GraphError
from smallcnn.ir import checks
from smallcnn.ir.types import Shape, Tensor

Pair = tuple[int, int]
Padding = tuple[Pair, Pair]

NO_PADDING: Padding = ((0, 0), (0, 0))


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
    moves: ClassVar[bool] = False  # passes numbers of any type on, as it only moves them; others compute with float32
    inputs_min: ClassVar[int] = 1
    inputs_max: ClassVar[int | None] = 1

    def output(self, *inputs: Tensor) -> Tensor:
        """The result for these inputs; GraphError if they do not fit."""
        if self.moves:
            return passed_on(self, inputs)
        for tensor in inputs:
            if tensor.number != "float32":
                raise GraphError(f"needs float32, not {tensor.number}; a dequantize must come first")
        return Tensor(self.output_shape(*(tensor.shape for tensor in inputs)))

    def output_shape(self, *inputs: Shape) -> Shape:
        """Shape of the result, by default that of the input. Raises GraphError if the inputs do not fit."""
        return inputs[0]

    def weights(self, *inputs: Shape) -> dict[str, Weight]:  # noqa: ARG002
        """Name, tensor and kind of each stored tensor, in storage order."""
        return {}

    def check_bounds(self, *inputs: Shape) -> None:
        """Raises GraphError if the operator's result, weights or work on these inputs is beyond any small CNN's."""
        shape = self.output_shape(*inputs)
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


def listed(shapes: Sequence[Shape]) -> str:
    """Shapes for a message."""
    return " and ".join(map(str, shapes))
