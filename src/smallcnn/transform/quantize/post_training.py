"""Post-training quantization: a float model and calibration images give a model that computes with bytes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from smallcnn.errors import GraphError
from smallcnn.image.fit import Preprocessing
from smallcnn.ir.graph import Graph
from smallcnn.ir.types import Grid
from smallcnn.transform.fold import Weights
from smallcnn.transform.quantize.edges import Edges, check_integer_forms, find_edges
from smallcnn.transform.quantize.equalise import equalised
from smallcnn.transform.quantize.form import ready, with_biases
from smallcnn.transform.quantize.insert import insert
from smallcnn.transform.quantize.pixels import reading_pixels
from smallcnn.transform.quantize.ranges import RangeChoice, Seen, choose_grid, look, together
from smallcnn.transform.quantize.reach import Reach, channels
from smallcnn.transform.quantize.side_by_side import Layer, side_by_side
from smallcnn.transform.quantize.spare import apart, with_copies
from smallcnn.transform.quantize.values import Operators, by_definition, live_bytes, usable, walk

if TYPE_CHECKING:
    from smallcnn.model.model import Model

Array = np.ndarray

_BUDGET = 1 << 30
"""Bytes of results that are held at once; it limits the number of images."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a network is quantized: the range of an edge, the corrections, and the layers to keep in float.

    `ratios` are those of the scales of a layer's outputs, where they are not free; see `weight_grid`.
    """

    ranges: RangeChoice = "best"
    equalise: bool = True
    copy_channels: bool = True
    compensate: bool = True
    correct_bias: bool = True
    per_tensor: bool = False
    keep_float: tuple[str, ...] = ()
    ratios: Mapping[str, Array] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """What quantizing did: the error of each edge, the layers that were equalised, the number of images used."""

    layers: tuple[Layer, ...]
    equalised: tuple[str, ...]
    images: int


@dataclass(frozen=True)
class Chosen:
    """A ready network that `insert` turns into bytes: its weights, rounded real numbers, and all grids.

    `grids` are those of the edges, `weight_grids` those of the layers. `preprocessing` is the network's own.
    """

    graph: Graph
    weights: dict[str, Array]
    preprocessing: Preprocessing
    grids: dict[str, Grid]
    weight_grids: dict[str, Grid]
    report: Report


def quantize(
    model: "Model",
    images: Array,
    settings: Settings | None = None,
    *,
    operators: Callable[[Graph], Operators] = lambda graph: by_definition,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> "tuple[Model, Report]":
    """The quantized model for calibration images; the arguments and errors are those of `choose`."""
    settings = settings or Settings()
    chosen = choose(
        model.graph, model.weights, model.preprocessing, images, settings, operators=operators, report=report
    )
    graph, stored = insert(
        chosen.graph, chosen.weights, chosen.grids, settings.keep_float, weight_grids=chosen.weight_grids
    )
    return replace(model, graph=graph, weights=stored, preprocessing=chosen.preprocessing), chosen.report


def choose(
    graph: Graph,
    weights: Weights,
    preprocessing: Preprocessing,
    images: Array,
    settings: Settings,
    *,
    operators: Callable[[Graph], Operators] = lambda graph: by_definition,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Chosen:
    """Weights and grids for calibration images, prepared as `Session.run` takes them: uint8 (N, H, W, C), red first.

    Of many images, as many are used as fit 1 GiB of results, evenly spread. `operators` starts an engine for single
    nodes, by default their definition. `report` is called with the number of steps done and their total.

    Raises DataError if there are no images or each is of one colour, GraphError if the network is quantized already,
    has an operator without an integer form, or has no node to keep in float of that name.
    """
    graph, weights = ready(graph, weights)
    check_integer_forms(graph, find_edges(graph, settings.keep_float).in_float)
    used = usable(images, most=max(1, _BUDGET // (2 * live_bytes(graph))))
    graph, weights, preprocessing, pixels = reading_pixels(graph, weights, preprocessing)
    graph, weights = with_biases(graph, weights) if settings.correct_bias else (graph, weights)
    engine = operators(graph)
    prepared = preprocessing.normalise(used)
    edges = find_edges(graph, settings.keep_float)
    names: tuple[str, ...] = ()
    looks = settings.equalise or settings.copy_channels
    steps = _Steps(len(graph.nodes), 3 if looks else 2, report)
    offsets: dict[str, Array] = {}
    if looks:
        found = channels(graph, weights, prepared, engine, steps.of_pass())
        reach = found.reach
        if settings.copy_channels:
            copied = with_copies(graph, weights, found, edges.in_float)
            weights, reach, offsets = copied.weights, copied.reach, copied.offsets
        if settings.equalise:
            weights, names = equalised(graph, weights, _peaks(graph, reach, edges))
    grids = _observed(graph, weights, prepared, engine, edges, settings.ranges, steps.of_pass())
    weights = apart(graph, weights, offsets, grids)
    if (graph.nodes[0].name,) in edges.groups:
        grids[graph.nodes[0].name] = pixels
    weights, weight_grids, layers = side_by_side(
        graph, weights, grids, prepared, engine, keep_float=settings.keep_float, per_tensor=settings.per_tensor,
        ratios=settings.ratios, compensate=settings.compensate, correct=settings.correct_bias, report=steps.of_pass(),
    )  # fmt: skip
    return Chosen(graph, weights, preprocessing, grids, weight_grids, Report(layers, names, len(used)))


def _observed(
    graph: Graph,
    weights: Weights,
    images: Array,
    operators: Operators,
    edges: Edges,
    ranges: RangeChoice = "best",
    report: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Grid]:
    """A grid for each edge of a ready network, from its values for prepared images (N, H, W, C)."""
    wanted = set(edges.names)
    seen: dict[str, Seen] = {}
    for done, (node, value) in enumerate(walk(graph, weights, images, operators)):
        report(done, len(graph.nodes))
        if node.name in wanted:
            if not np.isfinite(value).all():
                raise GraphError(f"{graph.name}: {node.name} gives numbers that are not finite for these images")
            seen[node.name] = look(value)
    grids: dict[str, Grid] = {}
    for group in edges.groups:
        grids |= dict.fromkeys(group, choose_grid(together([seen[name] for name in group]), ranges))
    return grids


def _peaks(graph: Graph, reach: Mapping[str, Reach], edges: Edges) -> dict[str, Array]:
    """The largest magnitude of each channel of each layer, within the bounds that its edge's bytes will put on it."""
    return {
        name: one.peaks(graph[edges.of[name]].op.bounds or (-np.inf, np.inf))
        for name, one in reach.items()
        if name in edges.of and name not in edges.in_float
    }


class _Steps:
    """Progress over several passes through a network."""

    def __init__(self, nodes: int, passes: int, report: Callable[[int, int], None]) -> None:
        self._nodes, self._passes, self._report = nodes, passes, report
        self._started = -1

    def of_pass(self) -> Callable[[int, int], None]:
        """What the next pass reports its progress to."""
        self._started += 1
        before = self._started * self._nodes
        return lambda done, _: self._report(before + done, self._passes * self._nodes)
