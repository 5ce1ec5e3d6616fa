"""What a detector keeps: the limits of its end, changed before it is exported or compiled."""

from dataclasses import dataclass, replace
from typing import Any

from smallcnn.errors import GraphError
from smallcnn.ir import checks, ops
from smallcnn.ir.graph import Graph
from smallcnn.ir.rewrite import rewrite


@dataclass(frozen=True)
class Limits:
    """Least score, largest overlap of two boxes and largest number of objects; None leaves the network's own.

    Raises GraphError for one out of range.
    """

    threshold: float | None = None
    overlap: float | None = None
    most: int | None = None

    def __post_init__(self) -> None:
        for name in ("threshold", "overlap"):
            value = getattr(self, name)
            if not (value is None or (checks.is_number(value) and 0 <= value <= 1)):
                raise GraphError(f"{name} must be from 0 to 1, not {checks.shown(value)}")
        if self.most is not None:
            checks.positive("most", self.most)

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
    """The detector with other limits. Raises GraphError if it is none."""
    if not limits:
        return graph
    ends: dict[str, ops.Op] = {
        node.name: replace(node.op, **limits.given) for node in graph if isinstance(node.op, ops.Detect)
    }
    if not ends:
        raise GraphError(f"{graph.name} is not a detector: it has no {limits}")
    return rewrite(graph, ops=ends)
