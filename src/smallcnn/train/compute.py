"""How a step is computed: torch as it is, our own kernels (`fast`), or torch.compile.

"auto" tries torch and the kernels on the network itself and takes the quicker one. torch.compile is only used when
asked for: it takes minutes to begin with, and on CPUs it was no faster than torch as it is (docs/training.md).
"""

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from smallcnn.errors import CompileError
from smallcnn.module import GraphModule

Way = Literal["auto", "torch", "kernels", "compile"]
Network = Callable[[Tensor], Tensor]

_SHORT = 60  # seconds: not worth compiling the kernels for
_TRIED = 16  # images a step
_STEPS = 3


@dataclass(frozen=True)
class Choice:
    """The way taken, and a line that says why."""

    way: Way
    reason: str


def choose(
    way: Way, module: GraphModule, size: tuple[int, int, int], device: torch.device, bfloat16: bool, pictures: int
) -> Choice:
    """Decides "auto" for a run of so many images by a short measurement at input `size` (H, W, C).

    The module stays as it was.
    """
    if way != "auto":
        return Choice(way, "chosen with --compute")
    if device.type != "cpu" or bfloat16:
        return Choice("torch", "our own kernels are for float32 on CPUs")
    plain = _rate("torch", module, size)
    if pictures / plain < _SHORT:
        return Choice("torch", f"{plain:,.0f} images/s, and the run is short")
    try:
        kernels = _rate("kernels", module, size)
    except CompileError as error:
        return Choice("torch", str(error))
    better: Way = "kernels" if kernels > plain else "torch"
    return Choice(better, f"{kernels:,.0f} images/s with our own kernels, {plain:,.0f} with torch's")


def network(way: Way, module: GraphModule) -> Network:
    """What computes the module's logits in training. Raises CompileError if the kernels cannot be compiled."""
    match way:
        case "kernels":
            from smallcnn.train.fast import accelerate

            return accelerate(module)
        case "compile":
            return torch.compile(module)
        case _:
            return module


def _rate(way: Way, module: GraphModule, size: tuple[int, int, int]) -> float:
    """Images a second, forward and back, by the quickest of a few steps."""
    height, width, channels = size
    trial = copy.deepcopy(module).train()
    run = network(way, trial)
    images = torch.rand(_TRIED, channels, height, width).contiguous(memory_format=torch.channels_last)
    seconds = []
    for _ in range(1 + _STEPS):
        started = time.perf_counter()
        run(images).square().mean().backward()  # type: ignore[no-untyped-call]
        seconds.append(time.perf_counter() - started)
    return _TRIED / min(seconds[1:])
