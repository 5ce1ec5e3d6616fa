"""Training that keeps a compressed network compressed: its zeros stay zero, and weights that are equal stay equal.

The gradient is projected onto the weights of that form: those that share a value move by the mean of their gradients,
which is the summed gradient of Han et al. 2015 ("Deep Compression", arXiv 1510.00149, section 3.3) at a learning rate
divided by the number of weights, and zeros do not move. In hashed layers (Chen et al. 2015, arXiv 1504.04788, section
4.3) gradients count with the weights' signs. So parameters, optimizers, averages and checkpoints are the usual ones.
"""

import torch
from torch import Tensor, nn

from smallcnn.module import GraphModule
from smallcnn.transform.share.hashed import Hashing, hashing_of

_MOST_VALUES = 256
_FEWEST_EQUAL = 4  # weights to a value, on average, in a layer that shares them


class Ties:
    """The zeros, shared values and hashes that the weights of a module have now."""

    def __init__(self, module: GraphModule) -> None:
        weights = [layer.weight for layer in module.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
        self._layers = [tie for weight in weights if (tie := _found(weight))]

    def project(self) -> None:
        """Makes the gradients those of the shared values; to be called before the optimizer's step."""
        for tie in self._layers:
            tie.project()

    def restore(self) -> None:
        """Makes equal again what rounding may have parted; to be called after the optimizer's step."""
        for tie in self._layers:
            tie.restore()


class _Zeros:
    """Zeros among weights that share no values."""

    def __init__(self, weight: Tensor) -> None:
        self._weight, self._kept = weight, weight.detach() != 0

    def project(self) -> None:
        if self._weight.grad is not None:
            self._weight.grad.mul_(self._kept)

    @torch.no_grad()
    def restore(self) -> None:
        self._weight.mul_(self._kept)


class _Shared:
    """Few values, of which zero stays zero."""

    def __init__(self, weight: Tensor, values: Tensor, indices: Tensor) -> None:
        self._weight, self._indices, self._zero = weight, indices, values == 0
        self._counts = torch.bincount(indices, minlength=len(values)).to(weight.dtype)

    def project(self) -> None:
        gradient = self._weight.grad
        if gradient is not None:
            gradient.copy_(self._means(gradient)[self._indices].view(gradient.shape))

    @torch.no_grad()
    def restore(self) -> None:
        self._weight.copy_(self._means(self._weight.detach())[self._indices].view(self._weight.shape))

    def _means(self, values: Tensor) -> Tensor:
        sums = torch.zeros_like(self._counts).index_add_(0, self._indices, values.reshape(-1))
        return (sums / self._counts).masked_fill(self._zero, 0)


class _Hashed:
    """Values that a hash chooses, with a sign."""

    def __init__(self, weight: Tensor, hashing: Hashing) -> None:
        places, signs = hashing.places(weight.numel())
        self._weight = weight
        self._places, self._signs = (torch.from_numpy(part).to(weight.device) for part in (places, signs))
        self._counts = torch.bincount(self._places, minlength=hashing.values).clamp(min=1).to(weight.dtype)

    def project(self) -> None:
        if self._weight.grad is not None:
            self._weight.grad.copy_(self._nearest(self._weight.grad))

    @torch.no_grad()
    def restore(self) -> None:
        self._weight.copy_(self._nearest(self._weight.detach()))

    def _nearest(self, tensor: Tensor) -> Tensor:
        sums = torch.zeros_like(self._counts).index_add_(0, self._places, tensor.reshape(-1) * self._signs)
        return ((sums / self._counts)[self._places] * self._signs).view(tensor.shape)


def _found(weight: Tensor) -> _Hashed | _Zeros | _Shared | None:
    if hashed := hashing_of(weight.detach().cpu().numpy()):
        return _Hashed(weight, hashed[0])
    values, indices = torch.unique(weight.detach().reshape(-1), return_inverse=True)
    if len(values) <= min(_MOST_VALUES, weight.numel() // _FEWEST_EQUAL):
        return _Shared(weight, values, indices)
    return _Zeros(weight) if bool((weight.detach() == 0).any()) else None
