"""The criterion reconstruction: what the layers that read a set of channels lose without it, on some images.

He et al. 2017 (arXiv 1707.06168) and Luo et al. 2017, "ThiNet" (arXiv 1707.06342) remove the channels for which the
next layer's result stays closest to the old one, and solve that layer again by least squares (`repair`). Here both are
one: sets go one after the other, and each counts with the error that is left after the layers were solved again. That
has a closed form, optimal brain surgeon for several weights at once (Hassibi and Stork 1993; Kurtic et al. 2022,
arXiv 2203.07259). With H the covariance of a layer's inputs, w its weights and s the columns of a set,

    error = w_s (H^-1_ss)^-1 w_s'       w -= w_s (H^-1_ss)^-1 H^-1_s.       H^-1 -= H^-1_.s (H^-1_ss)^-1 H^-1_s.

The mean of the inputs is left out, as biases take up its shift. Errors are shares of the variance of a layer's result,
so that they compare across layers. No labels are used.
"""

from collections.abc import Iterator, Mapping, Sequence
from math import prod

import numpy as np

from smallcnn.errors import GraphError
from smallcnn.ir import ops
from smallcnn.ir.graph import Graph
from smallcnn.transform.fold import Weights
from smallcnn.transform.prune.tied import Tied, families
from smallcnn.transform.quantize.rounding import statistics
from smallcnn.transform.quantize.values import Operators, walk

Array = np.ndarray


def reconstruction(graph: Graph, weights: Weights, sets: Sequence[Tied], images: Array, operators: Operators) -> Array:
    """Scores (sets,): the error that each set adds when it goes, the least of its family first.

    `images` are prepared (N, H, W, C). A set that adds less than one that went before it scores as that one. Raises
    GraphError naming a layer with too many inputs for a covariance.
    """
    columns = _columns(graph, sets)
    waiting = {family: {part.node for one in family for part in sets[one].read} for family in families(sets)}
    layers: dict[str, _Layer] = {}
    scores = np.zeros(len(sets))
    for node, value in walk(graph, weights, images, operators):
        for reader in graph.consumers[node.name]:
            if reader.name in columns:
                assert isinstance(reader.op, ops.Conv | ops.Dense)
                layers[reader.name] = _Layer.of(reader.name, reader.op, weights, value, columns[reader.name])
        for family in [family for family, readers in waiting.items() if readers <= layers.keys()]:
            worst = 0.0
            for one, error in _eliminated(family, [layers[name].copy() for name in sorted(waiting.pop(family))]):
                worst = scores[one] = max(worst, error)
        for name in layers.keys() - {name for readers in waiting.values() for name in readers}:
            del layers[name]
    return scores


def _columns(graph: Graph, sets: Sequence[Tied]) -> dict[str, dict[int, Array]]:
    """For each layer, the inputs of its filters that each set is read by."""
    found: dict[str, dict[int, Array]] = {}
    for number, one in enumerate(sets):
        for part in one.read:
            kernel = prod(graph.weights[part.tensor].shape[2:])
            places = np.add.outer(np.multiply(part.indices, kernel), np.arange(kernel))
            found.setdefault(part.node, {})[number] = places.ravel()
    return found


def _eliminated(family: Sequence[int], layers: "Sequence[_Layer]") -> Iterator[tuple[int, float]]:
    """The sets in the order in which they go, each with the error that it adds; changes the layers."""
    left = list(family)
    while left:
        errors = sum((layer.errors(left) for layer in layers), np.zeros(len(left)))
        place = int(errors.argmin())
        one = left.pop(place)
        yield one, float(errors[place])
        for layer in layers:
            layer.remove(one)


class _Layer:
    """A layer that reads sets: its weights (groups, out, inputs), and the inverse of its inputs' covariance.

    `columns` are the inputs that each set is read by, `variance` is that of the layer's result.
    """

    def __init__(self, weight: Array, inverse: Array, variance: float, columns: Mapping[int, Array]) -> None:
        self._weight, self._inverse, self._variance, self._columns = weight, inverse, variance, columns

    @classmethod
    def of(
        cls, name: str, op: ops.Conv | ops.Dense, weights: Weights, source: Array, columns: Mapping[int, Array]
    ) -> "_Layer":
        """The layer for inputs (N, ...)."""
        inputs = statistics(op, weights[f"{name}.weight"], source)
        if inputs is None:
            raise GraphError(f"{name} has too many inputs for the criterion reconstruction; use taylor")
        weight = inputs.grouped(weights[f"{name}.weight"].astype(np.float64))
        variance = float(((weight @ inputs.covariance) * weight).sum())
        return cls(weight, np.linalg.inv(inputs.trusted()), max(variance, np.finfo(float).tiny), columns)

    def copy(self) -> "_Layer":
        """One that can be changed."""
        return _Layer(self._weight.copy(), self._inverse.copy(), self._variance, self._columns)

    def errors(self, sets: Sequence[int]) -> Array:
        """The share of the variance that is lost without each of these sets."""
        found = np.zeros(len(sets))
        sizes = np.array([len(self._columns.get(one, ())) for one in sets])
        for size in set(sizes[sizes > 0].tolist()):
            chosen = np.flatnonzero(sizes == size).tolist()
            places = np.array([self._columns[sets[number]] for number in chosen])
            block = np.linalg.inv(self._inverse[:, places[:, :, None], places[:, None, :]])
            weight = self._weight[:, :, places].swapaxes(1, 2)  # (groups, sets, out, inputs)
            found[chosen] = ((weight @ block) * weight).sum((0, 2, 3)) / self._variance
        return found

    def remove(self, one: int) -> None:
        """Solves the layer again without a set."""
        places = self._columns.get(one)
        if places is None:
            return
        rows = self._inverse[:, places]
        solved = np.linalg.solve(rows[:, :, places], rows)
        self._weight -= self._weight[:, :, places] @ solved
        self._inverse -= rows.swapaxes(1, 2) @ solved
