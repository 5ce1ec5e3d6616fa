"""Low rank: a dense layer or 1x1 convolution becomes two thin ones, by the singular value decomposition.

Denton et al. 2014, "Exploiting linear structure within convolutional networks" (arXiv 1404.0736), section 3: of weights
(out, in), the `rank` largest singular values s with their vectors u, v give (out, rank) u * sqrt(s) after (rank, in)
sqrt(s) * v. That saves bytes and Mult-Adds alike where rank < out * in / (out + in).
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from smallcnn.errors import GraphError
from smallcnn.ir import ops
from smallcnn.ir.graph import Graph, make_node
from smallcnn.ir.rewrite import After, rewrite, unused_name
from smallcnn.transform.quantize.form import ready

Array = np.ndarray


def low_rank(graph: Graph, weights: Mapping[str, Array], share: float) -> tuple[Graph, dict[str, Array]]:
    """The network, batch norm folded, with layers in two that then have at most `share` of their Mult-Adds.

    The first of the two has the layer's stride, the second its bias. Raises GraphError if no layer has room for rank 1.
    """
    graph, made = ready(graph, weights)
    thin: dict[str, ops.Op] = {}
    after: dict[str, After] = {}
    for node in graph:
        if not (isinstance(node.op, ops.Conv | ops.Dense) and _is_matrix(node.op)):
            continue
        weight = made[f"{node.name}.weight"]
        rank = int(share * weight.shape[0] * weight.shape[1] / (weight.shape[0] + weight.shape[1]))
        if not rank:
            continue
        u, s, v = np.linalg.svd(weight.reshape(len(weight), -1).astype(np.float64), full_matrices=False)
        root, window, second = np.sqrt(s[:rank]), weight.shape[2:], unused_name(graph, f"{node.name}_second")
        made[f"{node.name}.weight"] = (root[:, None] * v[:rank]).astype(np.float32).reshape(rank, -1, *window)
        made[f"{second}.weight"] = (u[:, :rank] * root).astype(np.float32).reshape(-1, rank, *window)
        if node.op.bias:
            made[f"{second}.bias"] = made.pop(f"{node.name}.bias")
        thin[node.name] = replace(node.op, out=rank, bias=False)
        whole: ops.Op = ops.Dense(out=node.op.out, bias=node.op.bias)
        if isinstance(node.op, ops.Conv):
            whole = ops.Conv(out=node.op.out, bias=node.op.bias)
        after[node.name] = _one_more(second, whole)
    if not thin:
        raise GraphError(f"{graph.name} has no dense layer or 1x1 convolution that two thin ones make smaller")
    result = rewrite(graph, ops=thin, after=after)
    return result, {name: made[name] for name in result.weights}


def _one_more(name: str, op: ops.Op) -> After:
    return lambda node: [make_node(name, op, [node])]


def _is_matrix(op: ops.Conv | ops.Dense) -> bool:
    return isinstance(op, ops.Dense) or (op.kernel == (1, 1) and op.groups == 1)
