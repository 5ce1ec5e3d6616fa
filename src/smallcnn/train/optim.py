"""The optimizer of a recipe: which weights decay, and a learning rate per block."""

from collections.abc import Iterable

import torch
from torch import nn

from smallcnn.ir import ops
from smallcnn.ir.graph import Graph, Node
from smallcnn.train.recipe import Recipe
from smallcnn.transform.adapt import classifier


def decayed(graph: Graph) -> set[str]:
    """Weights subject to weight decay: convolutions and dense layers, but not depthwise convolutions.

    MobileNet v1, section 3.2: "very little or no weight decay (l2 regularization) on the depthwise filters".
    """
    names = set()
    for node in graph:
        depthwise = graph.is_depthwise(node)
        if isinstance(node.op, ops.Conv | ops.Dense) and not depthwise:
            names.add(f"{node.name}.weight")
    return names


def head(graph: Graph) -> set[str]:
    """The weights of the last layer; of a network with several outputs, all that follow the backbone.

    Raises GraphError if the only output is not a classifier's.
    """
    if len(graph.outputs) > 1:
        names = [node.name for node in graph]
        return _weights(graph, graph.nodes[names.index(graph.features) + 1 :])
    return _weights(graph, [classifier(graph)])


def depth(graph: Graph) -> dict[str, int]:
    """Number of blocks between each weight and the output; weights of a block share the first word of their names.

    The head of a network with several outputs is one block.
    """
    one = head(graph) if len(graph.outputs) > 1 else set()
    block = {name: "" if name in one else name.split(".")[0] for name in graph.weights}
    order = list(dict.fromkeys(block.values()))
    return {name: len(order) - 1 - order.index(block[name]) for name in graph.weights}


def _weights(graph: Graph, nodes: Iterable[Node]) -> set[str]:
    return {f"{node.name}.{key}" for node in nodes for key in graph.weights_of(node)}


def make_optimizer(recipe: Recipe, graph: Graph, module: nn.Module) -> torch.optim.Optimizer:
    """Groups parameters by weight decay and by `factor` of the learning rate, which the loop sets at every step.

    Parameters that are no weights of the graph, scales of activations, do not decay and have a factor of 1.

    The last layer has its own groups: fused optimizers require all members of a group to start at the same step.
    """
    with_decay, behind, last = decayed(graph), depth(graph), head(graph)
    groups: dict[tuple[float, float, bool], list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        key = (recipe.decay if name in with_decay else 0.0, recipe.layer_decay ** behind.get(name, 0), name in last)
        groups.setdefault(key, []).append(parameter)
    parameters = [
        {"params": members, "weight_decay": decay, "factor": factor} for (decay, factor, _), members in groups.items()
    ]
    first = recipe.momentum
    match recipe.optimizer:
        case "sgd":
            return torch.optim.SGD(parameters, lr=recipe.peak_lr, momentum=first, nesterov=first > 0, fused=True)
        case "adam":
            return torch.optim.Adam(parameters, lr=recipe.peak_lr, betas=(first, 0.999), fused=True)
        case "adamw":
            return torch.optim.AdamW(parameters, lr=recipe.peak_lr, betas=(first, 0.999), fused=True)
        case "rmsprop":  # TensorFlow-Slim's: decay 0.9, epsilon 1
            return torch.optim.RMSprop(parameters, lr=recipe.peak_lr, momentum=first, alpha=0.9, eps=1.0)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Sets the learning rate of the next step; each group multiplies it by its factor."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["factor"]


def freeze_body(graph: Graph, module: nn.Module, frozen: bool) -> None:
    """Freezes all but the last layer, or unfreezes all. Raises GraphError if the network ends in no classifier."""
    last = head(graph)
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(not frozen or name in last)
