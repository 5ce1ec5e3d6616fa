"""Exact cost of a network: Mult-Adds, parameters, weight bytes, activation memory. No framework, integers only.

Mult-Adds: one multiply and one add count once; convolutions and dense layers only; bias and batch norm not counted.
Parameters: everything a training step learns: weights, biases, batch norm's scale and shift (not its statistics).
"""

from dataclasses import dataclass
from math import prod

from smallcnn.cost import memory
from smallcnn.ir import ops
from smallcnn.ir.graph import Graph, Node
from smallcnn.ir.ops import Shape
from smallcnn.ir.types import Number


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
    """Most elements alive at once, layer by layer: see `memory.peak_elements`."""
    peak_activation_bytes: int
    """The same in bytes, each tensor in its number type."""
    weight_bytes_by_number: dict[Number, int]
    """Bytes stored for inference, batch norm folded, biases included."""

    @property
    def weight_bytes(self) -> int:
        """Bytes stored for inference in all number types."""
        return sum(self.weight_bytes_by_number.values())

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
        peak_activation_elements=memory.peak_elements(graph),
        peak_activation_bytes=memory.peak_bytes(graph),
        weight_bytes_by_number=memory.weight_bytes(graph),
    )


def mult_adds(graph: Graph, node: Node) -> int:
    """Mult-Adds of one node: output elements times the inputs each one sums over."""
    if isinstance(node.op, ops.Conv | ops.Dense):
        per_output = prod(graph.weights_of(node)["weight"].shape[1:])
        return prod(node.shape) * per_output
    return 0


def _layer(graph: Graph, node: Node) -> Layer:
    parameters = sum(prod(weight.shape) for weight in graph.weights_of(node).values() if weight.learned)
    return Layer(
        node.name, _type(graph, node), graph.input_shapes(node), node.shape, mult_adds(graph, node), parameters
    )


def _type(graph: Graph, node: Node) -> str:
    match node.op:
        case ops.Conv(kernel=(height, width)) as op:
            depthwise = graph.is_depthwise(node)
            prefix = "depthwise " if depthwise else "grouped " if op.groups > 1 else ""
            return f"{prefix}conv {height}x{width}"
        case ops.Pool(function=function, kernel=(height, width)):
            return f"{function} pool {height}x{width}"
        case ops.Activation(function=function):
            return function.replace("_", " ")
        case op:
            return op.kind.replace("_", " ")
