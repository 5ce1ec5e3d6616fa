"""The optimizer of a recipe, with weight decay where it belongs."""

import torch
from torch import nn

from smallcnn import ops
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


def make_optimizer(recipe: Recipe, graph: Graph, module: nn.Module) -> torch.optim.Optimizer:
    """Two groups of parameters: with and without decay. The learning rate is set by the loop at every step."""
    with_decay = decayed(graph)
    named = list(module.named_parameters())
    groups = [
        {"params": [p for name, p in named if name in with_decay], "weight_decay": recipe.decay},
        {"params": [p for name, p in named if name not in with_decay], "weight_decay": 0.0},
    ]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=recipe.peak_lr, momentum=0.9, nesterov=True)
    return torch.optim.AdamW(groups, lr=recipe.peak_lr)
