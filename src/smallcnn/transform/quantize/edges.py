"""Where a quantized network stores bytes, and which of these edges must share a grid.

An operator that computes (convolution, dense, add, sub, scale, pooling by averages, prelu, any curved activation) is
followed by a quantize. Its edge is named after it, or after the relu, relu6 or clip of its result: the saturation of
the bytes is that activation, which then vanishes. So does one after operators that only move numbers, as a relu after a
concat, if nothing else reads on the way.

Operators that move, choose or bound bytes keep their grid; a concat therefore joins the edges of its inputs in a group.
What follows the last operator that computes is float32, and so is a node that is kept in float.
"""

from collections.abc import Collection
from dataclasses import dataclass

from smallcnn.errors import GraphError
from smallcnn.ir import ops
from smallcnn.ir.graph import Graph, Node
from smallcnn.ir.rewrite import only_reader


@dataclass(frozen=True)
class Edges:
    """The edges of a network: `of` gives the edge of each node that a quantize follows, in order.

    `groups` are the edges that share a grid, each edge in one group. `in_float` are the nodes that compute float32.
    """

    of: dict[str, str]
    groups: tuple[tuple[str, ...], ...]
    in_float: frozenset[str]

    @property
    def names(self) -> tuple[str, ...]:
        """Every edge once."""
        return tuple(dict.fromkeys(self.of.values()))


def find_edges(graph: Graph, keep_float: Collection[str] = ()) -> Edges:
    """The edges of a ready graph if the nodes `keep_float` compute float32.

    Raises GraphError naming a node that is not in the graph.
    """
    if unknown := [name for name in keep_float if name not in {node.name for node in graph}]:
        raise GraphError(f"{graph.name} has no node {unknown[0]!r} to keep in float")
    in_float = _in_float(graph, keep_float)
    of = {
        node.name: node.name
        for node in graph
        if (node.name in in_float or not node.op.keeps_grid)
        and any(reader.name not in in_float for reader in graph.consumers[node.name])
    }
    for node in graph:
        if node.name not in in_float and node.op.bounds:
            of.update(dict.fromkeys(_bounded(graph, node, of), node.name))
    return Edges(of, _groups(graph, of, in_float), frozenset(in_float))


def without_integer_form(graph: Graph) -> tuple[str, ...]:
    """The nodes that can only compute float32."""
    return tuple(node.name for node in graph if _only_float(node.op))


def _only_float(op: ops.Op) -> bool:
    return isinstance(op, ops.LocalResponseNorm | ops.Exp) or (isinstance(op, ops.Resize) and not op.keeps_grid)


def check_integer_forms(graph: Graph, in_float: Collection[str]) -> None:
    """Raises GraphError naming the first node that has no integer form and is not computed in float32."""
    if found := [name for name in without_integer_form(graph) if name not in in_float]:
        raise GraphError(f"{found[0]}: a {graph[found[0]].op.kind} has no integer form; it can be kept in float")


def _in_float(graph: Graph, keep_float: Collection[str]) -> set[str]:
    """The nodes kept in float, and those that only prepare such a node's input or an output."""
    computing = (
        ops.Input | ops.Conv | ops.Dense | ops.Add | ops.Sub | ops.Scale | ops.GlobalPool | ops.LocalResponseNorm
    )
    found: set[str] = set()
    for node in reversed(graph.nodes):
        averages = isinstance(node.op, ops.Pool) and node.op.function == "average"
        follows = all(reader.name in found for reader in graph.consumers[node.name])
        if node.name in keep_float or (follows and not averages and not isinstance(node.op, computing)):
            found.add(node.name)
    return found


def _bounded(graph: Graph, node: Node, producers: Collection[str]) -> list[str]:
    """The producers whose results reach no other node than the bounds `node`; none if that is not so for all."""
    zero_stays = node.op.low <= 0 <= node.op.high if isinstance(node.op, ops.Clip) else True
    found: list[str] = []
    waiting = list(node.inputs)
    while waiting:
        source = graph[waiting.pop()]
        if only_reader(graph, source) is None or (isinstance(source.op, ops.Pad) and not zero_stays):
            return []
        if source.name in producers:
            found.append(source.name)
        else:
            waiting += source.inputs
    return found


def _groups(graph: Graph, of: dict[str, str], in_float: set[str]) -> tuple[tuple[str, ...], ...]:
    together: dict[str, set[str]] = {name: {name} for name in of.values()}
    carries: dict[str, str] = {}  # each node that holds bytes -> an edge of its group
    for node in graph:
        if node.name in of:
            carries[node.name] = of[node.name]
        elif node.name not in in_float and node.op.keeps_grid:
            joined = set().union(*(together[carries[name]] for name in node.inputs))
            for name in joined:
                together[name] = joined
            carries[node.name] = carries[node.inputs[0]]
    found: list[tuple[str, ...]] = []
    for name in dict.fromkeys(of.values()):
        if not any(name in group for group in found):
            found.append(tuple(other for other in dict.fromkeys(of.values()) if other in together[name]))
    return tuple(found)
