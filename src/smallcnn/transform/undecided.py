"""A detector without its last operator, which decides what is an object: the network as training sees it."""

from smallcnn.errors import GraphError
from smallcnn.ir import ops
from smallcnn.ir.graph import Graph, Output
from smallcnn.ir.predictors import detector

CODED, SCORES = "coded", "scores"
"""The outputs of an undecided detector: a code (N, 4) and raw scores (N, C) for every anchor; see `ir.ops.Detect`."""


def undecided(graph: Graph) -> Graph:
    """The detector up to its `Detect`, whose inputs become outputs. It has the same weights.

    Raises GraphError unless all outputs of the network come from one `Detect`, and that reads no objectness.
    """
    end = detector(graph)
    if end is None:
        raise GraphError(f"{graph.name} is not a detector")
    if len(end.inputs) > 2:
        raise GraphError(f"{graph.name}: detectors with an objectness of their own cannot be trained")
    after = {end.name}
    for node in graph:
        if after.intersection(node.inputs):
            if graph.weights_of(node) or not after.issuperset(node.inputs):
                raise GraphError(f"{graph.name}: {node.name} computes with what {end.name} found")
            after.add(node.name)
    outputs = tuple(Output(name, source) for name, source in zip((CODED, SCORES), end.inputs, strict=True))
    nodes = tuple(node for node in graph if node.name not in after)
    if left := [output.name for output in graph.outputs if output.node not in after]:
        raise GraphError(f"{graph.name}: its output {left[0]} does not come from {end.name}")
    return Graph(graph.name, nodes, outputs, graph.taps)


def decision(graph: Graph) -> ops.Detect:
    """The `Detect` of a detector. Raises GraphError if the network has none."""
    end = detector(graph)
    if end is None:
        raise GraphError(f"{graph.name} is not a detector")
    assert isinstance(end.op, ops.Detect)
    return end.op
