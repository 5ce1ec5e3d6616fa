"""A node's stored result: a convolution's raw output, with batch norm and activation still to be applied."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from smallcnn.train.exchange import sum_over_processes
from smallcnn.train.fast.native import Finish, Gradient, Source, at
from smallcnn.train.sync_norm import SynchronisedNorm

if TYPE_CHECKING:
    from smallcnn.train.fast.program import Program

BatchNorm = nn.BatchNorm2d | SynchronisedNorm
PLAIN, CLIP, LEAKY, HARD_SWISH = range(4)  # native/rows.h


@dataclass(frozen=True)
class Act:
    """An activation; `low` and `high` are the bounds of CLIP, `low` is the slope of LEAKY."""

    kind: int = PLAIN
    low: float = 0.0
    high: float = 0.0


IDENTITY = Act()


@dataclass(eq=False)
class Value:
    """act(scale * raw + shift). `wanted`: its gradient is needed; `readers` counts gradient contributions to come."""

    raw: Tensor
    wanted: bool
    act: Act = IDENTITY
    scale: Tensor | None = None
    shift: Tensor | None = None
    norm: "Norm | None" = None
    bias: nn.Parameter | None = None
    readers: int = 0
    grad: Tensor | None = None
    """Gradient of the value from the readers so far; after the last one, dz: that of the activation's input."""
    sums: Tensor | None = None
    written: Tensor | None = None
    _source: Source | None = field(default=None, repr=False)

    @property
    def is_plain(self) -> bool:
        """Whether the value equals raw."""
        return self.act.kind == PLAIN and self.scale is None

    @property
    def gradient_of_raw(self) -> Tensor:
        """`grad` after all contributions, for a value without batch norm."""
        assert self.grad is not None
        return self.grad

    @property
    def rows(self) -> int:
        """Number of pixels over all images."""
        return self.raw.numel() // self.channels

    @property
    def channels(self) -> int:
        """Channels of each row."""
        return self.raw.shape[1]

    @property
    def source(self) -> Source:
        """The value as an operand of a kernel."""
        if self._source is None:
            act = self.act
            self._source = Source(at(self.raw), at(self.scale), at(self.shift), act.low, act.high, act.kind)
        return self._source

    def finish(self, program: "Program") -> Finish:
        """The operand of a kernel that contributes to the gradient and, if it is the last, turns it into dz."""
        self.readers -= 1
        finish = Finish()
        finish.addend = at(self.grad)
        if not self.readers and not self.is_plain:
            finish.value = self.source
            if self.norm or self.bias is not None:
                mean = self.norm.mean if self.norm else self.shift
                self.sums = program.sums(self.channels)
                finish.mean, finish.sums = at(mean), at(self.sums)
        return finish

    def gradient(self, program: "Program") -> Gradient:
        """The gradient of raw as an operand, once `grad` is dz; records the gradients of batch norm or bias."""
        gradient = Gradient()
        gradient.dz = at(self.grad)
        if self.norm:
            c = self.norm.backward(self, program)
            gradient.data, gradient.c0 = at(self.raw), at(c[0])
            if not self.norm.frozen:
                gradient.c1, gradient.c2 = at(c[1]), at(c[2])
        elif self.bias is not None and self.bias.requires_grad:
            assert self.sums is not None
            sums = self.sums
            (total,) = program.vectors(1, self.channels)
            program.call(lambda: total.copy_(sums[:, 0].sum(0)))
            program.gradients[self.bias] = total
        return gradient


@dataclass(eq=False)
class Norm:
    """Batch norm of one value, with batch statistics or, if `frozen`, running ones."""

    layer: BatchNorm
    frozen: bool
    mean: Tensor
    inverse: Tensor

    def backward(self, value: Value, program: "Program") -> tuple[Tensor, ...]:
        """c0, c1, c2 of native/rows.h; records the gradients of scale and shift."""
        assert value.sums is not None
        to_gamma, to_beta, *c = program.vectors(5, value.channels)
        own = everyones = program.totals(value, value.sums)
        if isinstance(self.layer, SynchronisedNorm) and not self.frozen:
            everyones = program.memory.keep(torch.empty_like(own))
            program.call(everyones.copy_, own)
            program.call(sum_over_processes, everyones)
        program.call(
            *("fast_norm_backward", value.channels, at(own), at(everyones), at(self.mean), at(self.inverse)),
            *(at(value.scale), self.frozen, at(to_gamma), at(to_beta), *map(at, c)),
        )
        for parameter, gradient in ((self.layer.weight, to_gamma), (self.layer.bias, to_beta)):
            if parameter.requires_grad:
                program.gradients[parameter] = gradient
        return tuple(c)
