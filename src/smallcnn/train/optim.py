"""The optimizer of a recipe: weight decay where it belongs, learning rates that differ from block to block."""

import torch
from torch import nn

from smallcnn import ops
from smallcnn.adapt import classifier
from smallcnn.graph import Graph
from smallcnn.train.recipe import Recipe


def decayed(graph: Graph) -> set[str]:
    """Weights that weight decay acts on: convolutions and dense layers, but not depthwise ones.

    MobileNet v1, section 3.2: "very little or no weight decay (l2 regularization) on the depthwise filters".
    """
    names = set()
    for node in graph:
        depthwise = isinstance(node.op, ops.Conv) and node.op.is_depthwise(*graph.input_shapes(node))
        if isinstance(node.op, ops.Conv | ops.Dense) and not depthwise:
            names.add(f"{node.name}.weight")
    return names


def head(graph: Graph) -> set[str]:
    """The weights of the last layer. Raises GraphError if the network does not end in a classifier."""
    last = classifier(graph)
    return {f"{last.name}.{key}" for key in graph.weights_of(last)}


def depth(graph: Graph) -> dict[str, int]:
    """How many blocks lie between each weight and the end; a block is what shares the first word of its name."""
    order = list(dict.fromkeys(name.split(".")[0] for name in graph.weights))
    return {name: len(order) - 1 - order.index(name.split(".")[0]) for name in graph.weights}


def make_optimizer(recipe: Recipe, graph: Graph, module: nn.Module) -> torch.optim.Optimizer:
    """Groups of parameters by weight decay and by `factor` of the learning rate, which the loop sets at every step.

    The last layer is in groups of its own: fused optimizers want all members of a group to begin at the same step.
    """
    with_decay, behind, last = decayed(graph), depth(graph), head(graph)
    groups: dict[tuple[float, float, bool], list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        key = (recipe.decay if name in with_decay else 0.0, recipe.layer_decay ** behind[name], name in last)
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
    """The learning rate of the next step, each group with its factor."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["factor"]


def freeze_body(graph: Graph, module: nn.Module, frozen: bool) -> None:
    """Lets only the last layer learn, or all. Raises GraphError if the network does not end in a classifier."""
    last = head(graph)
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(not frozen or name in last)
