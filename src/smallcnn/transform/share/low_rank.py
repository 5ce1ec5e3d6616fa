"""Low rank: a dense layer or 1x1 convolution becomes two thin ones.

Denton et al. 2014, "Exploiting linear structure within convolutional networks" (arXiv 1404.0736), section 3: weights
(out, in) of a `rank` are a product of (out, rank) and (rank, in). That saves bytes and Mult-Adds alike where
rank < out * in / (out + in). Of all weights of that rank, those are taken that change the layer's results least:
U U' W, for weights W and the first eigenvectors U of W C W', with the covariance C of the inputs (Zhang et al. 2015,
"Accelerating very deep convolutional networks", arXiv 1505.06798, section 3.1). Each layer repairs what those before it
lost (`layers`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from smallcnn.errors import GraphError
from smallcnn.ir import ops
from smallcnn.ir.graph import Graph, Node, make_node
from smallcnn.ir.rewrite import rewrite, unused_name
from smallcnn.transform.fold import fold_graph
from smallcnn.transform.quantize.form import ready, with_biases
from smallcnn.transform.quantize.rounding import Inputs
from smallcnn.transform.quantize.values import Operators, by_definition
from smallcnn.transform.share.layers import Replacement, as_many_as_fit, replaced

if TYPE_CHECKING:
    from smallcnn.model.model import Model

Array = np.ndarray

SECOND = "_second"
"""What the name of the second of two thin layers ends in; the first keeps that of the layer."""


def low_rank(
    model: "Model",
    images: Array,
    share: float,
    *,
    operators: Callable[[Graph], Operators] = lambda graph: by_definition,
) -> "Model":
    """The model with batch norm folded, and layers in two that have at most `share` of their Mult-Adds.

    `images` are those of `sharing.share`. Raises GraphError if no layer has room for rank 1.
    """
    graph, weights = with_biases(*ready(model.graph, model.weights))
    ranks = _ranks(graph, share)
    chosen = as_many_as_fit(images, graph)
    layers = [node.name for node in graph if isinstance(node.op, ops.Conv | ops.Dense)]
    ways: dict[str, Replacement] = {name: Rank(ranks[name]) if name in ranks else _repaired for name in layers}
    changed, _ = replaced(graph, weights, model.preprocessing.normalise(chosen), operators(graph), ways)
    made, names = _cut(graph, ranks)
    for name, rank in ranks.items():
        weight = changed[f"{name}.weight"]
        u, s, v = np.linalg.svd(weight.reshape(len(weight), -1).astype(np.float64), full_matrices=False)
        root, window = np.sqrt(s[:rank]), weight.shape[2:]
        changed[f"{name}.weight"] = (root[:, None] * v[:rank]).astype(np.float32).reshape(rank, -1, *window)
        changed[f"{names[name]}.weight"] = (u[:, :rank] * root).astype(np.float32).reshape(-1, rank, *window)
        changed[f"{names[name]}.bias"] = changed.pop(f"{name}.bias")
    return replace(model, graph=made, weights={name: changed[name] for name in made.weights})


def low_rank_graph(graph: Graph, share: float) -> Graph:
    """The graph that `low_rank` gives, for what it costs."""
    graph = fold_graph(graph)
    return _cut(graph, _ranks(graph, share))[0]


@dataclass(frozen=True)
class Rank:
    """A replacement of weights by those of this rank that change the layer's results least."""

    rank: int

    def __call__(self, weight: Array, inputs: Inputs | None) -> Array:
        """Without statistics of the inputs, the nearest weights."""
        flat = weight.reshape(len(weight), -1).astype(np.float64)
        seen = flat @ (flat if inputs is None else flat @ inputs.trusted()[0]).T
        _, vectors = np.linalg.eigh((seen + seen.T) / 2)
        first = vectors[:, -self.rank :]
        return (first @ (first.T @ flat)).reshape(weight.shape)


def _repaired(weight: Array, inputs: Inputs | None) -> Array:  # noqa: ARG001
    """A layer that stays whole makes up for those before it."""
    return weight


def _ranks(graph: Graph, share: float) -> dict[str, int]:
    """The rank of each layer that becomes two. Raises GraphError if there is none."""
    ranks = {}
    for node in graph:
        if isinstance(node.op, ops.Conv | ops.Dense) and _is_matrix(node.op):
            out, inputs = graph.weights_of(node)["weight"].shape[:2]
            if rank := int(share * out * inputs / (out + inputs)):
                ranks[node.name] = rank
    if not ranks:
        raise GraphError(f"{graph.name} has no dense layer or 1x1 convolution that two thin ones make smaller")
    return ranks


def _is_matrix(op: ops.Conv | ops.Dense) -> bool:
    return isinstance(op, ops.Dense) or (op.kernel == (1, 1) and op.groups == 1)


def _cut(graph: Graph, ranks: Mapping[str, int]) -> tuple[Graph, dict[str, str]]:
    """The graph with these layers in two, and the name of the second of each.

    The first keeps the name and the stride, the second has the bias.
    """
    names = {name: unused_name(graph, f"{name}{SECOND}") for name in ranks}
    thin: dict[str, ops.Op] = {}
    after = {}
    for name, rank in ranks.items():
        op = graph[name].op
        assert isinstance(op, ops.Conv | ops.Dense)
        thin[name] = replace(op, out=rank, bias=False)
        kind = ops.Conv if isinstance(op, ops.Conv) else ops.Dense
        after[name] = partial(_second, names[name], kind(out=op.out, bias=op.bias))
    return rewrite(graph, ops=thin, after=after), names


def _second(name: str, op: ops.Op, node: Node) -> list[Node]:
    return [make_node(name, op, [node])]
