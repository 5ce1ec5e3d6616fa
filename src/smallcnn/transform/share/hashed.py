"""Hashed weights: a layer has few values, and a hash of a weight's place says which of them it is, and its sign.

Chen et al. 2015, "Compressing neural networks with the hashing trick" (arXiv 1504.04788), section 4: weight i of a
tensor, counted in the order in which it is stored, is sign(i) * values[place(i)]. Nothing but the values and a seed is
stored. With h the XXH32 of i as four bytes, lowest first (Collet, xxHash, doc/xxhash_spec.md), place is the remainder
of h by the number of values, and sign is -1 if the quotient is odd.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import numpy as np

from smallcnn.errors import DataError, GraphError
from smallcnn.ir import ops
from smallcnn.ir.graph import Graph

Array = np.ndarray

SEEDS = 256
"""Seeds, from 0; so few that the one of a hashed tensor is found in its weights."""

_SMALL_FILTER = 32  # weights of a filter, as in depthwise layers and those that read pixels: few of all weights
_LEAST_VALUES = 16
_PAIRS = 48  # of equal weights, that show how a tensor is hashed
_LIKELY = 0.6  # of their gaps, divided by the number of values; twice that number divides half of them
_PRIMES = (2_246_822_519, 3_266_489_917, 668_265_263, 374_761_393)  # numbers 2 to 5 of the specification


def xxh32(numbers: Array, seeds: Array) -> Array:
    """XXH32 of each number as four bytes, lowest first; both uint32, broadcast to one shape of at least one axis."""
    second, third, fourth, fifth = (np.uint32(prime) for prime in _PRIMES)
    made: Array = seeds + np.full(1, fifth + np.uint32(4)) + numbers * np.full(1, third)
    made = ((made << np.uint32(17)) | (made >> np.uint32(15))) * fourth
    made = (made ^ (made >> np.uint32(15))) * second
    made = (made ^ (made >> np.uint32(13))) * third
    return made ^ (made >> np.uint32(16))


@dataclass(frozen=True, kw_only=True)
class Hashing:
    """Which of its `values` each weight of a tensor is, by a `seed` below `SEEDS`."""

    values: int
    seed: int

    def __post_init__(self) -> None:
        if self.values < 1 or not 0 <= self.seed < SEEDS:
            raise DataError(
                f"hashed in {self.values:,} values with seed {self.seed:,}; at least 1, and 0 to {SEEDS - 1}"
            )

    def places(self, count: int) -> tuple[Array, Array]:
        """The value's number, int64 (count,), and the sign, float32 (count,), of so many weights."""
        hashes = xxh32(np.arange(count, dtype=np.uint32), np.full(1, self.seed, np.uint32))
        quotients, places = np.divmod(hashes, np.uint32(self.values))
        return places.astype(np.int64), 1 - 2 * (quotients & 1).astype(np.float32)

    def expand(self, values: Array, shape: tuple[int, ...]) -> Array:
        """The weights of a tensor of this shape."""
        places, signs = self.places(prod(shape))
        return (values[places] * signs).reshape(shape)

    def project(self, weight: Array) -> Array:
        """The values of the nearest hashed tensor: the means of the weights that share them, float32 (values,)."""
        places, signs = self.places(weight.size)
        sums = np.bincount(places, weight.ravel() * signs, self.values)
        return (sums / np.maximum(np.bincount(places, minlength=self.values), 1)).astype(np.float32)


def hashing_of(weight: Array) -> tuple[Hashing, Array] | None:
    """How a float32 tensor is hashed, and its values; None if it is not, or has fewer than two weights to a value.

    Equal weights share a value, so that the number of values divides the difference of their hashes: it is the greatest
    common divisor of some of these, with the right seed. A few pairs may be equal by chance, and divisors too small.
    """
    sizes = np.ascontiguousarray(weight, np.float32).ravel().view(np.uint32) & np.uint32(0x7FFFFFFF)
    if not _LEAST_VALUES <= len(np.unique(sizes)) <= weight.size // 2:
        return None
    order = np.argsort(sizes, kind="stable")
    starts = np.flatnonzero(np.diff(sizes[order], prepend=~sizes[order[:1]]))
    lengths = np.diff(starts, append=weight.size)
    starts, lengths = starts[lengths > 1], lengths[lengths > 1]
    rare = starts[np.argsort(lengths, kind="stable")[:_PAIRS]]
    hashes = xxh32(order[[rare, rare + 1]].astype(np.uint32)[None], np.arange(SEEDS, dtype=np.uint32)[:, None, None])
    gaps = np.abs(np.diff(hashes.astype(np.int64), axis=1)[:, 0])  # (seeds, pairs)
    divisors = np.gcd(gaps[:, 1:], gaps[:, :-1])
    seeds, at = np.nonzero((divisors >= _LEAST_VALUES) & (divisors <= weight.size // 2))
    divided = (gaps[seeds] % divisors[seeds, at][:, None] == 0).mean(1)
    likely = [place for place in np.argsort(-divided, kind="stable") if divided[place] > _LIKELY]
    for seed, values in dict.fromkeys((int(seeds[place]), int(divisors[seeds[place], at[place]])) for place in likely):
        hashing = Hashing(values=values, seed=seed)
        if (chosen := _values(hashing, weight)) is not None:
            return hashing, chosen
    return None


def _values(hashing: Hashing, weight: Array) -> Array | None:
    """The values of a tensor that is hashed in this way, bit by bit; None if it is not."""
    places, signs = hashing.places(weight.size)
    values = np.zeros(hashing.values, np.float32)
    values[places] = weight.ravel() * signs
    same = hashing.expand(values, weight.shape).tobytes() == np.ascontiguousarray(weight).tobytes()
    return values if same else None


def hashed(graph: Graph, weights: Mapping[str, Array], share: float, seed: int = 0) -> dict[str, Array]:
    """The weights of a float network with its convolutions and dense layers hashed, but for those of small filters.

    Each has `share` as many values as weights, and keeps the root mean square of its weights, so that random weights
    stay as large as their initialization wants them. One that is hashed in as many values stays as it is. Raises
    GraphError if there is no such layer.
    """
    check_share(share)
    made, number, suited = dict(weights), seed, False
    for node in graph:
        if not isinstance(node.op, ops.Conv | ops.Dense):
            continue
        weight, number = weights[f"{node.name}.weight"], number + 1
        values = int(share * weight.size)
        if weight.dtype != np.float32 or weight[0].size <= _SMALL_FILTER or values < _LEAST_VALUES:
            continue
        suited = True
        if (before := hashing_of(weight)) and before[0].values == values:
            continue
        hashing = Hashing(values=values, seed=number % SEEDS)
        nearest = hashing.expand(hashing.project(weight), weight.shape)
        size = np.sqrt(np.square(weight).mean() / max(np.square(nearest).mean(), 1e-30))
        made[f"{node.name}.weight"] = nearest * np.float32(size)
    if not suited:
        raise GraphError(f"{graph.name} has no layer that is large enough to be hashed")
    return made


def check_share(share: float) -> None:
    """Raises DataError if no weights can be hashed in this share of their number."""
    if not 0 < share <= 0.5:
        raise DataError(f"the share of values for hashed weights must be above 0 and at most 0.5, not {share:g}")
