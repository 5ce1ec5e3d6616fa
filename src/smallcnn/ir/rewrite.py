"""Rewriting a graph, and walking it: what every transformation and every executor needs."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace

from smallcnn.errors import GraphError
from smallcnn.ir.graph import Graph, Node, make_node
from smallcnn.ir.ops import Op

After = Callable[[Node], Sequence[Node]]
"""New nodes that follow a node; the last stands for it in what reads it."""


def rewrite(
    graph: Graph,
    *,
    ops: Mapping[str, Op] = {},
    without: Collection[str] = (),
    after: Mapping[str, After] = {},
) -> Graph:
    """The graph with operators replaced, nodes removed and nodes added; shapes are inferred again.

    A removed node's input, or the last node added `after` a node, takes its place for readers, outputs and taps. A node
    of several inputs can be removed if one node takes the place of all of them, as slices that are joined again.
    Raises GraphError naming the first node that no longer fits, that is not in the graph, or that cannot be removed.
    """
    known = {node.name for node in graph}
    if unknown := [name for name in (*ops, *without, *after) if name not in known]:
        raise GraphError(f"{graph.name} has no node {unknown[0]!r}")
    if both := [name for name in without if name in ops or name in after]:
        raise GraphError(f"{both[0]} cannot be both removed and changed")
    nodes: dict[str, Node] = {}
    stands_for: dict[str, str] = {}
    for node in graph:
        if node.name in without:
            left = {stands_for[name] for name in node.inputs}
            if len(left) != 1:
                raise GraphError(f"{node.name} has {len(left)} inputs; only a node of one input can be removed")
            (stands_for[node.name],) = left
            continue
        op = ops.get(node.name, node.op)
        made = [make_node(node.name, op, [nodes[stands_for[name]] for name in node.inputs])]
        made += after[node.name](made[0]) if node.name in after else ()
        for new in made:
            if new.name in nodes:
                raise GraphError(f"{new.name}: two nodes have this name")
            nodes[new.name] = new
        stands_for[node.name] = made[-1].name
    outputs = tuple(replace(output, node=stands_for[output.node]) for output in graph.outputs)
    taps = tuple(dict.fromkeys(stands_for[tap] for tap in graph.taps))
    return Graph(graph.name, tuple(nodes.values()), outputs, taps)


def in_order(graph: Graph) -> Iterator[tuple[Node, tuple[str, ...]]]:
    """Each node, with the names of its inputs that nothing reads after it; outputs are never among them."""
    last = {name: node.name for node in graph for name in node.inputs}
    kept = {output.node for output in graph.outputs}
    for node in graph:
        yield node, tuple(x for x in dict.fromkeys(node.inputs) if last[x] == node.name and x not in kept)


def only_reader(graph: Graph, node: Node) -> Node | None:
    """The node that alone reads this one's result; None if there are several, none, or it is an output."""
    readers = graph.consumers[node.name]
    if len(readers) != 1 or any(output.node == node.name for output in graph.outputs):
        return None
    return readers[0]


def unused_name(graph: Graph, name: str) -> str:
    """`name`, with underscores added while a node or a group of nodes has it."""
    taken = {part for node in graph for part in (node.name, node.name.partition(".")[0])}
    while name in taken:
        name += "_"
    return name
