"""How much noise in each channel of a float network adds to its outputs."""

from collections.abc import Mapping
from math import prod

import numpy as np

from smallcnn.ir import ops
from smallcnn.ir.graph import Graph, Node
from smallcnn.transform.fold import Weights

Array = np.ndarray


def noise_gains(graph: Graph, weights: Weights, inside: Mapping[str, Array]) -> dict[str, Array]:
    """Of each node the gain (C,) of each channel: variance of the outputs over variance of the channel's noise.

    A detector's outputs are its codes and scores. The noise of all numbers is taken as independent, so gains add up
    along the ways to the outputs; through a convolution they are multiplied by the squares of its weights. `inside`
    gives for each relu, relu6 and clip the share of numbers, by channel, that pass unbounded. Other activations and
    factors count as 1.
    """
    gains: dict[str, Array] = {output.node: np.ones(graph[output.node].shape[-1]) for output in graph.outputs}
    for node in reversed(graph.nodes):
        if node.name not in gains:
            gains[node.name] = np.zeros(node.shape[-1])  # nothing reads it
        sources = [graph[name] for name in node.inputs]
        parts = _to_inputs(node, sources, gains[node.name], weights, inside)
        for source, part in zip(sources, parts, strict=True):
            gains[source.name] = gains.get(source.name, 0) + part
    return gains


def _to_inputs(
    node: Node, sources: list[Node], gain: Array, weights: Weights, inside: Mapping[str, Array]
) -> list[Array]:
    """What a node's gain (C,) adds to that of each of its inputs."""
    match node.op:
        case ops.Conv(groups=groups, out=out, stride=stride):
            squares = np.square(weights[f"{node.name}.weight"].astype(np.float64)).sum((2, 3))
            grouped = squares.reshape(groups, out // groups, -1) * gain.reshape(groups, -1, 1)
            return [grouped.sum(1).reshape(-1) / prod(stride)]
        case ops.Dense():
            return [gain @ np.square(weights[f"{node.name}.weight"].astype(np.float64))]
        case ops.Pool(function=function, kernel=kernel, stride=stride):
            return [gain / prod(stride) / (prod(kernel) if function == "average" else 1)]
        case ops.GlobalPool():
            return [gain / prod(sources[0].shape[:2]) ** 2]
        case ops.Flatten():
            return [gain.reshape(-1, sources[0].shape[-1]).mean(0)]
        case ops.Concat():
            ends = np.cumsum([source.shape[-1] for source in sources])
            return np.split(gain, ends[:-1])
        case ops.Slice(start=start, stop=stop):
            wide = np.zeros(sources[0].shape[-1])
            wide[start:stop] = gain
            return [wide]
        case ops.Rows(columns=columns):
            return [np.tile(gain, sources[0].shape[-1] // columns)]
        case ops.Detect():
            return [np.ones(source.shape[-1]) for source in sources]
        case ops.Count():
            return [np.zeros(sources[0].shape[-1])]
        case ops.Shuffle(groups=groups):
            return [gain.reshape(-1, groups).T.reshape(-1)]
        case _:
            passed = gain * inside[node.name] if node.name in inside else gain
            return [passed for _ in sources]
