"""Backend of a training step: plain torch, our own kernels (`fast`), or torch.compile.

"auto" times torch and the kernels on the network itself and takes the faster one. torch.compile is used only on
request: it takes minutes to start, and on CPUs it was no faster than plain torch (docs/training.md).
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

_SHORT = 60  # seconds; a shorter run is not worth compiling the kernels
_TRIED = 16  # images per step
_STEPS = 3


@dataclass(frozen=True)
class Choice:
    """The chosen backend, and the reason in one line."""

    way: Way
    reason: str


def choose(
    way: Way, module: GraphModule, size: tuple[int, int, int], device: torch.device, bfloat16: bool, images: int
) -> Choice:
    """Resolves "auto" for a run over `images` images with a short measurement at input `size` (H, W, C).

    Leaves the module unchanged.
    """
    if way != "auto":
        return Choice(way, "chosen with --compute")
    if device.type != "cpu" or bfloat16:
        return Choice("torch", "our own kernels are for float32 on CPUs")
    plain = _rate("torch", module, size)
    if images / plain < _SHORT:
        return Choice("torch", f"{plain:,.0f} images/s, and the run is short")
    try:
        kernels = _rate("kernels", module, size)
    except CompileError as error:
        return Choice("torch", str(error))
    better: Way = "kernels" if kernels > plain else "torch"
    return Choice(better, f"{kernels:,.0f} images/s with our own kernels, {plain:,.0f} with torch's")


def network(way: Way, module: GraphModule) -> Network:
    """The function that computes the module's logits in training. Raises CompileError if the kernels do not compile."""
    match way:
        case "kernels":
            from smallcnn.train.fast import accelerate

            return accelerate(module)
        case "compile":
            return torch.compile(module)
        case _:
            return module


def _rate(way: Way, module: GraphModule, size: tuple[int, int, int]) -> float:
    """Images per second, forward and backward, from the fastest of a few steps."""
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
