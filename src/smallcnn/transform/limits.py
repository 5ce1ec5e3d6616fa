"""What a detector keeps: the limits of its end, changed before it is exported or compiled."""

from dataclasses import dataclass, replace
from typing import Any

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

    def __bool__(self) -> bool:
        """Whether any is given."""
        return bool(self.given)

    def __str__(self) -> str:
        return " or ".join(self.given)

    @property
    def given(self) -> dict[str, Any]:
        """Those that are not None, by name."""
        return {name: value for name, value in vars(self).items() if value is not None}


def limited(graph: Graph, limits: Limits) -> Graph:
    """The detector with other limits. Raises GraphError if it is none, or a limit is out of range."""
    if not limits:
        return graph
    ends: dict[str, ops.Op] = {
        node.name: replace(node.op, **limits.given) for node in graph if isinstance(node.op, ops.Detect)
    }
    if not ends:
        raise GraphError(f"{graph.name} is not a detector: it has no {limits}")
    return rewrite(graph, ops=ends)
