"""Batch norm over the images of all processes (Ioffe and Szegedy 2015, algorithm 1, with its sums exchanged).

torch's SyncBatchNorm works on GPUs only. This works the same on any device, and a process may have no images.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from smallcnn.train.exchange import sum_over_processes


def synchronise(module: nn.Module) -> None:
    """Replaces every batch norm by `SynchronisedNorm`; parameters, buffers and names stay."""
    for parent in list(module.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
                setattr(parent, name, SynchronisedNorm(layer))


class SynchronisedNorm(nn.modules.batchnorm._BatchNorm):
    """Normalises (N, C, ...) by mean and variance over all processes in training; in evaluation, as `norm` does."""

    def __init__(self, norm: nn.BatchNorm1d | nn.BatchNorm2d) -> None:
        super().__init__(norm.num_features, norm.eps, norm.momentum)
        self._parameters, self._buffers = norm._parameters, norm._buffers
        self.train(norm.training)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, ...) -> the same shape and type."""
        if not self.training:
            return super().forward(x)
        y, mean, variance, count = _Normalise.apply(x, self.weight, self.bias, self.eps)  # type: ignore[no-untyped-call]
        momentum = cast(float, self.momentum)
        running_mean, running_var = cast(Tensor, self.running_mean), cast(Tensor, self.running_var)
        with torch.no_grad():
            running_mean.lerp_(mean, momentum)
            running_var.lerp_(variance * (count / (count - 1).clamp(min=1)), momentum)
        return cast(Tensor, y)

    def _check_input_dim(self, _x: Tensor) -> None:
        """Accepts any number of dimensions."""


class _Normalise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, ...]:
        channels, others = x.shape[1], [0, *range(2, x.dim())]
        here = x.numel() // channels
        variance, mean = torch.zeros(2, channels, dtype=torch.float64, device=x.device)
        if here:
            spread, middle = torch.var_mean(x.float(), others, correction=0)
            variance, mean = spread.double(), middle.double()
        # float64, so that subtracting the square of a large mean loses no precision
        sums = torch.cat([mean.new_tensor([1.0]), mean, variance + mean.square()]) * here
        sum_over_processes(sums)
        count = sums[0]
        mean, squares = (sums[1:] / count).chunk(2)
        variance = (squares - mean.square()).clamp(min=0).float()
        mean, count = mean.float(), count.float()
        inverse = (variance + eps).rsqrt()
        scale = weight * inverse
        y = torch.addcmul(_wide(bias - mean * scale, x), x, _wide(scale, x)).to(x.dtype)
        ctx.save_for_backward(x, weight, mean, inverse, count)
        ctx.mark_non_differentiable(mean, variance, count)
        return y, mean, variance, count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, inverse, count = ctx.saved_tensors
        others = [0, *range(2, x.dim())]
        normal = (x - _wide(mean, x)) * _wide(inverse, x)
        of_bias, of_weight = gradient.float().sum(others), (gradient * normal).sum(others)
        sums = torch.stack([of_bias, of_weight]).double()
        sum_over_processes(sums)
        shift, slope = (sums / count).float()
        of_x = (gradient - _wide(shift, x) - normal * _wide(slope, x)) * _wide(weight * inverse, x)
        return of_x.to(x.dtype), of_weight, of_bias, None


def _wide(values: Tensor, x: Tensor) -> Tensor:
    """(C,) -> (1, C, 1, ...), to broadcast with `x`."""
    return values.reshape(1, -1, *[1] * (x.dim() - 2))
