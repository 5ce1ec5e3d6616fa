"""The body of a classifier as the backbone of a detector, and the two of its maps that a head is attached to.

These are the features and the last map at half their stride that the whole network passes through: for the networks
with a released detector, those that it uses (MobileNet v1 the end of block 11, MobileNetV2 and V3 the expansion of the
block that halves the plane for the last time).
"""

from math import inf

from smallcnn.errors import GraphError
from smallcnn.ir import ops
from smallcnn.ir.builder import Builder
from smallcnn.ir.graph import Graph, Node
from smallcnn.zoo.registry import Configuration


def backbone(g: Builder, model: Configuration) -> tuple[Node, Node]:
    """Adds the layers of `model` up to its features to the builder; the two maps, the larger first.

    Raises GraphError if the network has no map at half the stride of its features, or is a detector itself.
    """
    height, width, channels = g.input.shape
    graph = model.build(resolution=(height, width), channels=channels, classes=1)
    if any(isinstance(node.op, ops.Detect) for node in graph):
        raise GraphError(f"{model.name} is a detector; a backbone is a classifier")
    body = _body(graph)
    earlier, last = _earlier(graph, body), graph[graph.features]
    g.take(body)
    return earlier, last


def _body(graph: Graph) -> list[Node]:
    """The nodes that the features are computed from, in order."""
    needed = {graph.features}
    for node in reversed(graph.nodes):
        if node.name in needed:
            needed.update(node.inputs)
    return [node for node in graph if node.name in needed]


def _earlier(graph: Graph, body: list[Node]) -> Node:
    """The last map at half the stride that all later layers are computed from.

    Where two maps are always alive, as in NASNet, the last one that another block reads.
    """
    strides = _strides(body)
    high, wide = strides[graph.features]
    at = [i for i, node in enumerate(body) if (2 * strides[node.name][0], 2 * strides[node.name][1]) == (high, wide)]
    position = {node.name: i for i, node in enumerate(body)}
    last_reader = {name: position[node.name] for node in body for name in node.inputs}
    alone = [i for i in at if all(last_reader.get(body[j].name, inf) <= i for j in range(i))]
    between = [i for i in at if any(_block(reader) != _block(body[i]) for reader in graph.consumers[body[i].name])]
    if not (alone or between):
        raise GraphError(
            f"{graph.name} has no map of half its features' stride, {high}x{wide}: it cannot be a backbone"
        )
    return body[(alone or between)[-1]]


def _strides(body: list[Node]) -> dict[str, tuple[int, int]]:
    """How many pixels of the image one step on each map is, vertically and horizontally."""
    strides: dict[str, tuple[int, int]] = {}
    for node in body:
        high, wide = strides[node.inputs[0]] if node.inputs else (1, 1)
        down, right = node.op.stride if isinstance(node.op, ops.Conv | ops.Pool) else (1, 1)
        strides[node.name] = high * down, wide * right
    return strides


def _block(node: Node) -> str:
    return node.name.partition(".")[0]
