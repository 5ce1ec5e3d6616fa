"""Counts the quantities in the tables on a built network, from its graph and profile."""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from math import prod

from smallcnn.cost.profile import Layer, Profile, profile
from smallcnn.ir import ops
from smallcnn.ir.graph import Graph, Node


@dataclass(frozen=True)
class Network:
    """A graph and its profile, which is counted on first use."""

    graph: Graph

    @cached_property
    def profile(self) -> Profile:
        """The exact cost."""
        return profile(self.graph)

    def layers(self, *parts: str) -> list[Layer]:
        """The layers whose dotted name starts with one of `parts`."""
        prefixes = tuple(f"{part}." for part in parts)
        return [layer for layer in self.profile.layers if layer.name in parts or layer.name.startswith(prefixes)]


Count = Callable[[Network], int]


def mult_adds(network: Network) -> int:
    """Mult-Adds of all layers."""
    return network.profile.mult_adds


def parameters(network: Network) -> int:
    """Learned parameters of all layers."""
    return network.profile.parameters


def flops(network: Network) -> int:
    """Two per Mult-Add."""
    return 2 * network.profile.mult_adds


def weight_bytes(network: Network) -> int:
    """float32 bytes of the parameters."""
    return 4 * network.profile.parameters


def weights_and_biases(network: Network) -> int:
    """Parameters without batch norm's scale and shift."""
    return sum(layer.parameters for layer in network.profile.layers if layer.type != "batch norm")


def body_mult_adds(network: Network) -> int:
    """Mult-Adds without dense layers."""
    return sum(layer.mult_adds for layer in network.profile.layers if layer.type != "dense")


def body_parameters(network: Network) -> int:
    """Parameters without dense layers."""
    return sum(layer.parameters for layer in network.profile.layers if layer.type != "dense")


def mult_adds_share(type_: str) -> Callable[[Network], Fraction]:
    """Share of one layer type in the Mult-Adds."""

    def share(network: Network) -> Fraction:
        of_type = sum(layer.mult_adds for layer in network.profile.layers if layer.type == type_)
        return Fraction(of_type, network.profile.mult_adds)

    return share


def weights_share(type_: str) -> Callable[[Network], Fraction]:
    """Share of one layer type in the weights: batch norm and biases are not counted."""

    def share(network: Network) -> Fraction:
        counted = {node.name: _weights(network.graph, node) for node in network.graph}
        of_type = sum(counted[layer.name] for layer in network.profile.layers if layer.type == type_)
        return Fraction(of_type, sum(counted.values()))

    return share


def part_mult_adds(*parts: str) -> Count:
    """Mult-Adds of the layers whose dotted name starts with one of `parts`."""
    return lambda network: sum(layer.mult_adds for layer in network.layers(*parts))


def part_parameters(*parts: str) -> Count:
    """Parameters of the layers whose dotted name starts with one of `parts`."""
    return lambda network: sum(layer.parameters for layer in network.layers(*parts))


def materialized(graph: Graph) -> dict[int, int]:
    """{side of the plane: channels of the widest map that has to be stored}, if every block runs fused.

    A block is the nodes that share the first part of their dotted names; a map is stored if another block reads it,
    unless it is only averaged over its plane. Planes are square; a vector has side 1.
    """
    widest: dict[int, int] = {}
    for node in graph.nodes[1:]:
        readers = [reader for reader in graph.consumers[node.name] if not isinstance(reader.op, ops.GlobalPool)]
        if any(_block(reader) != _block(node) for reader in readers):
            side, channels = (node.shape[0], node.shape[2]) if len(node.shape) == 3 else (1, node.shape[0])
            widest[side] = max(widest.get(side, 0), channels)
    return widest


def _block(node: Node) -> str:
    return node.name.partition(".")[0]


def _weights(graph: Graph, node: Node) -> int:
    if not isinstance(node.op, ops.Conv | ops.Dense):
        return 0
    return prod(graph.weights_of(node)["weight"].shape)
