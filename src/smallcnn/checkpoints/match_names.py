"""Laying the tensors of a file onto a network: by name, every one, or a message with both sides."""

from collections.abc import Iterable

import numpy as np

from smallcnn.checkpoints.layouts import Layout, torch_array
from smallcnn.checkpoints.read import Tensors
from smallcnn.errors import FileError
from smallcnn.graph import Graph


def shared(layout: Layout, graph: Graph, tensors: Tensors) -> int:
    """How many tensor names of the network the file has, in this layout."""
    known = layout.of_file(tensors)
    return sum(name in known for names in layout.names(graph).values() for name in names.values())


def missing_tail(layout: Layout, graph: Graph, tensors: Tensors) -> list[str]:
    """The last nodes with weights of which the file holds nothing at all, in order: a head that was cut off."""
    known = layout.of_file(tensors)
    tail: list[str] = []
    for node, names in reversed(layout.names(graph).items()):
        if any(name in known for name in names.values()):
            break
        tail.insert(0, node)
    return tail


def lay(layout: Layout, graph: Graph, tensors: Tensors, *, without: Iterable[str] = ()) -> dict[str, np.ndarray]:
    """Our weights by name, without those of the nodes in `without`.

    Raises FileError naming what is missing, surplus and of another shape.
    """
    known = layout.of_file(tensors)
    left_out = set(without)
    names = {node: own for node, own in layout.names(graph).items() if node not in left_out}
    wanted = {theirs for own in names.values() for theirs in own.values()}
    weights: dict[str, np.ndarray] = {}
    wrong: list[str] = []
    for node, own in names.items():
        for key, theirs in own.items():
            if theirs in known:
                ours = f"{node}.{key}"
                value = layout.scheme.ours(graph, graph[node], key, known[theirs])
                if value.shape != graph.weights[ours].shape:
                    wrong.append(f"{theirs} is {value.shape}, the network's {ours} {graph.weights[ours].shape}")
                weights[ours] = value
    problems = {
        "missing from the file": [name for own in names.values() for name in own.values() if name not in known],
        "that the network does not have": [name for name in known if name not in wanted],
        "of another shape": wrong,
    }
    if any(problems.values()):
        raise FileError(
            f"does not fit {graph.name} as {layout.origin} names it: "
            + "; ".join(f"{len(some)} {what} ({_listed(some)})" for what, some in problems.items() if some)
        )
    if wrong := [name for name, value in weights.items() if name.endswith("running_var") and (value < 0).any()]:
        raise FileError(f"damaged: variances below 0 for {_listed(wrong)}")
    if layout.blue_first:
        first = next(node for node in graph if graph.weights_of(node))
        weights[f"{first.name}.weight"] = weights[f"{first.name}.weight"][:, ::-1]
    weights |= {name: np.zeros(graph.weights[name].shape) for name in layout.zero if name.rpartition(".")[0] in names}
    return {name: np.ascontiguousarray(weights[name], np.float32) for name in graph.weights if name in weights}


def in_order(graph: Graph, tensors: Tensors) -> dict[str, np.ndarray]:
    """Our weights by name, taken one by one in the file's order, stored as PyTorch does.

    Raises FileError at the first tensor whose shape is not the next one's of the network.
    """
    weights: dict[str, np.ndarray] = {}
    if len(tensors) != len(graph.weights):
        raise FileError(f"{len(tensors)} tensors in the file, {len(graph.weights)} in {graph.name}")
    pairs = zip(graph.weights.items(), tensors.items(), strict=True)
    for place, ((ours, wanted), (theirs, value)) in enumerate(pairs, start=1):
        name, _, key = ours.rpartition(".")
        weights[ours] = torch_array(graph, graph[name], key, value)
        if weights[ours].shape != wanted.shape:
            raise FileError(
                f"does not fit {graph.name} in order: tensor {place}, {theirs} {value.shape}, comes where {ours} "
                f"{wanted.shape} is"
            )
    return {name: np.ascontiguousarray(value, np.float32) for name, value in weights.items()}


def _listed(names: list[str], most: int = 3) -> str:
    return " ".join(", ".join(names[:most]).split()) + (", ..." if len(names) > most else "")
