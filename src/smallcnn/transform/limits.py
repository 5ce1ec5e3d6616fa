"""What a detector keeps: the limits of its end, changed before it is exported or compiled."""

from dataclasses import dataclass, replace

from smallcnn.errors import GraphError
from smallcnn.ir import ops
from smallcnn.ir.graph import Graph
from smallcnn.ir.rewrite import rewrite


@dataclass(frozen=True)
class Limits:
    """Least score, largest overlap of two boxes and largest number of objects; None leaves the network's own."""

    threshold: float | None = None
    overlap: float | None = None
    most: int | None = None


def limited(graph: Graph, limits: Limits) -> Graph:
    """The detector with other limits. Raises GraphError if it is none, or a limit is out of range."""
    given = {name: value for name, value in vars(limits).items() if value is not None}
    if not given:
        return graph
    ends: dict[str, ops.Op] = {
        node.name: replace(node.op, **given) for node in graph if isinstance(node.op, ops.Detect)
    }
    if not ends:
        raise GraphError(f"{graph.name} is not a detector: it has no {' or '.join(given)}")
    return rewrite(graph, ops=ends)
