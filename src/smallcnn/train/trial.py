"""Timed steps of a network, forward and backward."""

import copy
import time
from collections.abc import Callable, Sequence

import torch

from smallcnn.module import GraphModule, named
from smallcnn.train.compute import Computation
from smallcnn.train.ranks import Ranks

STEPS = 1 + 3
"""Steps of each computation. The first is not timed: it lays out memory and fills caches."""


def rates(
    computations: Sequence[Computation],
    module: GraphModule,
    size: tuple[int, int, int],
    batch: int,
    ranks: Ranks,
) -> list[float]:
    """Images per second on the CPU, of all processes together, each computing `batch` images of `size` (H, W, C) at a
    time.

    Steps of the computations alternate, so that other programs slow all alike, and the fastest step of each counts. The
    processes take each step at the same time, as in the run, and the slowest one's time counts. Layers learn, and norms
    use batch statistics, as in `module`, which stays unchanged.
    """
    steps = [_step(one, copy.deepcopy(module), size, batch) for one in computations]
    times = [[max(ranks.gather(step())) for step in steps] for _ in range(STEPS)]
    return [ranks.count * batch / min(found) for found in zip(*times[1:], strict=True)]


def _step(computation: Computation, module: GraphModule, size: tuple[int, int, int], batch: int) -> Callable[[], float]:
    """A function that runs one step on random images and returns its seconds."""
    height, width, channels = size
    images = torch.rand(batch, channels, height, width, generator=torch.Generator().manual_seed(0))
    images = images.contiguous(memory_format=torch.channels_last)
    network = computation.network(module)

    def step() -> float:
        started = time.perf_counter()
        with computation.autocast(torch.device("cpu")):
            outputs = named(module.graph, network(images))
        torch.stack([output.square().mean() for output in outputs.values()]).sum().backward()  # type: ignore[no-untyped-call]
        return time.perf_counter() - started

    return step
