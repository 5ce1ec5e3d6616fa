"""Weight sharing and zeros: a float model becomes one whose layers have few different weights.

Shared weights and zeros save bytes of a packed file, not time: every engine computes with the same number of floats.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

import numpy as np

from smallcnn.errors import DataError
from smallcnn.ir import ops
from smallcnn.ir.checks import shown
from smallcnn.ir.graph import Graph
from smallcnn.transform.quantize.form import ready, with_biases
from smallcnn.transform.quantize.rounding import Inputs, passed_on
from smallcnn.transform.quantize.values import Operators, by_definition
from smallcnn.transform.share.allot import MOST_WORDS, Priced, allotted, survey
from smallcnn.transform.share.codebook import codebook
from smallcnn.transform.share.layers import Change, Replacement, as_many_as_fit, replaced
from smallcnn.transform.share.scales import with_biases_in_scales, with_scales

if TYPE_CHECKING:
    from smallcnn.model.model import Model

Array = np.ndarray

SMALL_FILTER = 32
"""Weights of a filter up to which it is small, as in depthwise layers and those that read pixels."""


@dataclass(frozen=True, kw_only=True)
class Sharing:
    """How weights are replaced.

    With `bits`, each layer has at most 2^bits values, zero among them if `zeros` is above 0: the share of each layer's
    weights that become zero, those of least magnitude. Layers of small filters have 8 bits: they hold few of the
    weights, and there an error has few others in its filter to make up for it. With `budget`, bits are spread over the
    layers so that all weights take about so many bytes when packed. With neither, only zeros are made.
    """

    bits: int | None = None
    budget: int | None = None
    zeros: float = 0.0

    def __post_init__(self) -> None:
        if self.bits is not None and not 1 <= self.bits <= 8:
            raise DataError(f"weights can be shared in 1 to 8 bits, not {self.bits}")
        if not 0 <= self.zeros < 1:
            raise DataError(f"a share of zeros must be at least 0 and below 1, not {self.zeros:g}")
        if self.budget is not None and (self.bits is not None or self.zeros or self.budget < 1):
            raise DataError("a budget of bytes chooses bits and zeros itself; with zeros, give bits, such as 5bit")

    @classmethod
    def parse(cls, text: str, zeros: float = 0.0) -> Self:
        """What a command line asks for: 5bit, 500kB, 0.5MB. Raises DataError for anything else."""
        found = re.fullmatch(r"(\d+)\s*(bits?)|(\d+(?:\.\d+)?)\s*(kB|MB|B)", text.strip())
        if not found:
            raise DataError(f"weights can be shared in bits or bytes, such as 5bit or 500kB, not in {shown(text)}")
        bits, _, bytes, unit = found.groups()
        if bits:
            return cls(bits=int(bits), zeros=zeros)
        return cls(budget=round(float(bytes) * {"B": 1, "kB": 1e3, "MB": 1e6}[unit]), zeros=zeros)


def share(
    model: "Model",
    images: Array,
    sharing: Sharing,
    *,
    operators: Callable[[Graph], Operators] = lambda graph: by_definition,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> "tuple[Model, tuple[Change, ...]]":
    """The model with batch norm folded and its weights replaced, and what that did to each layer.

    `images` are prepared as `Session.run` takes them: uint8 (N, H, W, C), red first; they need no labels. Of many, as
    many are used as fit 512 MiB of results. Raises DataError if there are none, GraphError if the network is quantized.
    """
    graph, weights = with_biases(*ready(model.graph, model.weights))
    if sharing.bits is not None or sharing.budget is not None:
        graph, weights = with_scales(graph, weights)
    chosen = as_many_as_fit(images, graph)
    prepared = model.preprocessing.normalise(chosen)
    engine = operators(graph)
    names = tuple(node.name for node in graph if isinstance(node.op, ops.Conv | ops.Dense))
    replacements: dict[str, Replacement]
    if sharing.budget is not None:
        layers = survey(graph, weights, prepared, engine, names)
        biases = sum(value.size for name, value in weights.items() if name.endswith(".bias"))
        price = allotted(layers, sharing.budget - _BIAS_BYTES * biases)
        replacements = {name: Priced(layer, price) for name, layer in layers.items()}
    else:
        replacements = dict.fromkeys(names, Alike(sharing))
    changed, changes = replaced(graph, weights, prepared, engine, replacements, report)
    graph, changed = with_biases_in_scales(graph, changed)
    return replace(model, graph=graph, weights=changed), changes


_BIAS_BYTES = 3  # of the four, see `layers.shortened`


@dataclass(frozen=True)
class Alike:
    """A replacement with the same settings for all layers: zeros, at most so many values, or both."""

    sharing: Sharing

    def __call__(self, weight: Array, inputs: Inputs | None) -> Array:
        """The weights replaced, each error passed on to the weights after it."""
        kept = np.ones(weight.shape, bool)
        if count := int(self.sharing.zeros * weight.size):
            order = np.argsort(np.abs(weight), axis=None, kind="stable")
            kept.ravel()[order[:count]] = False
        book = None
        if self.sharing.bits is not None:
            bits = self.sharing.bits if weight[0].size > SMALL_FILTER else 8
            book = codebook(weight[kept], min(2**bits - bool(count), MOST_WORDS))
        if inputs is None:
            return np.where(kept, weight if book is None else book.nearest(weight), 0)
        mask = inputs.grouped(kept)

        def chosen(values: Array, _: Array, places: Array) -> Array:
            return np.where(mask[:, :, places], values if book is None else book.nearest(values), 0)

        return passed_on(inputs.grouped(weight), inputs, chosen).reshape(weight.shape)
