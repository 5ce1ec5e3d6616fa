"""What can compute a training step: plain torch, our own kernels (`fast`) or torch.compile, in float32 or bfloat16.

`choice` says which of them a run takes.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from smallcnn.errors import DataError
from smallcnn.module import GraphModule
from smallcnn.train.device import computes_bfloat16
from smallcnn.train.recipe import Precision

Way = Literal["auto", "torch", "kernels", "compile"]
Network = Callable[[Tensor], Tensor | dict[str, Tensor]]


@dataclass(frozen=True)
class Computation:
    """One way to compute a step, in float32 or with bfloat16 autocast."""

    way: Way
    bfloat16: bool = False

    def __str__(self) -> str:
        return f"{self.way} in {'bfloat16' if self.bfloat16 else 'float32'}"

    def network(self, module: GraphModule) -> Network:
        """The function that computes the module's outputs. Raises CompileError if the kernels do not compile."""
        match self.way:
            case "kernels":
                from smallcnn.train.fast import accelerate

                return accelerate(module)
            case "compile":
                return torch.compile(module)
            case _:
                return module

    def autocast(self, device: torch.device) -> AbstractContextManager[None]:
        """The context in which the network is called."""
        return torch.autocast(device.type, torch.bfloat16, enabled=self.bfloat16)


KERNELS, TORCH = Computation("kernels"), Computation("torch")


def possible(way: Way, precision: Precision, device: torch.device) -> tuple[list[Computation], list[str]]:
    """What these options allow on this hardware, and why they exclude the rest.

    Raises DataError if the options contradict each other.
    """
    cpu = device.type == "cpu"
    if way == "kernels" and (precision == "bfloat16" or not cpu):
        what = precision if cpu else device.type
        raise DataError(f"--compute kernels is for float32 on the CPU, not {what}; drop one of the two")
    if not cpu:  # GPUs with bfloat16 are always quicker in it, so nothing needs to be timed there
        bfloat16 = precision == "bfloat16" or (precision == "auto" and computes_bfloat16(device))
        return [Computation("torch" if way == "auto" else way, bfloat16)], ["our own kernels are for CPUs"]
    if precision == "bfloat16":
        return [Computation("torch" if way == "auto" else way, True)], ["our own kernels compute in float32"]
    found, excluded = [KERNELS, TORCH] if way == "auto" else [Computation(way)], []
    if precision == "auto" and way in ("auto", "torch"):
        if computes_bfloat16(device):
            found.append(Computation("torch", True))
        else:
            excluded.append("no bfloat16 in this processor")
    return found, excluded


def possible_with_rounding(way: Way, precision: Precision) -> tuple[list[Computation], list[str]]:
    """The same for quantization-aware training, which needs torch's layers and all digits of float32."""
    option = f"--compute {way}" if way not in ("auto", "torch") else "--precision bfloat16"
    if way not in ("auto", "torch") or precision == "bfloat16":
        raise DataError(f"{option} is not for quantization-aware training, which needs torch in float32")
    return [TORCH], ["quantization-aware training needs torch in float32"]
