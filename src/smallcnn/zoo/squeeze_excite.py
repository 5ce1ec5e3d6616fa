"""Squeeze-and-excitation: Hu et al. 2017, arXiv 1709.01507, Figure 3."""

from smallcnn.ir.builder import Builder
from smallcnn.ir.graph import Node
from smallcnn.ir.ops import ActivationKind


def squeeze_excite(g: Builder, x: Node, width: int, *, gate: ActivationKind, name: str) -> Node:
    """(H, W, C) -> (H, W, C): rescales channels by a function of their means, with `width` hidden units."""
    y = g.dense(g.global_pool(x, name=f"{name}.pool"), width, name=f"{name}.reduce")
    y = g.dense(g.activation(y, "relu", name=f"{name}.act"), x.shape[2], name=f"{name}.expand")
    return g.scale(x, g.activation(y, gate, name=f"{name}.gate"), name=f"{name}.scale")
