"""A node's result as it is kept: what a convolution wrote, with batch norm and activation still to be applied."""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from smallcnn.train.fast.native import Finish, Gradient, Source, at, library

PLAIN, CLIP, LEAKY, HARD_SWISH = range(4)  # native/rows.h


@dataclass(frozen=True)
class Act:
    """An activation; `low` and `high` are the limits of CLIP, `low` is the slope of LEAKY."""

    kind: int = PLAIN
    low: float = 0.0
    high: float = 0.0


IDENTITY = Act()


@dataclass(eq=False)
class Value:
    """act(scale * raw + shift). `wanted`: its gradient is; `readers` have yet to contribute to it."""

    raw: Tensor
    wanted: bool
    act: Act = IDENTITY
    scale: Tensor | None = None
    shift: Tensor | None = None
    norm: "Norm | None" = None
    bias: nn.Parameter | None = None
    readers: int = 0
    grad: Tensor | None = None
    """Of the value, from the readers so far; after the last one dz, that of the activation's input."""
    sums: Tensor | None = None
    written: Tensor | None = None
    _source: Source | None = field(default=None, repr=False)

    @property
    def is_plain(self) -> bool:
        """Whether raw is the value."""
        return self.act.kind == PLAIN and self.scale is None

    @property
    def gradient_of_raw(self) -> Tensor:
        """`grad` once all have contributed, of a value without batch norm."""
        assert self.grad is not None
        return self.grad

    @property
    def rows(self) -> int:
        """Pixels of all pictures."""
        return self.raw.numel() // self.channels

    @property
    def channels(self) -> int:
        """Of each row."""
        return self.raw.shape[1]

    @property
    def source(self) -> Source:
        """For kernels that read it."""
        if self._source is None:
            act = self.act
            self._source = Source(at(self.raw), at(self.scale), at(self.shift), act.low, act.high, act.kind)
        return self._source

    def finish(self, parts: int) -> Finish:
        """For a kernel that contributes to the gradient and, if it is the last, makes dz of it."""
        self.readers -= 1
        finish = Finish()
        finish.addend = at(self.grad)
        if not self.readers and not self.is_plain:
            finish.value = self.source
            if self.norm or self.bias is not None:
                mean = self.norm.mean if self.norm else self.shift
                self.sums = torch.empty(parts, 2, self.channels, dtype=torch.float64)
                finish.mean, finish.sums = at(mean), at(self.sums)
        return finish

    def gradient(self, gradients: dict[nn.Parameter, Tensor]) -> Gradient:
        """That of raw, for kernels, once `grad` is dz; records those of batch norm or the bias."""
        gradient = Gradient()
        gradient.dz = at(self.grad)
        if self.norm:
            c = self.norm.backward(self, gradients)
            gradient.data, gradient.c0 = at(self.raw), at(c[0])
            if not self.norm.frozen:
                gradient.c1, gradient.c2 = at(c[1]), at(c[2])
        elif self.bias is not None and self.bias.requires_grad:
            assert self.sums is not None
            gradients[self.bias] = self.sums[:, 0].sum(0).float()
        return gradient


@dataclass(eq=False)
class Norm:
    """Batch norm of one value, by the batch's statistics or, `frozen`, the running ones."""

    layer: nn.BatchNorm2d
    frozen: bool
    mean: Tensor
    inverse: Tensor
    coefficients: Tensor | None = None

    def backward(self, value: Value, gradients: dict[nn.Parameter, Tensor]) -> Tensor:
        """(3, channels): c0, c1, c2 of native/rows.h; records the gradients of scale and shift."""
        sums = value.sums
        assert sums is not None
        to_gamma, to_beta = torch.empty_like(self.mean), torch.empty_like(self.mean)
        c = self.coefficients = torch.empty(3, value.channels)
        library().fast_norm_backward(
            *(len(sums), value.channels, value.rows, at(sums), at(self.mean), at(self.inverse), at(value.scale)),
            *(self.frozen, at(to_gamma), at(to_beta), at(c[0]), at(c[1]), at(c[2])),
        )
        for parameter, of_it in ((self.layer.weight, to_gamma), (self.layer.bias, to_beta)):
            if parameter.requires_grad:
                gradients[parameter] = of_it
        return c
