"""Simplifies a file's nodes into the graph: drops unused nodes and merges nodes into neighbours.

Scale and shift go into the convolution, dense layer or batch norm before them, or into the image preparation; zeros
around a map go into the padding of a convolution or of an average pool that counts its padding.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from smallcnn.errors import FileError
from smallcnn.foreign.channel_scales import without_channel_scales
from smallcnn.foreign.entry import Entry, Reach, frontier, nothing
from smallcnn.foreign.network import Affine, Network
from smallcnn.foreign.views import Array
from smallcnn.ir import ops
from smallcnn.ir.graph import Graph, Node, Output
from smallcnn.ir.rewrite import only_reader, rewrite

_Weights = dict[str, Array]


@dataclass(frozen=True)
class Simplified:
    """The graph, its weights, the steps moved from its start into `entry`, and all steps `done` on the image."""

    graph: Graph
    weights: _Weights
    entry: Entry
    done: tuple[Entry, ...]


def simplify(network: Network, outputs: Mapping[str, Node], name: str, reach: Reach = "channels") -> Simplified:
    """The network that ends in `outputs`. The first steps on the image are moved out of it as far as `reach` allows."""
    graph = _used(network, outputs, name)
    ends = {output.node for output in graph.outputs}
    wanted = [node.name for node in graph]
    done = tuple(frontier(network, wanted, ends, "pools").values())
    graph, entry = _without_entry(graph, network, frontier(network, wanted, ends, reach))
    by_node = {node.name: network.weights[node.name] for node in graph}
    graph, by_node = without_channel_scales(graph, network.affine, by_node)
    graph, weights = _without_affine(graph, network, by_node)
    graph = without_pads(graph)
    graph = replace(graph, taps=(features_of(graph.nodes),))
    return Simplified(graph, {key: weights[key] for key in graph.weights}, entry, done)


def _used(network: Network, outputs: Mapping[str, Node], name: str) -> Graph:
    """The nodes that the outputs depend on; every node is a tap until the end of the features is known."""
    wanted = {node.name for node in outputs.values()}
    for node in reversed(network.nodes.values()):
        if node.name in wanted:
            wanted.update(node.inputs)
    if network.input.name not in wanted:
        raise FileError("its output does not depend on the image")
    nodes = tuple(node for node in network.nodes.values() if node.name in wanted)
    ends = tuple(Output(called, node.name) for called, node in outputs.items())
    return Graph(name, nodes, ends, tuple(node.name for node in nodes))


def _without_entry(graph: Graph, network: Network, ends: Mapping[str, Entry]) -> tuple[Graph, Entry]:
    """The graph without the first steps on the image, if a preparation can do them, and these steps."""
    end, entry = next(iter(ends.items()))
    fixed = {network.input.name, *(output.node for output in graph.outputs)}
    if len(ends) > 1 or end in fixed or not entry.movable or len(entry.channels) != network.input.shape[2]:
        return graph, nothing(network.input.shape[2])
    steps = {end}
    for node in reversed(graph.nodes):
        if node.name in steps:
            steps.update(node.inputs)
    return rewrite(graph, without=steps - {network.input.name}), entry


def _without_affine(graph: Graph, network: Network, by_node: Mapping[str, _Weights]) -> tuple[Graph, _Weights]:
    """Scale and shift merged into the layers before them."""
    weights = {node.name: dict(by_node[node.name]) for node in graph}
    merged: dict[str, str] = {}
    changed: dict[str, ops.Op] = {}
    for node in graph:
        step = network.affine.get(node.name)
        if step is None or only_reader(graph, graph[node.inputs[0]]) != node:
            continue
        layer = graph[merged.get(node.inputs[0], node.inputs[0])]
        if not isinstance(layer.op, ops.Conv | ops.Dense | ops.BatchNorm):
            continue
        if _on_grid(layer.op) and (step.scale != 1).any():
            continue
        weights[layer.name] = _absorbed(weights[layer.name], step, network)
        if not isinstance(layer.op, ops.BatchNorm):
            changed[layer.name] = replace(layer.op, bias=True)
        merged[node.name] = layer.name
    flat = {f"{name}.{key}": value for name, own in weights.items() for key, value in own.items()}
    return rewrite(graph, ops=changed, without=merged), flat


def _on_grid(op: ops.Op) -> bool:
    return isinstance(op, ops.Conv | ops.Dense) and op.grid is not None


def _absorbed(own: _Weights, step: Affine, network: Network) -> _Weights:
    """A layer's weights with a following scale and shift merged into them."""
    values = {key: value.astype(np.float64) for key, value in own.items()}
    network.budget.spend(sum(value.size for value in values.values()))
    scale = step.scale.reshape(-1, *[1] * (values["weight"].ndim - 1))
    changed = {"weight": values["weight"] * scale} if (scale != 1).any() else {}
    changed |= {"bias": values.get("bias", 0.0) * step.scale + step.shift}
    with np.errstate(over="ignore"):
        stored = {key: value.astype(np.float32) for key, value in changed.items()}
    if not all(np.isfinite(value).all() for value in stored.values()):
        raise FileError("scales its weights beyond the range of float32")
    return own | stored


def without_pads(graph: Graph) -> Graph:
    """Zeros around a map merged into the operators that read it, if all of them can."""
    changed: dict[str, ops.Op] = {}
    gone = []
    ends = {output.node for output in graph.outputs}
    for node in graph:
        if isinstance(node.op, ops.Pad) and min(map(min, node.op.padding)) >= 0 and node.name not in ends:
            padded = {reader.name: _padded(reader.op, node.op) for reader in graph.consumers[node.name]}
            whole = {name: op for name, op in padded.items() if op is not None}
            if whole.keys() == padded.keys():
                changed |= whole
                gone.append(node.name)
    return rewrite(graph, ops=changed, without=gone)


def _padded(op: ops.Op, pad: ops.Pad) -> ops.Op | None:
    """The operator that pads its input like `pad` itself; None if there is none."""
    if not isinstance(op, ops.Conv | ops.Pool):
        return None
    rows, columns = ((a[0] + b[0], a[1] + b[1]) for a, b in zip(op.padding, pad.padding, strict=True))
    if isinstance(op, ops.Conv):
        return replace(op, padding=(rows, columns))
    if op.function == "max" or op.padding != ops.NO_PADDING:
        return None
    if max(rows) >= op.kernel[0] or max(columns) >= op.kernel[1]:
        return None
    return replace(op, padding=(rows, columns), count_padding=True)


def features_of(nodes: tuple[Node, ...]) -> str:
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
