"""Product quantization: few different vectors in the place of a layer's weights.

Wu et al. 2016, "Quantized convolutional neural networks for mobile devices" (arXiv 1512.06473), section 3: the input
channels are cut into subspaces, and in each, the vectors of all filters and kernel positions become the nearest of a
few codewords, by k-means. The error of a subspace is passed on to those after it, and each layer repairs the errors of
those before it (`layers`).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, Self

import numpy as np

from smallcnn.errors import DataError, GraphError
from smallcnn.ir import ops
from smallcnn.ir.checks import shown
from smallcnn.ir.graph import Graph
from smallcnn.transform.quantize.form import ready, with_biases
from smallcnn.transform.quantize.rounding import Inputs, passed_on
from smallcnn.transform.quantize.values import Operators, by_definition
from smallcnn.transform.share.layers import Change, as_many_as_fit, replaced
from smallcnn.transform.share.vectors import from_vectors, to_vectors

if TYPE_CHECKING:
    from smallcnn.model.model import Model

Array = np.ndarray

MOST_WORDS = 256
_ROUNDS = 20


@dataclass(frozen=True, kw_only=True)
class Codewords:
    """`words` codewords for the vectors of `length` input channels, in each subspace."""

    words: int
    length: int

    def __post_init__(self) -> None:
        if not 1 <= self.words <= MOST_WORDS:
            raise DataError(f"a subspace has 1 to {MOST_WORDS} codewords, not {self.words}")
        if self.length < 2:
            raise DataError(f"vectors have at least 2 input channels, not {self.length}")

    @classmethod
    def parse(cls, text: str) -> Self:
        """What a command line asks for: 64,4. Raises DataError for anything else."""
        words, _, length = text.partition(",")
        if not (words.strip().isdecimal() and length.strip().isdecimal()):
            raise DataError(f"codewords are a number and a length, such as 64,4, not {shown(text)}")
        return cls(words=int(words), length=int(length))

    def pays(self, shape: tuple[int, ...]) -> bool:
        """Whether weights of this shape can be cut, and take at most half the bytes with their codebooks."""
        inputs = shape[1]
        if inputs % self.length:
            return False
        numbers = prod(shape)
        return 4 * self.words * inputs + numbers // self.length <= 2 * numbers

    def __call__(self, weight: Array, inputs: Inputs | None) -> Array:
        """The weights replaced, subspace by subspace."""
        rng = np.random.default_rng(0)
        if inputs is None or len(inputs.covariance) > 1:
            vectors = to_vectors(weight, self.length).astype(np.float64)
            chosen = [_nearest(vectors[:, at], self.words, rng) for at in range(vectors.shape[1])]
            return from_vectors(np.stack(chosen, axis=1), weight.shape)
        window = prod(weight.shape[2:])

        def subspace(values: Array, *_: Array) -> Array:
            own = to_vectors(values.reshape(len(weight), self.length, *weight.shape[2:]), self.length)[:, 0]
            return from_vectors(_nearest(own, self.words, rng), (len(weight), self.length, *weight.shape[2:])).reshape(
                values.shape
            )

        return passed_on(inputs.grouped(weight), inputs, subspace, together=self.length * window).reshape(weight.shape)


def quantize_products(
    model: "Model",
    images: Array,
    codewords: Codewords,
    *,
    operators: Callable[[Graph], Operators] = lambda graph: by_definition,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> "tuple[Model, tuple[Change, ...]]":
    """The model with batch norm folded, and codewords in the layers where they save bytes; see `sharing.share`.

    Raises GraphError if there is no such layer.
    """
    graph, weights = with_biases(*ready(model.graph, model.weights))
    names = [
        node.name
        for node in graph
        if isinstance(node.op, ops.Conv | ops.Dense) and codewords.pays(weights[f"{node.name}.weight"].shape)
    ]
    if not names:
        raise GraphError(f"{graph.name} has no layer that {codewords.words} codewords make smaller")
    chosen = as_many_as_fit(images, graph)
    changed, changes = replaced(
        graph, weights, model.preprocessing.normalise(chosen), operators(graph), dict.fromkeys(names, codewords), report
    )
    return replace(model, graph=graph, weights=changed), changes


def _nearest(vectors: Array, words: int, rng: np.random.Generator) -> Array:
    """(count, length) vectors -> the nearest of at most so many codewords, found by k-means."""
    if len(vectors) <= words:
        return vectors
    book = vectors[rng.choice(len(vectors), words, replace=False)]
    nearest = np.zeros(0, np.int64)
    for _ in range(_ROUNDS):
        before, nearest = nearest, (np.square(book).sum(1) - 2 * vectors @ book.T).argmin(1)
        if np.array_equal(before, nearest):
            break
        counts = np.bincount(nearest, minlength=words)
        sums = np.stack([np.bincount(nearest, column, words) for column in vectors.T], axis=1)
        book = np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], book)
    return book.astype(np.float32)[nearest]
