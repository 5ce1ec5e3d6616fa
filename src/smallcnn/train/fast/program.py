"""A network for one batch shape as two lists of calls, forward and backward, with all memory laid out.

Deciding in Python what to call next took a fifth of a small network's step, as the kernels in between empty the caches.
A program decides once, and then only makes the calls.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from smallcnn.train.fast.memory import Memory
from smallcnn.train.fast.native import at, library
from smallcnn.train.fast.values import PLAIN, Value


class Program:
    """Records the calls of the steps, first forward, then backward; tensors keep their addresses for good.

    Memory that a backward step has read for the last time is reused by the steps after it.
    """

    def __init__(self) -> None:
        self.memory = Memory()
        self.parts = torch.get_num_threads()
        self.values: dict[str, Value] = {}
        self.gradients: dict[nn.Parameter, Tensor] = {}
        self.tapes: dict[str, tuple[list[Tensor], list[nn.Parameter], list[Tensor]]] = {}
        self.forward: list[tuple[Callable[..., object], tuple[Any, ...]]] = []
        self.backward: list[tuple[Callable[..., object], tuple[Any, ...]]] = []
        self.turned = False
        """Whether all forward steps are recorded."""

    def call(self, function: Callable[..., object] | str, *arguments: object) -> None:
        """Adds a call of a kernel, by its name, or of any other function."""
        called = getattr(library(), function) if isinstance(function, str) else function
        (self.backward if self.turned else self.forward).append((called, arguments))

    def vectors(self, count: int, channels: int) -> tuple[Tensor, ...]:
        """`count` vectors of `channels` values, kept for good."""
        return self.memory.keep(torch.empty(count, channels)).unbind()

    def sums(self, channels: int) -> Tensor:
        """A float64 tensor (parts, 2, channels) for the kernels' sums over the batch."""
        return self.memory.keep(torch.empty(self.parts, 2, channels, dtype=torch.float64))

    def totals(self, value: Value, sums: Tensor) -> Tensor:
        """Records the addition of the kernels' sums over `value`: count of rows, then two sums per channel."""
        totals = self.memory.keep(torch.empty(1 + 2 * value.channels, dtype=torch.float64))
        self.call("fast_total", self.parts, value.channels, value.rows, at(sums), at(totals))
        return totals

    def read(self, name: str) -> Value:
        """The value of a node, for a step that will contribute to its gradient."""
        value = self.values[name]
        value.readers += 1
        return value

    def written(self, value: Value) -> Tensor:
        """The value as a tensor, with batch norm and activation applied."""
        if value.is_plain:
            return value.raw
        if value.written is None:
            value.written = self.memory.empty(value.raw.shape)
            ld = value.channels
            self.call("fast_read", self.parts, value.rows, ld, value.source, ld, at(value.written), ld)
        return value.written

    def contribute(self, value: Value, gradient: Tensor, column: int = 0) -> None:
        """Adds `gradient`, laid out like a value, from its channel `column` on, to the gradient of `value`."""
        if not value.wanted:
            return
        whole = gradient.shape[1] == value.channels
        if value.grad is None and whole and (value.is_plain or value.readers > 1):
            value.readers -= 1
            value.grad = gradient
            return
        same = value.grad is None and whole and value.act.kind == PLAIN  # only sums are needed
        finish, out = value.finish(self), gradient if same else self.memory.empty(value.raw.shape)
        start, ld = gradient.data_ptr() + 4 * column, gradient.shape[1]
        self.call("fast_finish", self.parts, value.rows, value.channels, start, ld, finish, at(out))
        value.grad = out
