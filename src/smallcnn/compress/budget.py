"""Budgets of compression: Mult-Adds, parameters, milliseconds, bytes; in numbers or as a share of the network's own."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from math import log2
from typing import Literal

from smallcnn.compress.latency import int8_milliseconds, milliseconds
from smallcnn.cost.profile import profile
from smallcnn.errors import DataError
from smallcnn.ir.graph import Graph
from smallcnn.transform.prune.choose import Unit

Form = Literal["float32", "int8"]
"""What a network computes with."""

_AMOUNT = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*(x|ms|k|m|g)?", re.IGNORECASE)
_SIZE = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*(x|b|kb|mb)", re.IGNORECASE)
_FACTORS = {"k": 1e3, "m": 1e6, "g": 1e9}


@dataclass(frozen=True)
class Measure:
    """What a budget limits: its name, what a network has of it, and what removals are chosen to save.

    If it is measured on this machine, `of` is the compiler's estimate, and `timed` the form in which it is timed.
    """

    name: str
    of: Callable[[Graph], float]
    saves: Unit
    timed: Form | None = None


MEASURES = {
    "mult_adds": Measure("Mult-Adds", lambda graph: profile(graph).mult_adds, "mult_adds"),
    "parameters": Measure("parameters", lambda graph: profile(graph).parameters, "parameters"),
    "latency": Measure("ms", milliseconds, "mult_adds", "float32"),
    "int8_latency": Measure("ms as int8", int8_milliseconds, "mult_adds", "int8"),
}


@dataclass(frozen=True)
class Budget:
    """At most this `amount` of a measure, or if `relative`, this share of what the original network has."""

    measure: str
    amount: float
    relative: bool

    @classmethod
    def parse(cls, text: str, measure: str = "mult_adds") -> "Budget":
        """The budget from 0.5x, 150M (Mult-Adds, parameters) or 3ms (latency). Raises DataError for anything else."""
        found = _AMOUNT.fullmatch(text.strip())
        unit = (found[2] or "").lower() if found else ""
        timed = MEASURES[measure].timed
        if found is None or unit not in (("x", "ms") if timed else ("x", "", *_FACTORS)):
            examples = "0.5x or 3ms" if timed else "0.5x or 150M"
            raise DataError(f"a budget of {MEASURES[measure].name} is written {examples}, not {text!r}")
        amount = float(found[1]) * _FACTORS.get(unit, 1)
        _check(text, amount, unit)
        return cls(measure, amount, unit == "x")

    @property
    def timed(self) -> Form | None:
        """The form in which a network is timed, None if the budget is no time."""
        return MEASURES[self.measure].timed

    def cost(self, graph: Graph) -> float:
        """What a network has of the measure, by the compiler's estimate if it is time."""
        return MEASURES[self.measure].of(graph)

    def limits(self, original: Graph, rounds: int | None = None, start: float | None = None) -> list[float]:
        """The limit of each round, by equal factors from `start`, by default what the original costs.

        Without `rounds`, there is one for each halving. Raises DataError if the network is within the budget.
        """
        start = self.cost(original) if start is None else start
        end = self.amount * start if self.relative else self.amount
        if end >= start:
            raise DataError(f"{original.name} is within the budget: it has {start:,.6g} {MEASURES[self.measure].name}")
        rounds = rounds or max(1, round(log2(start / end)))
        return [start * (end / start) ** (number / rounds) for number in range(1, rounds + 1)]

    def __str__(self) -> str:
        if self.relative:
            return f"{self.amount:g}x {MEASURES[self.measure].name}"
        return f"{self.amount:,.6g} {MEASURES[self.measure].name}"


@dataclass(frozen=True)
class Limits:
    """What a compressed file must keep to: at most so many `bytes`, at most so many `milliseconds` for one image.

    The time is measured, compiled for one thread of this machine. None is no limit.
    """

    bytes: int | None = None
    milliseconds: float | None = None

    def __str__(self) -> str:
        """The limits in words."""
        size = None if self.bytes is None else f"{self.bytes:,} bytes"
        time = None if self.milliseconds is None else spelled_ms(self.milliseconds)
        return " and ".join(one for one in (size, time) if one)


def parse_size(text: str, whole: int) -> int:
    """The bytes that 500kB, 0.5MB, 9000B, or a share of `whole` bytes such as 0.1x stand for. Raises DataError."""
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise DataError(f"a size is written 500kB, 0.5MB or 0.1x, not {text!r}")
    unit = found[2].lower()
    amount = float(found[1]) * {"x": 1, "b": 1, "kb": 1e3, "mb": 1e6}[unit]
    _check(text, amount, unit)
    return int(amount * whole) if unit == "x" else int(amount)


def spelled_ms(milliseconds: float) -> str:
    """A time for a message, to three digits."""
    return f"{milliseconds:,.0f} ms" if milliseconds >= 999.5 else f"{milliseconds:.3g} ms"


def _check(text: str, amount: float, unit: str) -> None:
    if amount <= 0 or (unit == "x" and amount >= 1):
        raise DataError(f"a budget must be above 0{' and below 1x' if unit == 'x' else ''}, not {text}")


UNLIMITED = Limits()
