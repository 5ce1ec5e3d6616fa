"""The convolutions of a detector that give the codes and scores of its anchors."""

from collections.abc import Iterator
from dataclasses import dataclass

from smallcnn.ir import ops
from smallcnn.ir.graph import Graph, Node

_BETWEEN = (ops.Activation, ops.Clip, ops.BatchNorm, ops.Dropout, ops.Quantize, ops.Dequantize)
"""Operators that may stand between a predictor and `Detect`: they change numbers one by one."""


@dataclass(frozen=True)
class Predictor:
    """A convolution whose map is read as `rows`: codes or scores of the anchors of one grid."""

    conv: Node
    rows: Node


def detector(graph: Graph) -> Node | None:
    """The node that finds objects; None if the network is no detector."""
    return next((node for node in graph if isinstance(node.op, ops.Detect)), None)


def object_classes(graph: Graph) -> int | None:
    """The number of classes of objects that a detector finds; None if the network is no detector."""
    if (found := detector(graph)) is None:
        return None
    assert isinstance(found.op, ops.Detect)
    return found.op.found_classes(graph[found.inputs[1]].shape)


def code_predictors(graph: Graph) -> tuple[Predictor, ...]:
    """Those of box codes, in the order of their rows; codes of other origins have none."""
    return _predictors(graph, 0)


def score_predictors(graph: Graph) -> tuple[Predictor, ...]:
    """Those of class scores, likewise."""
    return _predictors(graph, 1)


def _predictors(graph: Graph, input_: int) -> tuple[Predictor, ...]:
    found = detector(graph)
    return () if found is None else tuple(_before(graph, graph[found.inputs[input_]]))


def _before(graph: Graph, last: Node) -> Iterator[Predictor]:
    """The convolutions whose rows are joined in this node, first rows first."""
    waiting: list[tuple[Node, Node | None]] = [(last, None)]  # with the rows on the way to it
    while waiting:
        node, rows = waiting.pop()
        match node.op:
            case ops.Conv() if rows is not None:
                yield Predictor(node, rows)
            case ops.Rows() if rows is None:
                waiting.append((graph[node.inputs[0]], node))
            case ops.Join() if rows is None:
                waiting += [(graph[name], None) for name in reversed(node.inputs)]
            case op if isinstance(op, _BETWEEN):
                waiting.append((graph[node.inputs[0]], rows))
