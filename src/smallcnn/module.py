"""Graph -> torch.nn.Module.

    model = to_module(graph, weights)          without weights: initial ones
    logits = model(images)                     (N, C, H, W) float, already normalised -> (N, classes)
    outputs = model(images)                    {name: tensor} instead, if the network has several outputs
    maps = model.forward_features(images)      (N, C, H, W)
    logits = model.forward_head(maps)          if the head reads nothing earlier

State-dict keys are `node.tensor`, the names in the graph and in the model file. Any input size the strides allow works;
the padding is the graph's. Works under torch.compile, channels_last and autocast.
"""

from collections.abc import Callable, Mapping
from typing import cast

import numpy as np

from smallcnn.errors import GraphError, MissingExtra
from smallcnn.ir.graph import Graph, Node
from smallcnn.ir.rewrite import in_order
from smallcnn.ir.types import Tensor as Stored
from smallcnn.reference.initial import check_weights, initial_weights
from smallcnn.reference.numbers import real, stored
from smallcnn.torch_layers import layer

try:
    import torch
    from torch import Tensor, nn
except ImportError as error:
    raise MissingExtra("a torch module", "train") from error


def to_module(graph: Graph, weights: Mapping[str, np.ndarray] | None = None, *, seed: int = 0) -> "GraphModule":
    """The network as a module, in training mode, float32, on the CPU.

    Raises GraphError if `weights` do not exactly match the graph; without them, the initial ones of `seed` are used.
    """
    module = GraphModule(graph)
    load_weights(module, initial_weights(graph, seed) if weights is None else weights)
    return module


def load_weights(module: "GraphModule", weights: Mapping[str, np.ndarray]) -> None:
    """Copies the weights into the module; GraphError showing both sides if they do not fit."""
    check_weights(module.graph, weights, GraphError)
    state = module.state_dict()
    tensors = module.graph.weights
    with torch.no_grad():
        for name, value in weights.items():
            tensor = tensors[name].tensor
            plain = real(tensor, value).astype(np.float32) if tensor.grid else value
            state[name].copy_(torch.from_numpy(np.require(plain, requirements=["C", "W"])))


def to_weights(module: "GraphModule") -> dict[str, np.ndarray]:
    """The state dict as contiguous arrays, each in the graph's number type, detached from the module."""
    tensors = module.graph.weights
    return {name: _stored(tensors[name].tensor, value) for name, value in module.state_dict().items()}


def _stored(tensor: Stored, value: Tensor) -> np.ndarray:
    plain = value.detach().to("cpu", torch.float32, copy=True).contiguous().numpy()
    return stored(tensor.number, tensor.grid, plain) if tensor.grid else plain


def named(graph: Graph, found: Tensor | dict[str, Tensor]) -> dict[str, Tensor]:
    """What a module of `graph` returns, as float32 tensors by output."""
    outputs = found if isinstance(found, dict) else {graph.outputs[0].name: found}
    return {name: output.float() for name, output in outputs.items()}


class GraphModule(nn.Module):
    """Runs a graph node by node. One submodule per node but the input, nested by the dots of its name.

    `make` makes the submodules, by default `layer`.
    """

    def __init__(self, graph: Graph, make: Callable[[Graph, Node], nn.Module] | None = None) -> None:
        super().__init__()
        self.graph = graph
        plan = [(node.name, node.inputs, finished) for node, finished in in_order(graph)]
        split = [name for name, _, _ in plan].index(graph.features) + 1
        self._backbone, self._head = plan[1:split], plan[split:]
        for node in graph.nodes[1:]:
            parent: nn.Module = self
            *groups, leaf = node.name.split(".")
            for group in groups:
                if group not in parent._modules:
                    _add(parent, group, nn.Module(), node)
                parent = cast(nn.Module, parent._modules[group])
            _add(parent, leaf, (make or layer)(graph, node), node)

    def forward(self, x: Tensor) -> Tensor | dict[str, Tensor]:
        """(N, C, H, W) -> the output, (N, classes) for a classifier; a dict by name if there are several."""
        values = self._run(self._head, self._run(self._backbone, {self.graph.nodes[0].name: x}))
        outputs = {output.name: values[output.node] for output in self.graph.outputs}
        return outputs if len(outputs) > 1 else next(iter(outputs.values()))

    def forward_features(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the backbone's last map, (N, C', H', W')."""
        return self._run(self._backbone, {self.graph.nodes[0].name: x})[self.graph.features]

    def forward_head(self, x: Tensor) -> Tensor:
        """The backbone's last map -> the output. Raises GraphError if there are several, or the head reads others."""
        graph = self.graph
        ends = {graph.output, *(source for name, inputs, _ in self._head for source in inputs)}
        if early := ends - {graph.features} - {name for name, _, _ in self._head}:
            raise GraphError(f"{graph.name}: its head also reads {', '.join(sorted(early))}")
        return self._run(self._head, {graph.features: x})[graph.output]

    def _run(self, plan: "list[_Step]", values: dict[str, Tensor]) -> dict[str, Tensor]:
        """Runs the steps on the values so far; those that nothing reads any more are dropped."""
        for name, inputs, finished in plan:
            values[name] = self.get_submodule(name)(*[values[source] for source in inputs])
            for source in finished:
                del values[source]
        return values


_Step = tuple[str, tuple[str, ...], tuple[str, ...]]
"""A node, its inputs, and the inputs that nothing reads after it."""


def _add(parent: nn.Module, name: str, child: nn.Module, node: Node) -> None:
    try:
        parent.add_module(name, child)
    except KeyError:
        raise GraphError(f"{node.name}: {name!r} is a name that torch.nn.Module uses itself; rename the node") from None
