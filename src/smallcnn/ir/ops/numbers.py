"""Changes of the number type: real numbers to whole ones on a grid, and back."""

from dataclasses import dataclass
from typing import ClassVar

from smallcnn.errors import GraphError
from smallcnn.ir import checks
from smallcnn.ir.ops.op import BYTES, Op
from smallcnn.ir.types import Grid, Number, Tensor, check_grid


@dataclass(frozen=True, kw_only=True)
class Quantize(Op):
    """Real numbers to whole ones: the nearest (ties to even) of value / scale + zero, within the type's range.

    ONNX's QuantizeLinear. For real numbers, the division is one of float32. Whole sums are multiplied by their scale
    over the new one, see `reference.integer`.
    """

    kind: ClassVar[str] = "quantize"
    number: Number
    grid: Grid

    def __post_init__(self) -> None:
        checks.choice("number type", self.number, ("uint8", "int8"))
        check_grid(self.number, self.grid, 1)

    def output(self, *inputs: Tensor) -> Tensor:
        """The same shape on this grid."""
        if inputs[0].number in BYTES:
            raise GraphError(f"needs float32, not {inputs[0].number}; a dequantize must come first")
        return Tensor(inputs[0].shape, self.number, self.grid)


@dataclass(frozen=True)
class Dequantize(Op):
    """Whole numbers to the real ones they stand for: scale * (stored - zero), on the grid of the input."""

    kind: ClassVar[str] = "dequantize"

    def output(self, *inputs: Tensor) -> Tensor:
        """The same shape, float32."""
        if inputs[0].grid is None:
            raise GraphError(f"needs numbers on a grid, not {inputs[0].number}")
        return Tensor(self.output_shape(inputs[0].shape))
