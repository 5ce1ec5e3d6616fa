"""Simplifies a file's nodes into the graph: drops unused nodes and merges nodes into neighbours.

Scale and shift go into the convolution, dense layer or batch norm before them, or into the image preparation; zeros
around a map go into the padding of a convolution or of an average pool that counts its padding.
"""

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np

from smallcnn.errors import FileError
from smallcnn.foreign.entry import Entry, Reach, frontier, nothing
from smallcnn.foreign.network import Affine, Network
from smallcnn.foreign.views import Array
from smallcnn.ir import ops
from smallcnn.ir.graph import LOGITS, Graph, Node, Output, make_node


@dataclass
class _Layer:
    """A mutable node."""

    op: ops.Op
    inputs: list[str]
    weights: dict[str, Array]


@dataclass(frozen=True)
class Simplified:
    """The graph, its weights, the steps moved from its start into `entry`, and all steps `done` on the image."""

    graph: Graph
    weights: dict[str, Array]
    entry: Entry
    done: tuple[Entry, ...]


def simplify(network: Network, output: Node, name: str, reach: Reach = "channels") -> Simplified:
    """The network that ends in `output`. The first steps on the image are moved out of it as far as `reach` allows."""
    layers = {
        key: _Layer(node.op, list(node.inputs), dict(network.weights[key])) for key, node in network.nodes.items()
    }
    layers = _used(layers, output.name)
    if network.input.name not in layers:
        raise FileError("its output does not depend on the image")
    done = tuple(frontier(network, layers, output.name, "pools").values())
    entry = _move_entry(layers, network, output.name, reach)
    moved = _merge_affine(layers, network, output.name)
    end = moved.get(output.name, output.name)
    _merge_pads(layers)
    layers = _used(layers, end)
    nodes: dict[str, Node] = {}
    for key, layer in layers.items():
        nodes[key] = make_node(key, layer.op, [nodes[source] for source in layer.inputs])
    graph = Graph(name, tuple(nodes.values()), (Output(LOGITS, end),), (_features(list(nodes.values())),))
    weights = {f"{key}.{part}": value for key, layer in layers.items() for part, value in layer.weights.items()}
    return Simplified(graph, {key: weights[key] for key in graph.weights}, entry, done)


def _used(layers: dict[str, _Layer], output: str) -> dict[str, _Layer]:
    """The layers that the output depends on."""
    wanted = {output}
    for key in reversed(layers):
        if key in wanted:
            wanted.update(layers[key].inputs)
    return {key: layer for key, layer in layers.items() if key in wanted}


def _move_entry(layers: dict[str, _Layer], network: Network, output: str, reach: Reach) -> Entry:
    """The first steps on the image, removed from `layers` if a preparation can do them."""
    start = network.input.name
    ends = frontier(network, layers, output, reach)
    end, entry = next(iter(ends.items()))
    if len(ends) > 1 or end in (start, output) or not entry.movable or len(entry.channels) != network.input.shape[2]:
        return nothing(network.input.shape[2])
    for layer in layers.values():
        layer.inputs = [start if source == end else source for source in layer.inputs]
    used = _used(layers, output)
    for key in layers.keys() - used.keys():
        del layers[key]
    return entry


def _merge_affine(layers: dict[str, _Layer], network: Network, output: str) -> dict[str, str]:
    """Merges scale and shift; maps each removed node to the node that absorbed it."""
    readers = Counter(source for layer in layers.values() for source in layer.inputs)
    readers[output] += 1
    moved: dict[str, str] = {}
    for key, layer in list(layers.items()):
        layer.inputs = [moved.get(source, source) for source in layer.inputs]
        step = network.affine.get(key)
        if step is None:
            continue
        (before,) = layer.inputs
        source = layers[before]
        if readers[before] != 1:
            continue
        if not isinstance(source.op, ops.Conv | ops.Dense | ops.BatchNorm):
            continue
        _absorb(source, step, network)
        moved[key] = before
        readers[before] = readers[key]
        del layers[key]
    return moved


def _absorb(layer: _Layer, step: Affine, network: Network) -> None:
    """Merges a following scale and shift into the layer."""
    values = {key: value.astype(np.float64) for key, value in layer.weights.items()}
    network.budget.spend(sum(value.size for value in values.values()))
    scale = step.scale.reshape(-1, *[1] * (values["weight"].ndim - 1))
    changed = {"weight": values["weight"] * scale, "bias": values.get("bias", 0.0) * step.scale + step.shift}
    if not isinstance(layer.op, ops.BatchNorm):
        layer.op = replace(layer.op, bias=True)  # type: ignore[call-arg]
    for key, value in changed.items():
        with np.errstate(over="ignore"):
            layer.weights[key] = value.astype(np.float32)
        if not np.isfinite(layer.weights[key]).all():
            raise FileError("scales its weights beyond the range of float32")


def _merge_pads(layers: dict[str, _Layer]) -> None:
    for layer in layers.values():
        op = layer.op
        if not isinstance(op, ops.Conv | ops.Pool):
            continue
        source = layers[layer.inputs[0]]
        if not isinstance(source.op, ops.Pad) or min(map(min, source.op.padding)) < 0:
            continue
        rows, columns = ((a[0] + b[0], a[1] + b[1]) for a, b in zip(op.padding, source.op.padding, strict=True))
        if isinstance(op, ops.Conv):
            layer.op = replace(op, padding=(rows, columns))
        elif op.function == "average" and op.padding == ops.NO_PADDING:
            if max(*rows) >= op.kernel[0] or max(*columns) >= op.kernel[1]:
                continue  # a pool cannot absorb it
            layer.op = replace(op, padding=(rows, columns), count_padding=True)
        else:
            continue
        layer.inputs = list(source.inputs)


def _features(nodes: list[Node]) -> str:
    """The end of the backbone: the last global pool's input, or else the last map; no later node reads before it."""
    position = {node.name: i for i, node in enumerate(nodes)}
    # how far back the later nodes read
    reach = [len(nodes)] * (len(nodes) + 1)
    for i in range(len(nodes) - 1, -1, -1):
        reach[i] = min([reach[i + 1], *(position[source] for source in nodes[i].inputs)])
    ends = [node for i, node in enumerate(nodes) if len(node.shape) == 3 and reach[i + 1] >= i]
    pooled = {node.inputs[0] for node in nodes if isinstance(node.op, ops.GlobalPool)}
    planes = [node for node in ends if max(node.shape[:2]) > 1]
    best = [node for node in ends if node.name in pooled] or planes or ends  # the input is one of them
    return best[-1].name
