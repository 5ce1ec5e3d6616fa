"""What follows the features: (H, W, C) -> (classes,) logits."""

from smallcnn.ir.builder import Builder
from smallcnn.ir.graph import Graph, Node
from smallcnn.ir.ops import ActivationKind


def pooled(g: Builder, x: Node, classes: int, *, dropout: float = 0.0, bias: bool = True, pool: str = "pool") -> Graph:
    """The network that ends in the mean over the plane, dropout and one dense layer."""
    return classified(g, x, g.global_pool(x, name=pool), classes, dropout=dropout, bias=bias)


def hidden(g: Builder, x: Node, width: int, classes: int, *, activation: ActivationKind) -> Graph:
    """The network that ends in the mean over the plane, a hidden layer, dropout of 0.2 and one dense layer."""
    y = g.dense(g.global_pool(x, name="pool"), width, name="hidden.dense")
    return classified(g, x, g.activation(y, activation, name="hidden.act"), classes, dropout=0.2)


def classified(g: Builder, x: Node, y: Node, classes: int, *, dropout: float = 0.0, bias: bool = True) -> Graph:
    """The network whose features are `x` and whose last hidden vector is `y`."""
    y = g.dropout(y, dropout, name="dropout") if dropout else y
    return g.graph(g.dense(y, classes, bias=bias, name="classifier"), features=x)
