"""Matches the tensors of a file to a network by name: all of them, or an error that shows both sides."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from smallcnn import zoo
from smallcnn.checkpoints.layouts import Layout, torch_array
from smallcnn.checkpoints.read import Tensors
from smallcnn.errors import FileError
from smallcnn.ir import ops
from smallcnn.ir.graph import Graph
from smallcnn.ir.predictors import detector, score_predictors

_AVERAGED = re.compile(r"ema|.*_ema|ema_.*|averaged.*", re.IGNORECASE)
_OTHERS = re.compile(
    r"(teacher|target|momentum|criterion|loss|metric)[^.]*|(train|val|valid|test)_.*|.*_(teacher|loss|metrics?)",
    re.IGNORECASE,
)
"""Steps in names: those of averaged weights, and those stored next to a network by training scripts."""

_DEEPEST = 16  # steps before the network's own names, which have up to 6


@dataclass(frozen=True)
class Placed:
    """Where a file has a network's names: how many, below which prefix, and which other prefixes have as many."""

    count: int
    prefix: str
    rivals: tuple[str, ...] = ()

    def of(self, tensors: Tensors) -> tuple[Tensors, list[str]]:
        """The tensors below the prefix, by their names there, and the names of the others.

        Losses, teachers and the like always count as others.
        """
        own: Tensors = {}
        others: list[str] = []
        for name, value in tensors.items():
            inner = name.removeprefix(self.prefix)
            if name.startswith(self.prefix) and not _OTHERS.fullmatch(inner.partition(".")[0]):
                own[inner] = value
            else:
                others.append(name)
        return own, others


@dataclass(frozen=True)
class Expected:
    """All names that a file may have for a network's tensors, and what separates their steps."""

    names: frozenset[str]
    separator: str


def expected(layout: Layout, graph: Graph) -> Expected:
    """What a layout calls the graph's tensors. Raises FileError if the graph has layers that the origin's lacks."""
    separator = layout.scheme.separator
    names = {name for own in layout.names(graph).values() for name in own.values()}
    for theirs, ours in layout.renamed.items():
        ending = len(ours) + len(separator)
        names |= {f"{theirs}{separator}{name[ending:]}" for name in names if name.startswith(f"{ours}{separator}")}
    return Expected(frozenset(names), separator)


def placed(wanted: Expected, tensors: Tensors) -> Placed:
    """Where the file has most of a network's names; training scripts store the network below a prefix.

    On a tie, averaged weights come before plain ones, and a teacher's last.
    """
    counts: Counter[str] = Counter()
    for name in tensors:
        counts.update(name[:start] for start in _steps(name, wanted.separator) if name[start:] in wanted.names)
    if not counts:
        return Placed(0, "")
    most = max(counts.values())
    best = [prefix for prefix, count in counts.items() if count == most]
    chosen = min(best, key=lambda prefix: _rank(prefix.split(wanted.separator)))
    return Placed(most, chosen, tuple(prefix for prefix in best if prefix != chosen))


def _steps(name: str, separator: str) -> Iterator[int]:
    """Start of the name and of each of its first steps."""
    start = 0
    for _ in range(_DEEPEST):
        yield start
        if (end := name.find(separator, start)) < 0:
            return
        start = end + len(separator)


def _rank(steps: list[str]) -> int:
    if any(_AVERAGED.fullmatch(step) for step in steps):
        return 0
    return 2 if any(_OTHERS.fullmatch(step) for step in steps) else 1


def missing_tail(layout: Layout, graph: Graph, tensors: Tensors) -> list[str]:
    """The last nodes with weights that are entirely missing from the file, in order: a head that was cut off."""
    known = layout.of_file(tensors)
    tail: list[str] = []
    for node, names in reversed(layout.names(graph).items()):
        if any(name in known for name in names.values()):
            break
        tail.insert(0, node)
    return tail


def built_for(
    layout: Layout, model: zoo.Configuration, tensors: Tensors, classes: int = 1000, **resolution: Any
) -> tuple[Graph, int]:
    """The network for the file's image channels and classes, and the number of these, a detector's without background.

    Where the file has no classifier there are `classes`, and without a first layer 3 channels.
    """
    graph = model.build(classes=classes, **resolution)
    found, channels = _classes(layout, graph, tensors) or classes, _channels(layout, graph, tensors)
    if (found, channels) == (classes, graph.input_shape[2]):
        return graph, found
    return model.build(classes=found, channels=channels, **resolution), found


def _classes(layout: Layout, graph: Graph, tensors: Tensors) -> int | None:
    node, own = list(layout.names(graph).items())[-1]
    stored = layout.of_file(tensors).get(own["weight"])
    if stored is None:
        return None
    if stored.ndim not in (2, 4):
        raise FileError(f"{own['weight']} is {stored.shape}, not a classifier's")
    outputs = rows(layout.scheme.ours(graph, graph[node], "weight", stored))
    return _of_objects(graph, outputs) if detector(graph) else outputs


def _of_objects(graph: Graph, outputs: int) -> int:
    """The number of classes of a detector whose last predictor of scores has these outputs."""
    found, last = detector(graph), score_predictors(graph)[-1]
    assert found is not None
    assert isinstance(found.op, ops.Detect)
    anchors = last.conv.shape[2] // last.rows.shape[1]
    classes = outputs // anchors - found.op.background
    if outputs % anchors or classes < 1:
        raise FileError(f"its last layer has {outputs} outputs, which are not scores of {anchors} anchors in each cell")
    return classes


def _channels(layout: Layout, graph: Graph, tensors: Tensors) -> int:
    node, own_names = next(iter(layout.names(graph).items()))
    stored = layout.of_file(tensors).get(own_names["weight"])
    if stored is None or stored.ndim != 4:
        return 3
    return channels_read(layout.scheme.ours(graph, graph[node], "weight", stored))


def channels_read(first: np.ndarray) -> int:
    """Channels of the images a convolution reads, from its weights (out, in, height, width)."""
    if first.ndim == 4 and first.shape[1] not in (1, 3):
        raise FileError(f"its first layer reads {first.shape[1]} channels; images here are grey (1) or RGB (3)")
    return first.shape[1] if first.ndim == 4 else 3


def rows(value: np.ndarray) -> int:
    """The number of classes of a classifier's weight."""
    if not value.shape or not value.shape[0]:
        raise FileError("its last tensor is not a classifier's")
    return len(value)


def lay(layout: Layout, graph: Graph, tensors: Tensors, *, without: Iterable[str] = ()) -> dict[str, np.ndarray]:
    """Our weights by name, without those of the nodes in `without`.

    Raises FileError that lists missing tensors, surplus ones and different shapes.
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
        "not in the network": [name for name in known if name not in wanted],
        "of a different shape": wrong,
    }
    if any(problems.values()):
        raise FileError(
            f"does not fit {graph.name} as {layout.origin} names it: "
            + "; ".join(f"{len(some)} {what} ({listed(some)})" for what, some in problems.items() if some)
        )
    check_variances(weights)
    if layout.blue_first and graph.input_shape[2] == 3:
        first = next(node for node in graph if graph.weights_of(node))
        weights[f"{first.name}.weight"] = weights[f"{first.name}.weight"][:, ::-1]
    weights |= {name: np.zeros(graph.weights[name].shape) for name in layout.zero if name.rpartition(".")[0] in names}
    return {name: np.ascontiguousarray(weights[name], np.float32) for name in graph.weights if name in weights}


def in_order(graph: Graph, tensors: Tensors) -> dict[str, np.ndarray]:
    """Our weights by name, taken one by one in file order, stored as in PyTorch.

    Raises FileError at the first tensor whose shape differs from the network's next one.
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
                f"does not fit {graph.name} in order: tensor {place} is {theirs} {value.shape}; {ours} needs "
                f"{wanted.shape}"
            )
    check_variances(weights)
    return {name: np.ascontiguousarray(value, np.float32) for name, value in weights.items()}


def check_variances(weights: Tensors) -> None:
    """FileError if a batch norm of ours has a variance below 0."""
    if wrong := [name for name, value in weights.items() if name.endswith("running_var") and (value < 0).any()]:
        raise FileError(f"damaged: variances below 0 for {listed(wrong)}")


def listed(names: list[str], most: int = 3) -> str:
    """The first names, each as one printable word of bounded length."""
    short = [name if len(name) <= 80 else f"{name[:77]}..." for name in names[:most]]
    return ", ".join(name if name.isprintable() else repr(name) for name in short) + ", ..." * (len(names) > most)
