"""How much a network would miss each set of tied channels: one number per set, of which the lowest go first.

| criterion | score of a channel | source |
|---|---|---|
| taylor | squared change of the loss without it, to first order | Molchanov et al. 2019, 1906.10771 |
| reconstruction | error of the layers that read it, solved again without it (see there) | He et al. 2017, 1707.06168 |
| l1, l2 | norm of its filter, batch norm folded | Li et al. 2017, 1608.08710 |
| norm | absolute scale of its batch norm | Liu et al. 2017, 1708.06519 |
| random | a random number, to compare with | |

The scores of taylor and reconstruction are of one unit each, so that they compare across layers. The others are turned
into shares: the square of a score over the sum of squares of all sets of its family that are left when it goes (Lee et
al. 2021, 2010.07611), for each layer that computes the set.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, get_args

import numpy as np

from smallcnn.errors import GraphError
from smallcnn.ir.graph import Graph
from smallcnn.transform.fold import fold
from smallcnn.transform.prune.scales import deciding
from smallcnn.transform.prune.tied import Tied

Criterion = Literal["taylor", "reconstruction", "l1", "l2", "norm", "random"]
CRITERIA: tuple[Criterion, ...] = get_args(Criterion)
COMPARABLE: tuple[Criterion, ...] = ("taylor", "reconstruction")
"""Criteria whose scores compare across layers as they are."""

Weights = Mapping[str, np.ndarray]


def taylor(weights: Weights, gradients: Iterable[Weights], sets: Sequence[Tied]) -> np.ndarray:
    """Scores (sets,) from the gradients of the loss of several batches, by the names of the weights.

    Without a set, the weights that read it are zero: the loss changes by - sum of weight * gradient to first order.
    The scores are the squares of that, their mean over the batches.
    """
    total, count = np.zeros(len(sets)), 0
    columns = {part.tensor for one in sets for part in one.read}
    for gradient in gradients:
        changes = {name: _per_column(weights[name] * gradient[name]) for name in columns}
        change = [sum(changes[part.tensor][list(part.indices)].sum() for part in one.read) for one in sets]
        total += np.square(change)
        count += 1
    if not count:
        raise GraphError("Taylor's criterion needs the gradients of at least one batch")
    return total / count


def magnitude(graph: Graph, weights: Weights, sets: Sequence[Tied], power: int) -> np.ndarray:
    """L1 (`power` 1) or L2 (2) norms (sets,) of the filters that compute a set, batch norm folded.

    A filter counts relative to the mean of its layer; the score is the mean over the layers.
    """
    _, folded = fold(graph, weights)
    norms = {}
    for layer in {layer for one in sets for layer in one.layers}:
        filters = folded[f"{layer}.weight"].astype(np.float64)
        each = np.linalg.norm(filters.reshape(len(filters), -1), power, axis=1)
        norms[layer] = each / max(float(each.mean()), np.finfo(float).tiny)
    return _mean_over_layers(sets, norms)


def norm_scale(graph: Graph, weights: Weights, sets: Sequence[Tied]) -> np.ndarray:
    """Absolute scales (sets,) of the `deciding` batch norms after the layers that compute a set, their mean.

    Raises GraphError if a set has no batch norm.
    """
    scales = {name: np.abs(weights[f"{name}.weight"]) for name in deciding(graph)}
    for one in sets:
        if not scales.keys() & one.channels.keys():
            raise GraphError(f"{one.layers[0]} has no batch norm, so its channels have no scale; use another criterion")
    return _mean_over_layers(sets, scales)


def random(sets: Sequence[Tied], seed: int) -> np.ndarray:
    """Random scores (sets,) from 0 to 1."""
    return np.random.default_rng(seed).random(len(sets))


def shares(scores: np.ndarray, sets: Sequence[Tied], families: Sequence[Sequence[int]]) -> np.ndarray:
    """The square of each score over the sum of the squares in its family that are not lower, times its layers."""
    found = np.zeros(len(scores))
    for family in families:
        ordered = np.array(family)[np.argsort(scores[list(family)], kind="stable")]
        squares = np.square(scores[ordered]) + np.finfo(float).tiny
        found[ordered] = squares / np.cumsum(squares[::-1])[::-1]
    return found * [len(one.layers) for one in sets]


def _mean_over_layers(sets: Sequence[Tied], values: Mapping[str, np.ndarray]) -> np.ndarray:
    """For each set, the mean of the values (channels,) of its channels in each of these nodes, over the nodes."""
    return np.array([
        np.mean([values[name][list(places)].mean() for name, places in one.channels.items() if name in values])
        for one in sets
    ])  # fmt: skip


def _per_column(values: np.ndarray) -> np.ndarray:
    """Sums over all axes but the second, in float64."""
    return values.sum(axis=tuple(axis for axis in range(values.ndim) if axis != 1), dtype=np.float64)
