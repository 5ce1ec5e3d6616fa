"""Published tables: rows of figures as printed, how each is counted here, and notes on the paper.

    Table("mobilenet_v1.t4", "title", (
        Row("MobileNet", (mult_adds("569 M"), parameters("4.2 M")), model="mobilenet_v1", accuracy="70.6"),
    ), accuracy=TOP1)

No count is stored; `compare` builds the networks and counts. Accuracies are the papers' own.
"""

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Literal

from smallcnn.papers import count
from smallcnn.papers.count import Network

Counted = int | Fraction | str
Kind = Literal["wrong", "convention", "unclear", "remark"]

TOP1 = "ImageNet top-1, %"
TOP1_ERROR = "ImageNet top-1 error, %"
COCO_AP = "COCO AP, %"
_KINDS = {"wrong": "wrong in the paper", "convention": "the paper's rule", "unclear": "unclear"}
_UNITS: dict[str, int | Fraction] = {
    "": 1,
    "K": 10**3,
    "M": 10**6,
    "G": 10**9,
    "B": 10**9,
    "KB": 10**3,
    "MB": 10**6,
    "%": Fraction(1, 100),
}


@dataclass(frozen=True)
class Note:
    """A note on a figure.

    wrong       the paper contradicts itself or its own layer table
    convention  it is rounded or counted by another rule, named in the text
    unclear     no known rule gives this number
    remark      the figure agrees, or nothing is counted
    """

    kind: Kind
    text: str

    def __str__(self) -> str:
        return self.text if self.kind == "remark" else f"{_KINDS[self.kind]}: {self.text}"


@dataclass(frozen=True)
class Figure:
    """One published quantity: the printed text ("569 M"), and how it is counted here, if it can be.

    `counted` takes the row's network, or is a number if a closed formula gives it. A text is compared verbatim,
    a number after rounding to the printed digits. `unit` is needed if a suffix does not mean powers of ten.
    """

    quantity: str
    printed: str
    counted: Callable[[Network], Counted] | int | Fraction | None = None
    note: Note | None = None
    unit: int | None = None

    @property
    def value(self) -> Decimal:
        """The printed number, in its unit."""
        return Decimal(self.printed.partition(" ")[0].lstrip("~").replace(",", ""))

    @property
    def suffix(self) -> str:
        """M, K, %, KB or nothing."""
        return self.printed.partition(" ")[2]

    @property
    def scale(self) -> int | Fraction:
        """The value of one unit."""
        return self.unit or _UNITS[self.suffix]


@dataclass(frozen=True)
class Row:
    """A line of a table. `model` is a registry name with options, empty for what this package does not build.

    `resolution` and `classes` default to the network's own.
    """

    label: str
    figures: tuple[Figure, ...]
    model: str = ""
    resolution: int | None = None
    classes: int | None = None
    accuracy: str = ""


@dataclass(frozen=True)
class Table:
    """A published table. `id` is `paper.table`.

    `accuracy` is the heading of its accuracy column; `note` applies to differing figures without their own note.
    """

    id: str
    title: str
    rows: tuple[Row, ...]
    accuracy: str = ""
    note: Note | None = None

    @property
    def paper(self) -> str:
        """First part of the id."""
        return self.id.partition(".")[0]


def wrong(text: str) -> Note:
    """The paper is wrong, and why."""
    return Note("wrong", text)


def convention(text: str) -> Note:
    """The paper rounds or counts by another rule."""
    return Note("convention", text)


def unclear(text: str) -> Note:
    """No known rule gives the printed number."""
    return Note("unclear", text)


def remark(text: str) -> Note:
    """A remark; nothing differs."""
    return Note("remark", text)


CUT = convention("cut off, not rounded")


def mult_adds(printed: str, note: Note | None = None) -> Figure:
    """Mult-Adds of the whole network."""
    return Figure("Mult-Adds", printed, count.mult_adds, note)


def flops(printed: str, note: Note | None = None) -> Figure:
    """Multiplies and adds counted separately: two per Mult-Add."""
    return Figure("FLOPs", printed, count.flops, note)


def parameters(printed: str, note: Note | None = None) -> Figure:
    """Learned parameters of the whole network."""
    return Figure("parameters", printed, count.parameters, note)


def head(printed_mult_adds: str, printed_parameters: str, note: Note | None = None) -> tuple[Figure, Figure]:
    """Mult-Adds, with a note, and parameters of a detector without its backbone."""
    parts = (*(f"extra{i}" for i in range(1, 5)), *(f"predict{i}" for i in range(1, 7)))
    return (
        Figure("Mult-Adds", printed_mult_adds, count.part_mult_adds(*parts), note),
        Figure("parameters", printed_parameters, count.part_parameters(*parts)),
    )


def not_counted(figures: dict[str, str], note: Note | None = None) -> tuple[Figure, ...]:
    """Figures of a network this package does not build: {quantity: printed}."""
    return tuple(Figure(quantity, printed, note=note) for quantity, printed in figures.items())
