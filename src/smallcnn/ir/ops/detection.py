"""The end of a detector: from a code and scores for every anchor to the objects that the network has found."""

from dataclasses import dataclass
from itertools import product
from math import prod
from typing import ClassVar, Literal, get_args

from smallcnn.errors import GraphError
from smallcnn.ir import checks
from smallcnn.ir.ops.op import Op
from smallcnn.ir.types import Shape

Score = Literal["sigmoid", "softmax", "none"]
Centre = Literal["linear", "tanh"]
Size = Literal["exp", "linear", "sigmoid"]

FIELDS = 6
"""Numbers of one object in the result of `Detect`: left, top, right, bottom, score, class."""

_MOST_ANCHORS = 2**18
_MOST_FOUND = 2**14


@dataclass(frozen=True, kw_only=True)
class AnchorGrid:
    """The anchors of one map: in each cell one of each size, row by row, in the order of the map's channels.

    All numbers are fractions of the network's input. Cells are `step` (vertical, horizontal) apart, and their anchors
    are centred `offset` of a step into the cell. `sizes` are (width, height).
    """

    cells: tuple[int, int]
    sizes: tuple[tuple[float, float], ...]
    step: tuple[float, float]
    offset: float = 0.5

    def __post_init__(self) -> None:
        pairs = (self.cells, self.step, *self.sizes) if isinstance(self.sizes, tuple) else ()
        if not pairs or not all(isinstance(pair, tuple) and len(pair) == 2 for pair in pairs) or not self.sizes:
            raise GraphError(f"a grid of anchors needs pairs of cells, sizes and steps, not {checks.shown(self)}")
        for value in self.cells:
            checks.positive("cells", value)
        for name, pair in (("step", self.step), *(("size of an anchor", size) for size in self.sizes)):
            for number in pair:
                checks.above_zero(name, number)
        if not (checks.is_number(self.offset) and 0 <= self.offset <= 1):
            raise GraphError(f"offset must be from 0 to 1, not {checks.shown(self.offset)}")

    def __len__(self) -> int:
        """Number of anchors."""
        return prod(self.cells) * len(self.sizes)

    def boxes(self) -> list[tuple[float, float, float, float]]:
        """Centre x, centre y, width, height of every anchor."""
        (down, right), (rows, columns) = self.step, self.cells
        return [
            ((column + self.offset) * right, (row + self.offset) * down, width, height)
            for row, column, (width, height) in product(range(rows), range(columns), self.sizes)
        ]


@dataclass(frozen=True, kw_only=True)
class Detect(Op):
    """Decodes a box for every anchor, scores it, and keeps the best by greedy non-maximum suppression.

        coded (N, 4), scores (N, C) [, objectness (N, 1)]  ->  (most, 6)

    Each row of the result is an object: left, top, right, bottom, score, class; by falling score, then by rising class
    and anchor. Boxes are in fractions of the network's input. Unused rows are 0. Everything is computed in float32.

    Decoding, for an anchor with centre a and size s: centre = a + f(code) * centre_scale * s, where f is the identity
    ("linear") or tanh; size = g(code * size_scale) * s, where g is exp, the identity ("linear") or a sigmoid. The
    argument of exp is at most `EXP_LIMIT`. A code is x, y, width, height, or y, x, height, width if `y_first`.
    With `clip`, boxes are then clipped to the input.

    `score` turns raw scores into probabilities over the C classes, of which the first is no object if `background`. An
    objectness, already from 0 to 1, joins as objectness ** p * score ** (1 - p), where p is the `objectness_power`.

    Boxes with a score above `threshold` are taken by falling score, unless one that was taken before overlaps them by
    more than `overlap` (intersection over union). Equal scores are taken in the order of the anchors. With `across`, a
    box has its best class only, and boxes of all classes suppress each other; else each class is on its own. At most
    `most` boxes are taken, of each class or across.

    SSD: Liu et al. 2016 (arXiv 1512.02325), sections 2.1 and 3.1; its scales are 0.1 and 0.2.
    """

    kind: ClassVar[str] = "detect"
    inputs_min: ClassVar[int] = 2
    inputs_max: ClassVar[int | None] = 3
    EXP_LIMIT: ClassVar[float] = 4.135166556742356  # log(1000 / 16), as in torchvision
    anchors: tuple[AnchorGrid, ...]
    score: Score
    background: bool
    centre: Centre
    size: Size
    centre_scale: float
    size_scale: float
    y_first: bool
    clip: bool
    across: bool
    threshold: float
    overlap: float
    most: int
    objectness_power: float = 0.5

    def __post_init__(self) -> None:
        if not (isinstance(self.anchors, tuple) and self.anchors):
            raise GraphError("needs at least one grid of anchors")
        for name, kinds in (("score", Score), ("centre", Centre), ("size", Size)):
            checks.choice(name, getattr(self, name), get_args(kinds))
        for name in ("background", "y_first", "clip", "across"):
            checks.flag(name, getattr(self, name))
        for name in ("centre_scale", "size_scale"):
            checks.above_zero(name, getattr(self, name))
        for name in ("threshold", "overlap", "objectness_power"):
            if not (checks.is_number(value := getattr(self, name)) and 0 <= value <= 1):
                raise GraphError(f"{name} must be from 0 to 1, not {checks.shown(value)}")
        checks.positive("most", self.most)
        for what, count, most in (
            ("anchors", self.anchor_count, _MOST_ANCHORS),
            ("objects to find", self.most, _MOST_FOUND),
        ):
            if count > most:
                raise GraphError(f"{count:,} {what}; at most {most:,} are allowed")

    @property
    def anchor_count(self) -> int:
        """Number of anchors of all grids."""
        return sum(map(len, self.anchors))

    @property
    def anchor_free(self) -> bool:
        """Whether each cell has one place for an object, and each class a score of its own."""
        return self.score == "sigmoid" and not self.background and all(len(grid.sizes) == 1 for grid in self.anchors)

    def output_shape(self, *inputs: Shape) -> Shape:
        """(most, 6)."""
        coded, scores, *objectness = inputs
        count = self.anchor_count
        if coded != (count, 4):
            raise GraphError(f"{count} anchors need a code of ({count}, 4), not {coded}")
        if len(scores) != 2 or scores[0] != count or scores[1] < 1 + self.background:
            raise GraphError(f"{count} anchors need scores of ({count}, classes), not {scores}")
        if objectness not in ([], [(count, 1)]):
            raise GraphError(f"{count} anchors need an objectness of ({count}, 1), not {objectness[0]}")
        return (self.most, FIELDS)

    def found_classes(self, scores: Shape) -> int:
        """Number of classes of objects, for raw scores of this shape."""
        return scores[1] - self.background


@dataclass(frozen=True)
class Count(Op):
    """The number of entries above 0: any shape -> (1,)."""

    kind: ClassVar[str] = "count"

    def output_shape(self, *inputs: Shape) -> Shape:  # noqa: ARG002
        """(1,)."""
        return (1,)
