"""Bits per layer for a budget of bytes: where an error matters little, weights get few.

A layer's error matters as much as it changes the network's outputs, which is measured: the layer alone is rounded
coarsely, and the relative error of the outputs is divided by that of the layer's result. Then one price for a bit in
all layers gives each layer its steps (Lagrange; Shoham and Gersho 1988, "Efficient bit allocation for an arbitrary set
of quantizers"): close to the optimum, the error falls by the same amount for one more bit anywhere.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log, sqrt

import numpy as np

from smallcnn.errors import DataError
from smallcnn.ir.graph import Graph
from smallcnn.ir.rewrite import in_order
from smallcnn.transform.fold import Weights
from smallcnn.transform.quantize.rounding import Inputs, passed_on, statistics
from smallcnn.transform.quantize.values import Operators, own_weights, walk
from smallcnn.transform.share.codebook import Codebook, codebook
from smallcnn.transform.share.layers import doubtful

Array = np.ndarray

MOST_WORDS = 255
"""Values of a layer: with zero, an index is a byte."""
_COARSE = 16
"""Values of a layer that is rounded alone."""
_FEW = 16
"""Images to measure with: each layer takes a pass through the network."""


@dataclass(frozen=True)
class Layer:
    """A layer's `weight`, and how much a squared error of each of them matters, of the same shape.

    `matters` is in units of the network's relative output error.
    """

    weight: Array
    matters: Array


def matters_of(inputs: Inputs, weight: Array) -> Array:
    """How much a squared error of each weight adds to that of the result, errors being passed on; as `weight`."""
    order, upper = inputs.factor()
    added = np.empty(upper.shape[:2])
    added[:, order] = 1 / np.einsum("gii->gi", upper) ** 2
    return np.broadcast_to(added[:, None], inputs.grouped(weight).shape).reshape(weight.shape)


def survey(
    graph: Graph, weights: Weights, images: Array, operators: Operators, names: Sequence[str]
) -> dict[str, Layer]:
    """The layers of these names, measured on prepared images (N, H, W, C)."""
    found, shifts = dict[str, Array](), dict[str, Array]()
    values: dict[str, Array] = {}
    coarse = dict(weights)
    for node, finished in in_order(graph):
        given = [values[name] for name in node.inputs]
        values[node.name] = operators(node, given, own_weights(graph, node, weights)) if given else images
        if node.name in names:
            weight = weights[f"{node.name}.weight"]
            inputs = doubtful(statistics(node.op, weight, given[0]))  # type: ignore[arg-type]
            found[node.name] = np.ones(weight.shape) if inputs is None else matters_of(inputs, weight)
            coarse[f"{node.name}.weight"] = codebook(weight, _COARSE).nearest(weight).astype(np.float32)
            near = operators(node, given, own_weights(graph, node, coarse))
            axes = tuple(range(near.ndim - 1))
            shifts[node.name] = (values[node.name].mean(axes) - near.mean(axes)).astype(np.float32)
        for name in finished:
            del values[name]
    few = images[:: max(1, len(images) // _FEW)][:_FEW]
    ends = {output.node for output in graph.outputs}
    exact = {node.name: value for node, value in walk(graph, weights, few, operators) if node.name in ends}
    layers = {}
    for name in names:
        alone = {**weights, f"{name}.weight": coarse[f"{name}.weight"]}
        if f"{name}.bias" in weights:
            alone[f"{name}.bias"] = weights[f"{name}.bias"] + shifts[name]
        rough = {node.name: value for node, value in walk(graph, alone, few, operators) if node.name in ends}
        error = sum(float(((rough[end] - exact[end]) ** 2).mean() / max(exact[end].var(), 1e-30)) for end in ends)
        weight = weights[f"{name}.weight"]
        spent = float((found[name] * (weight - coarse[f"{name}.weight"]) ** 2).sum())
        layers[name] = Layer(weight, found[name] * (error / max(spent, 1e-30)))
    return layers


@dataclass(frozen=True)
class Priced:
    """A replacement with as many values as are worth their bits, if a bit costs `price` in relative output error."""

    layer: Layer
    price: float

    @property
    def book(self) -> Codebook:
        """The values."""
        weight, matters = self.layer.weight, self.layer.matters
        mean = max(float(matters.mean()), 1e-30)
        step = sqrt(6 * self.price / (log(2) * mean))  # its error is step^2 / 12, and a bit more leaves a quarter
        words = int(np.clip(np.ptp(weight) / step, 1, MOST_WORDS - 1)) + 1
        return codebook(weight, words, importance=matters, price=self.price / mean)

    def __call__(self, weight: Array, inputs: Inputs | None) -> Array:
        """The weights replaced, each error passed on to the weights after it."""
        book = self.book
        if inputs is None:
            return book.nearest(weight)
        unit = float(self.layer.matters.mean() / max(matters_of(inputs, weight).mean(), 1e-30))

        def chosen(values: Array, added: Array, _: Array) -> Array:
            return book.nearest(values, np.broadcast_to(self.price / np.maximum(unit * added, 1e-30), values.shape))

        return passed_on(inputs.grouped(weight), inputs, chosen).reshape(weight.shape)


def allotted(layers: Mapping[str, Layer], budget: int) -> float:
    """The price of a bit at which the layers' packed weights take at most `budget` bytes.

    Raises DataError if they cannot.
    """
    low, high = -60.0, 0.0  # powers of two
    while high - low > 0.02:
        middle = (low + high) / 2
        if _bytes(layers, 2.0**middle) > budget:
            low = middle
        else:
            high = middle
    price: float = 2.0**high
    least = _bytes(layers, price)
    if least > budget:
        raise DataError(f"{budget:,} bytes are too few: the layers' weights take at least {least:,.0f}")
    return price


def _bytes(layers: Mapping[str, Layer], price: float) -> float:
    """What an entropy coder makes of the layers' weights."""
    total = 0.0
    for layer in layers.values():
        book = Priced(layer, price).book
        total += 4 * len(book.values) + layer.weight.size * float((2.0**-book.bits * book.bits).sum()) / 8
    return total
