"""Compares published figures with counted ones; builds each network once."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction

from smallcnn import zoo
from smallcnn.papers.count import Network
from smallcnn.papers.table import TOP1, TOP1_ERROR, Counted, Figure, Note, Row, Table

_Key = tuple[str, int | None, int | None]  # model, resolution, classes


@dataclass(frozen=True)
class Comparison:
    """One published figure and our count: exact, a share as a fraction, a text, or None if not counted."""

    table: Table
    row: Row
    figure: Figure
    ours: Counted | None
    network: Network | None

    @property
    def note(self) -> Note | None:
        """The figure's own note, or the table's if the figure is counted and differs."""
        differs = self.ours is not None and not self.agrees
        return self.figure.note or (self.table.note if differs else None)

    @property
    def top1(self) -> float | None:
        """Published ImageNet top-1 of the row, in per cent."""
        if self.table.accuracy not in (TOP1, TOP1_ERROR) or not self.row.accuracy:
            return None
        printed = float(self.row.accuracy)
        return printed if self.table.accuracy == TOP1 else round(100 - printed, 2)

    @property
    def agrees(self) -> bool:
        """Whether our count, rounded to the printed digits, equals the printed number; a text must be identical."""
        if self.ours is None or isinstance(self.ours, str):
            return self.ours == self.figure.printed
        value = self.figure.value
        return self._in_unit(value.as_tuple().exponent) == value

    @property
    def difference(self) -> float | None:
        """(ours - printed) / printed; None for texts and where nothing is counted."""
        if self.ours is None or isinstance(self.ours, str):
            return None
        printed = Fraction(self.figure.value) * self.figure.scale
        return float((self.ours - printed) / printed)

    @property
    def verdict(self) -> str:
        """'agrees', else the difference in per cent, 'differs' for a text; a dash if nothing is counted."""
        if self.ours is None:
            return "-"
        if self.agrees:
            return "agrees"
        return "differs" if self.difference is None else f"{self.difference:+,.1%}"

    @property
    def shown(self) -> str:
        """Our count in the paper's format, with up to two more digits; a dash if nothing is counted."""
        if self.ours is None or isinstance(self.ours, str):
            return self.ours or "-"
        exponent = self.figure.value.as_tuple().exponent
        assert isinstance(exponent, int)
        number = self._in_unit(0 if self.figure.scale == 1 else exponent - 2)
        return f"{number:,f} {self.figure.suffix}".rstrip()

    def _in_unit(self, exponent: object) -> Decimal:
        assert isinstance(exponent, int)
        assert isinstance(self.ours, int | Fraction)
        exact = Fraction(self.ours) / self.figure.scale
        quotient = Decimal(exact.numerator) / Decimal(exact.denominator)
        return quotient.quantize(Decimal(1).scaleb(exponent), ROUND_HALF_UP)


@dataclass(frozen=True)
class Summary:
    """Counts of figures by outcome. The kinds are those of `table.Note`."""

    figures: int
    agree: int
    wrong: int
    convention: int
    unclear: int
    not_counted: int

    def __str__(self) -> str:
        return (
            f"{self.figures} figures: {self.agree} agree to the printed digits; the paper is wrong in {self.wrong}, "
            f"rounds or counts by another rule in {self.convention}, is unclear in {self.unclear}; "
            f"{self.not_counted} have no count here"
        )


def compare(tables: Iterable[Table]) -> list[Comparison]:
    """Every figure of `tables` in order. Networks used by several rows are built once."""
    built: dict[_Key, Network] = {}
    found = []
    for table in tables:
        for row in table.rows:
            network = _network(row, built) if row.model else None
            for figure in row.figures:
                found.append(Comparison(table, row, figure, _count(figure, network), network))
    return found


def summarize(compared: Sequence[Comparison]) -> Summary:
    """Counts of `compared`; a counted figure that does not agree is counted by the kind of its note."""
    kinds = [entry.note.kind for entry in compared if entry.ours is not None and not entry.agrees and entry.note]
    return Summary(
        figures=len(compared),
        agree=sum(entry.agrees for entry in compared),
        wrong=kinds.count("wrong"),
        convention=kinds.count("convention"),
        unclear=kinds.count("unclear"),
        not_counted=sum(entry.ours is None for entry in compared),
    )


def _network(row: Row, built: dict[_Key, Network]) -> Network:
    model = zoo.parse(row.model)
    key = (str(model), row.resolution, row.classes)
    if key not in built:
        common = {"resolution": row.resolution, "classes": row.classes}
        given = {name: value for name, value in common.items() if value is not None}
        built[key] = Network(model.build(**given))
    return built[key]


def _count(figure: Figure, network: Network | None) -> Counted | None:
    if not callable(figure.counted):
        return figure.counted
    assert network, f"{figure} is counted on a network, so its row needs a model"
    return figure.counted(network)
