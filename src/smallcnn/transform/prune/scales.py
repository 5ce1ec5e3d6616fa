"""Batch norms whose scales say how much a channel counts, for network slimming (Liu et al. 2017, arXiv 1708.06519)."""

from smallcnn.ir import ops
from smallcnn.ir.graph import Graph, Node
from smallcnn.transform.prune.tied import tied

_PASS = (ops.Activation, ops.PRelu, ops.Clip, ops.Dropout, ops.Pad, ops.Pool, ops.Shuffle)


def deciding(graph: Graph) -> tuple[str, ...]:
    """The batch norms of channels that can be removed, without those whose scale the next norm makes up for.

    A norm before a depthwise convolution that has a norm of its own is of that kind: the second one divides by what
    the first one multiplies with, channel by channel. So of an inverted residual the norms of the depthwise convolution
    and of the projection count, not that of the expansion.
    """
    removable = {name for one in tied(graph) for name in one.channels}

    def made_up_for(node: Node) -> bool:
        readers = graph.consumers[node.name]
        return bool(readers) and all(normed(reader) for reader in readers)

    def normed(reader: Node) -> bool:
        match reader.op:
            case ops.BatchNorm():
                return True
            case ops.Conv():
                return graph.is_depthwise(reader) and made_up_for(reader)
        return isinstance(reader.op, _PASS) and made_up_for(reader)

    return tuple(
        node.name
        for node in graph
        if isinstance(node.op, ops.BatchNorm) and node.name in removable and not made_up_for(node)
    )
