"""In which order channels go, and how many of them: from scores to sets that meet a budget."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal

import numpy as np

from smallcnn.errors import GraphError
from smallcnn.ir import ops
from smallcnn.ir.graph import Graph
from smallcnn.transform.prune.remove import remove_from_graph
from smallcnn.transform.prune.tied import Tied

Order = Literal["global", "layer"]
Unit = Literal["mult_adds", "parameters"]

_LEAST_SHARE = 8
"""At least an eighth of a family stays: a layer that collapses cannot be made up for by others."""


@dataclass(frozen=True)
class Removal:
    """Sets of one family that go together, so that its widths stay multiples of the step.

    `share` is the part of the family that has gone with them, `score` the sum of theirs.
    """

    family: int
    sets: tuple[int, ...]
    share: float
    score: float


def removals(
    graph: Graph,
    sets: Sequence[Tied],
    families: Sequence[Sequence[int]],
    scores: np.ndarray,
    *,
    step: int = 8,
    order: Order = "global",
    unit: Unit = "mult_adds",
) -> list[Removal]:
    """All removals that leave a network, in the order in which to make them.

    The lowest `scores` of a family go first, in steps of `step` channels of its widest layer. "global" takes next what
    has the lowest score for the Mult-Adds or parameters that it saves, in the network as it is by then; "layer" takes
    the same share of every family.
    """
    waiting = [list(_of_family(number, sets, family, scores, step)) for number, family in enumerate(families)]
    costs = _Costs(graph, unit)
    chosen: list[Removal] = []
    while first := [queue[0] for queue in waiting if queue]:
        best = min(first, key=lambda one: one.share if order == "layer" else one.score / costs.saved(sets, one.sets))
        if costs.remove(sets, best.sets):
            chosen.append(best)
            waiting[best.family].pop(0)
        else:
            waiting[best.family].clear()
    return chosen


def within(
    graph: Graph,
    sets: Sequence[Tied],
    ordered: Sequence[Removal],
    cost: Callable[[Graph], float],
    budget: float,
    unit: str,
) -> list[Tied]:
    """The sets of the fewest first removals after which the network's `cost` is within the `budget`, in this `unit`.

    Raises GraphError if not even all removals suffice.
    """

    def gone(count: int) -> list[Tied]:
        return [sets[number] for one in ordered[:count] for number in one.sets]

    low, high = 0, len(ordered)
    if (least := cost(remove_from_graph(graph, gone(high)))) > budget:
        raise GraphError(f"pruning cannot reach {budget:,.6g} {unit}: {least:,.6g} is the least")
    while low < high:
        middle = (low + high) // 2
        if cost(remove_from_graph(graph, gone(middle))) <= budget:
            high = middle
        else:
            low = middle + 1
    return gone(high)


def _of_family(
    number: int, sets: Sequence[Tied], family: Sequence[int], scores: np.ndarray, step: int
) -> Iterator[Removal]:
    """The removals of one family, the lowest scores first."""
    together = max(1, step // max(sets[one].width for one in family))
    ordered = sorted(family, key=lambda one: (scores[one], one))
    kept = max(together, -(-len(family) // _LEAST_SHARE))
    start = 0
    end = len(family) % together or together
    while len(family) - end >= kept:
        lot = tuple(ordered[start:end])
        yield Removal(number, lot, end / len(family), float(scores[list(lot)].sum()))
        start, end = end, end + together


class _Costs:
    """Channels that each node has left, and what each layer costs with them."""

    def __init__(self, graph: Graph, unit: Unit) -> None:
        self._left = {node.name: node.shape[-1] for node in graph}
        self._columns: dict[str, int] = {}
        self._per_weight: dict[str, int] = {}
        for node in graph:
            if isinstance(node.op, ops.Conv | ops.Dense):
                _, self._columns[node.name], *kernel = graph.weights_of(node)["weight"].shape
                pixels = prod(node.shape[:-1]) if unit == "mult_adds" else 1
                self._per_weight[node.name] = pixels * prod(kernel)

    def saved(self, sets: Sequence[Tied], numbers: Sequence[int]) -> float:
        """What the network saves without these sets; at least 1."""
        own, columns = self._gone(sets, numbers)
        saved = 0
        for layer in {name for name in own if name in self._columns} | columns.keys():
            out, inputs = self._left[layer], self._columns[layer]
            rest = (out - own.get(layer, 0)) * (inputs - columns.get(layer, 0))
            saved += self._per_weight[layer] * (out * inputs - rest)
        return max(saved, 1)

    def remove(self, sets: Sequence[Tied], numbers: Sequence[int]) -> bool:
        """Takes these sets out; False, and nothing done, if a node would have no channel left."""
        own, columns = self._gone(sets, numbers)
        if any(self._left[name] <= count for name, count in own.items()):
            return False
        for left, gone in ((self._left, own), (self._columns, columns)):
            for name, count in gone.items():
                left[name] -= count
        return True

    @staticmethod
    def _gone(sets: Sequence[Tied], numbers: Sequence[int]) -> tuple[Mapping[str, int], Mapping[str, int]]:
        """How many channels each node loses, and how many columns the weights of each layer."""
        own: dict[str, int] = {}
        columns: dict[str, int] = {}
        for number in numbers:
            for name, places in sets[number].channels.items():
                own[name] = own.get(name, 0) + len(places)
            for part in sets[number].read:
                columns[part.node] = columns.get(part.node, 0) + len(part.indices)
        return own, columns
