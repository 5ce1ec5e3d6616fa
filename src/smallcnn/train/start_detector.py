"""The starting point of a detector's run: the weights of another detector, or of a classifier's backbone."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from smallcnn.errors import DataError
from smallcnn.ir import ops
from smallcnn.ir.graph import Graph
from smallcnn.ir.predictors import detector, score_predictors
from smallcnn.ir.rewrite import rewrite
from smallcnn.model.model import Model
from smallcnn.reference.initial import initial_weights
from smallcnn.tasks.coco import MOST
from smallcnn.transform.adapt import keep, with_classes, with_resolution
from smallcnn.transform.object_classes import score_weights

_USUAL = "anchor_free"

Weights = Mapping[str, np.ndarray]


def usual_detector(classifier: Graph) -> str:
    """The registry's name of the usual detector over a classifier of the registry."""
    name, _, options = classifier.name.partition(":")
    return f"{_USUAL}:backbone={name}" + (f",{options}" if options else "")


def over_backbone(graph: Graph, classifier: Model, seed: int) -> dict[str, np.ndarray]:
    """The weights of a detector whose backbone is that of `classifier`; those of its other layers are initial.

    Raises DataError unless every layer of the backbone is the same in both.
    """
    source = classifier.graph
    if source.input_shape != graph.input_shape:
        source = with_resolution(source, graph.input_shape[:2])
    theirs = {node.name: node.op for node in source}
    names = [node.name for node in graph]
    for node in graph.nodes[1 : names.index(graph.features) + 1]:
        if theirs.get(node.name) != node.op:
            other = f"is {theirs[node.name]}" if node.name in theirs else "is missing"
            raise DataError(
                f"the backbone of {graph.name} is not that of {source.name}: {node.name} is {node.op} here and {other} "
                f"there; {usual_detector(source)} has the same"
            )
    backbone = {f"{name}.{key}" for name in theirs if name in set(names) for key in source.weights_of(source[name])}
    return initial_weights(graph, seed) | {
        name: value for name, value in keep(graph, classifier.weights).items() if name in backbone
    }


def from_detector(
    model: Model, size: tuple[int, int], classes: int, known: np.ndarray | None, seed: int
) -> tuple[Graph, dict[str, np.ndarray]]:
    """A detector for inputs of `size` and this number of classes, with the model's weights.

    It finds up to 100 objects, as many as COCO's figures count, even if the model finds fewer. `known` are the places
    of the classes among the model's; None if the scores must be learned anew.
    """
    graph, weights = _finding(model.graph, MOST[-1]), dict(model.weights)
    if size != graph.input_shape[:2]:
        graph = with_resolution(graph, size)
    if known is None:
        layers = [predictor.conv for predictor in score_predictors(graph)]
        scored = {f"{layer.name}.{key}" for layer in layers for key in graph.weights_of(layer)}
        weights = {name: value for name, value in weights.items() if name not in scored}
    elif len(known) < len(model.labels) or list(known) != list(range(len(known))):
        weights |= score_weights(graph, known, weights)
    if known is None or len(known) < len(model.labels):
        graph = with_classes(graph, classes)
    return graph, initial_weights(graph, seed) | keep(graph, weights)


def _finding(graph: Graph, most: int) -> Graph:
    """The detector, of which at least this many objects can be found."""
    found = detector(graph)
    assert found is not None
    assert isinstance(found.op, ops.Detect)
    return rewrite(graph, ops={found.name: replace(found.op, most=max(most, found.op.most))})
