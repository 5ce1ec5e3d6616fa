"""Codebooks: the few values that the weights of a layer share.

k-means on the line: Han et al. 2015, "Deep Compression" (arXiv 1510.00149), section 3, from centroids at equal
distances, which reach the few large weights that matter most. On sorted weights a cluster is a range, so that an
iteration takes a binary search and differences of running sums.

With a `price` a bit costs as much as so much squared error, and the size of a cluster counts: Chou, Lookabaugh and Gray
1989, "Entropy-constrained vector quantization". Rare values are given up, as their codes are long.
"""

from dataclasses import dataclass

import numpy as np

Array = np.ndarray

_ROUNDS = 50


@dataclass(frozen=True)
class Codebook:
    """Ascending values, and the bits that an entropy coder takes for each."""

    values: Array
    bits: Array

    def nearest(self, weights: Array, price: Array | float = 0.0) -> Array:
        """The value that stands for each weight: the least squared error plus `price` times bits."""
        if not np.any(price):
            middles = (self.values[1:] + self.values[:-1]) / 2
            return self.values[np.searchsorted(middles, weights)]
        cost = (weights[..., None] - self.values) ** 2
        cost += np.asarray(price)[..., None] * self.bits
        return self.values[cost.argmin(-1)]


def codebook(weights: Array, words: int, *, importance: Array | None = None, price: float = 0.0) -> Codebook:
    """At most `words` values for these weights, each as important as `importance` says (of the same shape).

    The mean squared error, weighted by importance, is a local minimum; `price` is in its unit.
    """
    flat = weights.ravel().astype(np.float64)
    order = np.argsort(flat, kind="stable")
    flat = flat[order]
    heavy = np.ones(flat.size) if importance is None else np.broadcast_to(importance, weights.shape).ravel()[order]
    heavy = heavy / max(heavy.mean(), 1e-30) + 1e-9
    sums = np.concatenate([[0.0], np.cumsum(heavy * flat)])
    masses = np.concatenate([[0.0], np.cumsum(heavy)])
    values = np.unique(np.linspace(flat[0], flat[-1], words))
    bits = np.zeros(len(values))
    for _ in range(_ROUNDS):
        borders = np.concatenate([[0], np.searchsorted(flat, _borders(values, price * bits)), [flat.size]])
        counts = np.diff(borders)
        kept = counts > 0
        starts, ends = borders[:-1][kept], borders[1:][kept]
        means = (sums[ends] - sums[starts]) / (masses[ends] - masses[starts])
        bits = -np.log2(counts[kept] / flat.size)
        if len(means) == len(values) and np.allclose(means, values, rtol=1e-7, atol=0):
            break
        values = means
        if price:
            values, bits = _worth_it(values, bits, price)
    return Codebook(values, bits)


def _borders(values: Array, costs: Array) -> Array:
    """Where one value gives way to the next, if they cost more than their squared error by `costs`."""
    gaps = np.diff(values)
    borders = (values[1:] + values[:-1]) / 2 + np.diff(costs) / (2 * np.maximum(gaps, 1e-30))
    return np.maximum.accumulate(borders)


def _worth_it(values: Array, bits: Array, price: float) -> tuple[Array, Array]:
    """Without the values to which others are preferred even by weights that they fit exactly."""
    cost = (values[:, None] - values) ** 2 + price * bits
    kept = cost.argmin(1) == np.arange(len(values))
    return values[kept], bits[kept]
