"""x times a clipped line of x: hard swish of any slope, offset and bounds, in any spelling.

Both factors are lines of s; u is a line of s such that the gate is hard_sigmoid(u) up to a line, and

    x = a u + b        gate = c hard_sigmoid(u) + d

the product is  a c hard_swish(u) + b c hard_sigmoid(u) + a d u + b d,  and the graph has these operators. Usually b
and d are 0 and one term remains.
"""

import numpy as np

from smallcnn.foreign import idioms
from smallcnn.foreign.idioms import close
from smallcnn.foreign.network import Affine, Network
from smallcnn.foreign.views import Array, View
from smallcnn.ir import ops
from smallcnn.ir.graph import Node

_UNBOUNDED = 1e6  # a larger bound counts as none, as it would leave no digits for the slope
_NOTHING = 1e-6
"""Smallest coefficient that counts, relative to the others: a few roundings of float32."""


def gated(net: Network, x: View, gate: View, label: str) -> View | None:
    """The product of two results of one layout; None unless both are lines of one result and the second is clipped."""
    for outer in idioms.lines(net, gate.node):
        clipped = _clipped(outer.source)
        if clipped is None:
            continue
        low, high, after = clipped
        for inner in idioms.lines(net, net.nodes[outer.source.inputs[0]]):
            for line in idioms.lines(net, x.node):
                if line.source is inner.source and (inner.scale != 0).all():
                    c, d = outer.scale * after[0], outer.scale * after[1] + outer.shift
                    u = 6 * inner.scale / (high - low), 6 * (inner.shift - low) / (high - low) - 3
                    return _product(net, x, line, u, (c * (high - low), d + c * low), label)
    return None


def _clipped(node: Node) -> tuple[float, float, tuple[float, float]] | None:
    """The bounds to which a node clips its input, and the scale and shift applied afterwards."""
    match node.op:
        case ops.Activation(function="relu6"):
            return 0.0, 6.0, (1.0, 0.0)
        case ops.Activation(function="hard_sigmoid"):
            return -3.0, 3.0, (1 / 6, 0.5)
        case ops.Clip(low=low, high=high) if max(-low, high) < _UNBOUNDED:
            return low, high, (1.0, 0.0)
    return None


def _product(
    net: Network, x: View, line: Affine, u: tuple[Array, Array], gate: tuple[Array, Array], label: str
) -> View:
    """(line) * (c * hard_sigmoid(u) + d), where u = slope * source + offset and `gate` is (c, d)."""
    (slope, offset), (c, d) = u, gate
    if close(slope, 1) and close(offset, 0):
        slope, offset = np.ones(1), np.zeros(1)
    a, b = line.scale / slope, line.shift - line.scale * offset / slope
    b, d = _or_nothing(b, a), _or_nothing(d, c)
    at = idioms.scale_and_shift(net, View(line.source, x.dims), slope, offset, f"{label}.line")
    terms = [(net.activation(at, "hard_swish", label), a * c)]
    if b.any():
        terms.append((net.activation(at, "hard_sigmoid", f"{label}.gate"), b * c))
    if d.any():
        terms.append((at, a * d))
    zero = np.zeros(1)
    first = idioms.scale_and_shift(net, terms[0][0], terms[0][1], b * d, f"{label}.scaled")
    rest = [idioms.scale_and_shift(net, term, scale, zero, f"{label}.scaled") for term, scale in terms[1:]]
    return net.sum([first, *rest], f"{label}.sum") if rest else first


def _or_nothing(value: Array, other: Array) -> Array:
    return np.where(np.abs(value) <= _NOTHING * np.abs(other), 0.0, value)
