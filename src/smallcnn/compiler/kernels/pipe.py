"""What all kernels share: operands with static shapes, epilogues, the finished Halide pipeline.

A kernel's operands come in the order in which it asks for them, the output last. Maps are (channel, x, y) or flattened
(channel, pixel), channels innermost; every extent and stride is a constant of the machine code except the range of the
output that threads divide.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import halide as hl

Exprs = Sequence[Any]


@dataclass(frozen=True)
class Step:
    """One elementwise operation after a sum: "relu", "clip" (low, high), ..., "affine", "plus"."""

    kind: str
    low: float = 0.0
    high: float = 0.0
    pitch: int = 0  # of what "plus" adds


@dataclass(frozen=True)
class Machine:
    """What the code is made for: floats per register, registers, Halide's target."""

    vector: int
    registers: int
    target: str


class Pipe:
    """Collects the operands of one kernel while its algorithm is written down."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.parameters: list[Any] = []

    def operand(self, extents: Sequence[int | None], strides: Sequence[int], kind: Any = None) -> Any:
        """The next input, its dimension 0 innermost; an extent of None is not fixed."""
        param = hl.ImageParam(kind or hl.Float(32), len(strides), f"operand{len(self.parameters)}")
        for i, (extent, stride) in enumerate(zip(extents, strides, strict=True)):
            if extent is not None:
                param.dim(i).set_bounds(0, extent)
            param.dim(i).set_stride(stride)
        param.set_host_alignment(16)
        self.parameters.append(param)
        return param

    def vector(self, length: int) -> Any:
        """The next input, one value per lane."""
        return self.operand((length,), (1,))

    def epilogue(self, steps: Sequence[Step], lanes: int, like: Callable[[Step], Any]) -> Callable[..., Any]:
        """Turns (sum, lane, *place) into the result; `like(step)` makes the operand of a "plus", shaped as the output."""
        applied: list[Callable[..., Any]] = [self._step(step, lanes, like) for step in steps]

        def apply(value: Any, *place: Any) -> Any:
            for one in applied:
                value = one(value, *place)
            return value

        return apply

    def _step(self, step: Step, lanes: int, like: Callable[[Step], Any]) -> Callable[..., Any]:
        match step.kind:
            case "relu":
                return lambda v, *_: hl.max(v, 0.0)
            case "relu6":
                return lambda v, *_: hl.max(hl.min(v, 6.0), 0.0)
            case "clip":
                return lambda v, *_: hl.max(hl.min(v, step.high), step.low)
            case "leaky_relu":
                if step.low <= 1:
                    return lambda v, *_: hl.max(v, v * step.low)
                return lambda v, *_: hl.min(v, v * step.low)
            case "hard_sigmoid":
                return lambda v, *_: hl.max(hl.min(v + 3.0, 6.0), 0.0) * (1 / 6)
            case "hard_swish":
                return lambda v, *_: v * (hl.max(hl.min(v + 3.0, 6.0), 0.0) * (1 / 6))
            case "sigmoid":
                return lambda v, *_: 1.0 / (1.0 + hl.exp(-v))
            case "affine":
                scale, shift = self.vector(lanes), self.vector(lanes)
                return lambda v, c, *_: v * scale[c] + shift[c]
            case "plus":
                other = like(step)
                return lambda v, *place: v + other[place]
            case kind:
                raise NotImplementedError(f"no epilogue {kind}")

    def output(self, func: Any, extents: Sequence[int | None], strides: Sequence[int], share: int = 1) -> Any:
        """Fixes the output's layout and returns the finished pipeline.

        Along a dimension that is not fixed, a thread's range is a number of whole `share`s.
        """
        buffer = func.output_buffer()
        for i, (extent, stride) in enumerate(zip(extents, strides, strict=True)):
            if extent is not None:
                buffer.dim(i).set_bounds(0, extent)
            elif share > 1:
                buffer.dim(i).set_min(buffer.dim(i).min() / share * share)
                buffer.dim(i).set_extent(buffer.dim(i).extent() / share * share)
            buffer.dim(i).set_stride(stride)
        return hl.Pipeline([func])


def lane(index: Any) -> Any:
    """An index read from a table, which Halide has to be told the range of."""
    return hl.unsafe_promise_clamped(index, 0, 1 << 30)


def variables(*names: str) -> Any:
    """Halide variables."""
    return [hl.Var(name) for name in names]
