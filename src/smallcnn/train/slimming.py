"""Network slimming (Liu et al. 2017, arXiv 1708.06519): an L1 penalty on the scales of batch norms.

Its subgradient, the strength times the sign of each scale, is added to the gradient of the loss. So optimizers, chunks,
processes and checkpoints are the usual ones; the loss that a run prints is without the penalty.
"""

import torch

from smallcnn.errors import DataError
from smallcnn.ir.graph import Graph
from smallcnn.module import GraphModule
from smallcnn.transform.prune.scales import deciding


def check(graph: Graph, quantize: bool) -> None:
    """Raises DataError if the network is not trained with such norms."""
    if quantize:
        raise DataError("--sparsity is not for quantization-aware training, which has no batch norm")
    if not deciding(graph):
        raise DataError(f"{graph.name} has no batch norm of channels that can be removed; train it without --sparsity")


class Slimming:
    """The penalty on those norms of a module that say how much a channel counts (`deciding`)."""

    def __init__(self, module: GraphModule, strength: float) -> None:
        self._scales = [module.get_submodule(name).get_parameter("weight") for name in deciding(module.graph)]
        self._strength = strength

    @torch.no_grad()
    def add(self) -> None:
        """Adds the subgradient; to be called before the optimizer's step. Scales that do not learn stay."""
        for scale in self._scales:
            if scale.grad is not None:
                scale.grad.add_(scale.sign(), alpha=self._strength)
