"""Our own names: state dicts of `smallcnn.module.to_module` trained by the user's own script."""

import numpy as np

from smallcnn.checkpoints.layouts.layout import Layout, Scheme
from smallcnn.ir.graph import Graph, Node


def _tensors(graph: Graph, node: Node) -> dict[str, str]:
    return {key: key for key in graph.weights_of(node)}


def _as_it_is(_graph: Graph, _node: Node, _key: str, value: np.ndarray) -> np.ndarray:
    return value


OWN = "smallcnn"
_SCHEME = Scheme(".", _tensors, _as_it_is)


def own(model: str) -> Layout:
    """The layout of a registered network under our own names."""
    return Layout(OWN, model, {}, _SCHEME, same_names=True)
