"""Budgets of pruning: Mult-Adds, parameters or milliseconds, in numbers or as a share of the network's own."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from smallcnn.compress.latency import milliseconds
from smallcnn.cost.profile import profile
from smallcnn.errors import DataError
from smallcnn.ir.graph import Graph
from smallcnn.transform.prune.choose import Unit

_AMOUNT = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*(x|ms|k|m|g)?", re.IGNORECASE)
_FACTORS = {"k": 1e3, "m": 1e6, "g": 1e9}


@dataclass(frozen=True)
class Measure:
    """What a budget limits: its name, what a network has of it, and what removals are chosen to save."""

    name: str
    of: Callable[[Graph], float]
    saves: Unit


MEASURES = {
    "mult_adds": Measure("Mult-Adds", lambda graph: profile(graph).mult_adds, "mult_adds"),
    "parameters": Measure("parameters", lambda graph: profile(graph).parameters, "parameters"),
    "latency": Measure("ms", milliseconds, "mult_adds"),
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
        allowed = ("x", "ms") if measure == "latency" else ("x", "", *_FACTORS)
        if found is None or unit not in allowed:
            examples = "0.5x or 3ms" if measure == "latency" else "0.5x or 150M"
            raise DataError(f"a budget of {MEASURES[measure].name} is written {examples}, not {text!r}")
        amount = float(found[1]) * _FACTORS.get(unit, 1)
        if amount <= 0 or (unit == "x" and amount >= 1):
            raise DataError(f"a budget must be above 0{' and below 1x' if unit == 'x' else ''}, not {text}")
        return cls(measure, amount, unit == "x")

    def cost(self, graph: Graph) -> float:
        """What a network has of the measure."""
        return MEASURES[self.measure].of(graph)

    def limits(self, original: Graph, rounds: int) -> list[float]:
        """The limit of each round, by equal factors. Raises DataError if the network is within the budget."""
        start = self.cost(original)
        end = self.amount * start if self.relative else self.amount
        if end >= start:
            raise DataError(f"{original.name} is within the budget: it has {start:,.6g} {MEASURES[self.measure].name}")
        return [start * (end / start) ** (number / rounds) for number in range(1, rounds + 1)]

    def __str__(self) -> str:
        if self.relative:
            return f"{self.amount:g}x {MEASURES[self.measure].name}"
        return f"{self.amount:,.6g} {MEASURES[self.measure].name}"
