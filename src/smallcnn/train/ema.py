"""A moving average of the weights, validated alongside the plain ones."""

import copy

import torch
from torch import Tensor

from smallcnn.module import GraphModule


class Average:
    """Exponential moving average of a module's parameters and running statistics, as a separate module.

    The decay starts low, (1 + t) / (10 + t) after t steps, so the initial weights are soon forgotten; this is the
    warm-up of TensorFlow's ExponentialMovingAverage(num_updates).
    """

    def __init__(self, module: GraphModule, decay: float) -> None:
        self.module = copy.deepcopy(module).eval().requires_grad_(False)
        self.decay = decay
        self._ours, self._theirs = _tensors(self.module), _tensors(module)

    @torch.no_grad()
    def update(self, steps: int) -> None:
        """Adds the weights after `steps` steps of training to the average."""
        decay = min(self.decay, (1 + steps) / (10 + steps))
        torch._foreach_lerp_(self._ours, self._theirs, 1 - decay)


def _tensors(module: GraphModule) -> list[Tensor]:
    return [*(parameter.data for parameter in module.parameters()), *module.buffers()]
