"""Layouts: how one origin names and stores the weights of one network and prepares its images.

A layout's rules turn the name of each of our nodes with weights into the origin's name of that layer. A pattern such as
"block{i}.expand.conv" stands for every number i; the result is a format string or a function of those numbers.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from smallcnn.checkpoints.read import Tensors
from smallcnn.errors import FileError
from smallcnn.image.resample import Interpolation
from smallcnn.ir import ops
from smallcnn.ir.graph import Graph, Node

Rules = Mapping[str, str | Callable[..., str]]


@dataclass(frozen=True)
class Scheme:
    """How one framework names and stores the tensors of a layer.

    `tensors` gives, for a node, our tensor names with theirs; `ours` turns a stored array into our layout.
    """

    separator: str
    tensors: Callable[[Graph, Node], dict[str, str]]
    ours: Callable[[Graph, Node, str, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Layout:
    """One origin's form of one network.

    `implies` are network options that these weights need; `extra` are additional tensors a file may have, as regular
    expressions; `renamed` are other names that files use for a layer; `zero` are our tensors that the origin's network
    lacks. `blue_first` means its images have channels in the order blue, green, red. With `same_names`, nodes without
    a rule keep our names.
    """

    origin: str
    model: str
    rules: Rules
    scheme: Scheme
    implies: dict[str, Any] = field(default_factory=dict)
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    crop: float = 0.875
    interpolation: Interpolation = "bilinear"
    extra: tuple[str, ...] = ()
    renamed: Mapping[str, str] = field(default_factory=dict)
    zero: tuple[str, ...] = ()
    blue_first: bool = False
    same_names: bool = False

    def names(self, graph: Graph) -> dict[str, dict[str, str]]:
        """For each node with weights, in order, our tensor names with the origin's full names.

        Raises FileError if the graph has layers that the origin's network lacks.
        """
        patterns = [(_compiled(pattern), name) for pattern, name in self.rules.items()]
        found = {}
        for node in graph:
            if graph.weights_of(node):
                layer = self._layer(node.name, patterns)
                tensors = self.scheme.tensors(graph, node)
                found[node.name] = {
                    key: f"{layer}{self.scheme.separator}{theirs}"
                    for key, theirs in tensors.items()
                    if f"{node.name}.{key}" not in self.zero
                }
        return found

    def of_file(self, tensors: Tensors) -> Tensors:
        """The file's tensors under this layout's names, without those outside the network."""
        separator = self.scheme.separator
        kept = {}
        for name, value in tensors.items():
            layer, _, tensor = name.rpartition(separator)
            if not any(re.fullmatch(pattern, name) for pattern in self.extra):
                kept[f"{self.renamed[layer]}{separator}{tensor}" if layer in self.renamed else name] = value
        return kept

    def _layer(self, node: str, patterns: list[tuple[re.Pattern[str], str | Callable[..., str]]]) -> str:
        for pattern, name in patterns:
            if match := pattern.fullmatch(node):
                numbers = {key: int(value) for key, value in match.groupdict().items()}
                return name.format(**numbers) if isinstance(name, str) else name(**numbers)
        if self.same_names:
            return node
        raise FileError(f"{self.origin}'s {self.model} has no {node}, which an option of the model requires")


def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\\{(\w)\\}", r"(?P<\1>[0-9]+)", re.escape(pattern)))


def _torch_tensors(graph: Graph, node: Node) -> dict[str, str]:
    return {key: key for key in graph.weights_of(node)}


def torch_array(graph: Graph, node: Node, key: str, value: np.ndarray) -> np.ndarray:
    """Converts a PyTorch array: dense layers may be 1x1 convolutions there, and read maps flattened channels first."""
    if not (isinstance(node.op, ops.Dense) and key == "weight"):
        return value
    if value.ndim == 4 and value.shape[2:] == (1, 1):
        value = value[:, :, 0, 0]
    source = graph[node.inputs[0]]
    while isinstance(source.op, ops.Dropout | ops.Activation):
        source = graph[source.inputs[0]]
    if isinstance(source.op, ops.Flatten) and value.size and value.shape[1:] == source.shape:
        height, width, channels = graph[source.inputs[0]].shape
        value = value.reshape(-1, channels, height, width).transpose(0, 2, 3, 1).reshape(len(value), -1)
    return value


_NORM = {"weight": "gamma", "bias": "beta"}


def _keras_tensors(graph: Graph, node: Node) -> dict[str, str]:
    if isinstance(node.op, ops.BatchNorm):
        return _NORM | {"running_mean": "moving_mean", "running_var": "moving_variance"}
    depthwise = graph.is_depthwise(node)
    weight = "depthwise_kernel" if depthwise else "kernel"
    return {key: {"weight": weight}.get(key, key) for key in graph.weights_of(node)}


def _keras_ours(graph: Graph, node: Node, key: str, value: np.ndarray) -> np.ndarray:
    """Kernels are (height, width, in, out), depthwise ones (height, width, channels, 1), dense ones (in, out)."""
    if isinstance(node.op, ops.BatchNorm) or key != "weight":
        return value
    if isinstance(node.op, ops.Conv) and value.ndim == 4:
        depthwise = graph.is_depthwise(node)
        return value.transpose(2, 3, 0, 1) if depthwise else value.transpose(3, 2, 0, 1)
    if isinstance(node.op, ops.Dense) and value.ndim >= 2 and value.size:
        return value.reshape(-1, value.shape[-1]).T
    return value


def _gluon_tensors(graph: Graph, node: Node) -> dict[str, str]:
    norm = isinstance(node.op, ops.BatchNorm)
    return {key: _NORM.get(key, key) if norm else key for key in graph.weights_of(node)}


TORCH = Scheme(".", _torch_tensors, torch_array)
KERAS = Scheme("/", _keras_tensors, _keras_ours)
GLUON = Scheme("_", _gluon_tensors, torch_array)

PYTORCH = {"padding": "symmetric", "epsilon": 1e-5}
TENSORFLOW = {"padding": "same", "epsilon": 0.001}
"""Network options as in its PyTorch and its TensorFlow code."""

INCEPTION: dict[str, Any] = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
"""Pixels in -1..1, as in TensorFlow's code; the others subtract ImageNet's mean colour."""


def conv_bn(ours: str, conv: str, bn: str) -> dict[str, str]:
    """Rules for the convolution and the batch norm of `Builder.conv_bn`."""
    return {f"{ours}.conv": conv, f"{ours}.bn": bn}


def stages(*repeats: int) -> Callable[[int], tuple[int, int]]:
    """Block number from 1 -> (stage from 0, place in it from 0), for stages of these lengths."""
    places = [(stage, i) for stage, count in enumerate(repeats) for i in range(count)]
    return lambda block: places[block - 1]
