"""Exact cost of a network: Mult-Adds, parameters, weight bytes, activation memory. No framework, integers only.

Mult-Adds: one multiply and one add count once; convolutions and dense layers only; bias and batch norm not counted.
Parameters: everything a training step learns: weights, biases, batch norm's scale and shift (not its statistics).
"""

from dataclasses import dataclass
from math import prod

from smallcnn.ir import ops
from smallcnn.ir.graph import Graph, Node
from smallcnn.ir.ops import Shape
from smallcnn.ir.rewrite import in_order
from smallcnn.ir.types import SIZES
from smallcnn.transform.fold import foldable


@dataclass(frozen=True)
class Layer:
    """The cost of one node. `type` groups layers as in MobileNet v1's Table 2: 'conv 1x1', 'depthwise conv 3x3', ..."""

    name: str
    type: str
    input_shapes: tuple[Shape, ...]
    output_shape: Shape
    mult_adds: int
    parameters: int


@dataclass(frozen=True)
class TypeTotal:
    """The sum over all layers of one type."""

    type: str
    layers: int
    mult_adds: int
    parameters: int


@dataclass(frozen=True)
class Profile:
    """The cost of one image of `input_shape` (H, W, C)."""

    name: str
    input_shape: Shape
    layers: tuple[Layer, ...]
    peak_activation_elements: int
    """Most elements alive at once when layers run one by one in order, freeing tensors after their last reader, with
    batch norm, activation, dropout and flatten in place. The input image counts while it is needed."""
    weight_bytes: int
    """Bytes stored for inference, each tensor in its number type: batch norm folded, biases included."""

    @property
    def mult_adds(self) -> int:
        """Mult-Adds of the whole network."""
        return sum(layer.mult_adds for layer in self.layers)

    @property
    def parameters(self) -> int:
        """Learned parameters of the whole network."""
        return sum(layer.parameters for layer in self.layers)

    def by_type(self) -> tuple[TypeTotal, ...]:
        """Totals per layer type, most Mult-Adds first."""
        types = {layer.type: [other for other in self.layers if other.type == layer.type] for layer in self.layers}
        totals = [
            TypeTotal(name, len(of), sum(x.mult_adds for x in of), sum(x.parameters for x in of))
            for name, of in types.items()
        ]
        return tuple(sorted(totals, key=lambda total: (-total.mult_adds, -total.parameters)))


def profile(graph: Graph) -> Profile:
    """Counts `graph` at its own input size."""
    return Profile(
        name=graph.name,
        input_shape=graph.input_shape,
        layers=tuple(_layer(graph, node) for node in graph),
        peak_activation_elements=peak_activation_elements(graph),
        weight_bytes=_weight_bytes(graph),
    )


def _weight_bytes(graph: Graph) -> int:
    """See `Profile.weight_bytes`; counts the result of `fold.fold_graph` without building it."""
    folded = foldable(graph)
    gains_bias = set(folded.values())
    count = 0
    for node in graph:
        if node.name not in folded:
            weights = graph.weights_of(node)
            count += sum(weight.tensor.bytes for weight in weights.values())
            if node.name in gains_bias and "bias" not in weights:
                count += SIZES["float32"] * node.shape[-1]
    return count


def mult_adds(graph: Graph, node: Node) -> int:
    """Mult-Adds of one node: output elements times the inputs each one sums over."""
    if isinstance(node.op, ops.Conv | ops.Dense):
        per_output = prod(graph.weights_of(node)["weight"].shape[1:])
        return prod(node.shape) * per_output
    return 0


def peak_activation_elements(graph: Graph) -> int:
    """See `Profile.peak_activation_elements`."""
    live: dict[str, int] = {}
    peak = 0
    for node, finished in in_order(graph):
        in_place = isinstance(node.op, ops.IN_PLACE) and bool(finished)
        live[node.name] = prod(node.shape)
        peak = max(peak, sum(live.values()) - (live[node.inputs[0]] if in_place else 0))
        for name in finished:
            del live[name]
    return peak


def _layer(graph: Graph, node: Node) -> Layer:
    parameters = sum(prod(weight.shape) for weight in graph.weights_of(node).values() if weight.learned)
    return Layer(
        node.name, _type(graph, node), graph.input_shapes(node), node.shape, mult_adds(graph, node), parameters
    )


def _type(graph: Graph, node: Node) -> str:
    match node.op:
        case ops.Conv(kernel=(height, width)) as op:
            depthwise = op.is_depthwise(*graph.input_shapes(node))
            prefix = "depthwise " if depthwise else "grouped " if op.groups > 1 else ""
            return f"{prefix}conv {height}x{width}"
        case ops.Pool(function=function, kernel=(height, width)):
            return f"{function} pool {height}x{width}"
        case ops.Activation(function=function):
            return function.replace("_", " ")
        case op:
            return op.kind.replace("_", " ")
