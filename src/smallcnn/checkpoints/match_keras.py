"""Matches Keras weights with automatic names (conv2d_17) to a network: by kind, in order.

These names count the layers of a kind that a program had made before and carry no position. So the file's convolutions
map to the network's in execution order, and likewise depthwise convolutions, batch norms and dense layers; every shape
must fit.
"""

import re
from collections import defaultdict, deque
from collections.abc import Mapping
from typing import Literal

import numpy as np

from smallcnn.checkpoints.layouts.layout import KERAS
from smallcnn.checkpoints.match_names import check_variances
from smallcnn.errors import FileError
from smallcnn.ir import ops
from smallcnn.ir.graph import Graph, Node
from smallcnn.reference.initial import initial_weights

Tensors = Mapping[str, np.ndarray]
Kind = Literal["convolutions", "depthwise convolutions", "batch norms", "dense layers"]

_AUTOMATIC = re.compile(r"((?:(?:depthwise_|separable_)?conv2d|batch_normalization|dense)(?:_v1)?)(?:_(\d+))?")


def is_automatic(tensors: Tensors) -> bool:
    """Whether the layers have Keras' automatic names."""
    layers = {name.rpartition("/")[0] for name in tensors}
    return bool(layers) and all(_AUTOMATIC.fullmatch(layer) for layer in layers)


def numbered(tensors: Tensors) -> dict[str, np.ndarray]:
    """The tensors sorted by the numbers in their automatic names, for files that sort names as text."""

    def place(name: str) -> tuple[str, int]:
        match = _AUTOMATIC.fullmatch(name.rpartition("/")[0])
        assert match is not None
        return match[1], int(match[2] or 0)

    return {name: tensors[name] for name in sorted(tensors, key=place)}


def keras_ends(tensors: Tensors) -> tuple[int, int | None, bool]:
    """The channels of the image, the classes if there is a dense layer, and whether convolutions have a bias."""
    kernels = {name: value for name, value in tensors.items() if name.endswith("/kernel")}
    first = next((name for name, value in kernels.items() if value.ndim == 4), None)
    if first is None:
        raise FileError("has no convolution")
    dense = [value.shape[1] for value in kernels.values() if value.ndim == 2]
    bias = f"{first.removesuffix('/kernel')}/bias" in tensors
    return int(kernels[first].shape[2]), int(dense[-1]) if dense else None, bias


def by_kind(graph: Graph, tensors: Tensors, *, fresh_head: bool = False) -> tuple[dict[str, np.ndarray], list[str]]:
    """Our weights by name, and the fresh layers: with `fresh_head`, the dense layers that the file lacks.

    Raises FileError at the first layer that does not fit, and if there are too few or too many.
    """
    layers: dict[str, dict[str, np.ndarray]] = defaultdict(dict)
    for name, value in tensors.items():
        layer, _, key = name.rpartition("/")
        layers[layer][key] = value
    queues: dict[Kind, deque[tuple[str, dict[str, np.ndarray]]]] = defaultdict(deque)
    for layer, own in layers.items():
        for kind, part in _parts(layer, own):
            queues[kind].append((layer, part))
    weights: dict[str, np.ndarray] = {}
    fresh: list[str] = []
    for node in graph:
        if graph.weights_of(node):
            kind = _kind(graph, node)
            if not queues[kind] and fresh_head and kind == "dense layers":
                fresh.append(node.name)
                continue
            if not queues[kind]:
                raise FileError(f"does not fit {graph.name}: the file has no {kind} left for {node.name}")
            weights |= _laid(graph, node, *queues[kind].popleft())
    if left := [f"{len(queue)} {kind}" for kind, queue in queues.items() if queue]:
        raise FileError(f"does not fit {graph.name}: the file has {' and '.join(left)} left over")
    if fresh_head and not fresh:
        raise FileError("it has the whole network, including the head: drop --fresh-head")
    check_variances(weights)
    initial = initial_weights(graph) if fresh else {}
    values = {name: np.ascontiguousarray(weights.get(name, initial.get(name)), np.float32) for name in graph.weights}
    return values, fresh


def _parts(layer: str, own: dict[str, np.ndarray]) -> list[tuple[Kind, dict[str, np.ndarray]]]:
    """The layers in one layer of the file; a separable convolution is two."""
    if "pointwise_kernel" in own and "depthwise_kernel" in own:
        bias = {"bias": own["bias"]} if "bias" in own else {}
        return [
            ("depthwise convolutions", {"depthwise_kernel": own["depthwise_kernel"]}),
            ("convolutions", {"kernel": own["pointwise_kernel"]} | bias),
        ]
    if "depthwise_kernel" in own:
        return [("depthwise convolutions", own)]
    if "kernel" in own:
        return [("dense layers" if own["kernel"].ndim == 2 else "convolutions", own)]
    if "moving_mean" in own:
        size = own["moving_mean"].shape
        return [("batch norms", {"gamma": np.ones(size), "beta": np.zeros(size)} | own)]
    raise FileError(f"the layer {layer!r} with {', '.join(own)} is of an unsupported kind")


def _kind(graph: Graph, node: Node) -> Kind:
    if isinstance(node.op, ops.BatchNorm):
        return "batch norms"
    if isinstance(node.op, ops.Dense):
        return "dense layers"
    depthwise = graph.is_depthwise(node)
    return "depthwise convolutions" if depthwise else "convolutions"


def _laid(graph: Graph, node: Node, layer: str, own: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    names = KERAS.tensors(graph, node)
    if set(names.values()) != set(own):
        ours = ", ".join(names.values())
        raise FileError(f"does not fit {graph.name}: {node.name} has {ours}, the file's {layer} {', '.join(own)}")
    weights = {}
    for key, theirs in names.items():
        value = KERAS.ours(graph, node, key, own[theirs])
        if value.shape != graph.weights[f"{node.name}.{key}"].shape:
            raise FileError(
                f"does not fit {graph.name}: {layer}/{theirs} is {own[theirs].shape}; {node.name}.{key} needs "
                f"{graph.weights[f'{node.name}.{key}'].shape}"
            )
        weights[f"{node.name}.{key}"] = value
    return weights
