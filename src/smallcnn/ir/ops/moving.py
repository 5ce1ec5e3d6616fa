"""Operators that only move numbers; the input."""

from dataclasses import dataclass
from math import prod
from typing import ClassVar

from smallcnn.errors import GraphError
from smallcnn.ir import checks
from smallcnn.ir.ops.op import Op, listed
from smallcnn.ir.types import Shape


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


@dataclass(frozen=True)
class Flatten(Op):
    """(H, W, C) -> (H * W * C,) or (N, C) -> (N * C,), channels last: the channel index runs fastest."""

    kind: ClassVar[str] = "flatten"
    moves: ClassVar[bool] = True

    def output_shape(self, *inputs: Shape) -> Shape:
        """The number of entries."""
        if len(inputs[0]) == 1:
            checks.as_map(inputs[0])
        return (prod(inputs[0]),)


@dataclass(frozen=True, kw_only=True)
class Rows(Op):
    """A map read as rows of a few numbers: (H, W, A * C) -> (H * W * A, C) for C `columns`.

    Row by row of the map, and in each cell group by group of its channels: nothing moves in memory.
    """

    kind: ClassVar[str] = "rows"
    moves: ClassVar[bool] = True
    columns: int

    def __post_init__(self) -> None:
        checks.positive("columns", self.columns)

    def output_shape(self, *inputs: Shape) -> Shape:
        """(H * W * A, columns)."""
        height, width, channels = checks.as_map(inputs[0])
        if channels % self.columns:
            raise GraphError(f"{channels} channels do not divide into rows of {self.columns}")
        return (height * width * channels // self.columns, self.columns)


@dataclass(frozen=True)
class Join(Op):
    """Joins two or more tensors of rows one after the other: (N, C), (M, C) -> (N + M, C)."""

    kind: ClassVar[str] = "join"
    moves: ClassVar[bool] = True
    inputs_min: ClassVar[int] = 2
    inputs_max: ClassVar[int | None] = None

    def output_shape(self, *inputs: Shape) -> Shape:
        """Rows summed, columns as given."""
        if any(len(shape) != 2 for shape in inputs) or len({shape[1] for shape in inputs}) > 1:
            raise GraphError(f"cannot join rows of shapes {listed(inputs)}: they need the same columns")
        return (sum(shape[0] for shape in inputs), inputs[0][1])


@dataclass(frozen=True)
class Concat(Op):
    """Joins two or more tensors along the channels."""

    kind: ClassVar[str] = "concat"
    moves: ClassVar[bool] = True
    inputs_min: ClassVar[int] = 2
    inputs_max: ClassVar[int | None] = None

    def output_shape(self, *inputs: Shape) -> Shape:
        """Planes as given, channels summed."""
        if len({shape[:-1] for shape in inputs}) > 1:
            raise GraphError(f"cannot join shapes {listed(inputs)}: their planes differ")
        return (*inputs[0][:-1], sum(shape[-1] for shape in inputs))


@dataclass(frozen=True, kw_only=True)
class Shuffle(Op):
    """Channel shuffle (ShuffleNet v1, figure 1): channels read as (groups, n), transposed to (n, groups), flattened."""

    kind: ClassVar[str] = "shuffle"
    moves: ClassVar[bool] = True
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
    moves: ClassVar[bool] = True
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
