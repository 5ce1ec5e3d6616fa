"""Memory for activations, reused from step to step.

C's allocator returns large blocks to the system, which then zeroes every page again in every step. That takes as long
as computing the content.
"""

import mmap
import weakref
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

_LARGE = 1 << 18  # bytes; below that PyTorch's own allocator is as fast
_PAGE = 1 << 21


class Memory:
    """Allocates tensors and reuses their memory after the last reference is gone; small tensors are just kept."""

    def __init__(self) -> None:
        self.free: defaultdict[int, list[mmap.mmap]] = defaultdict(list)
        self.kept: list[Tensor] = []

    def keep(self, tensor: Tensor) -> Tensor:
        """Keeps the tensor alive as long as this memory, and returns it."""
        self.kept.append(tensor)
        return tensor

    def empty(self, shape: Sequence[int]) -> Tensor:
        """An uninitialised float32 tensor, (N, C) or (N, C, H, W) channels last."""
        kind = torch.channels_last if len(shape) == 4 else torch.contiguous_format
        count = int(np.prod(shape))
        if count * 4 < _LARGE:
            return self.keep(torch.empty(tuple(shape), memory_format=kind))
        size = -(-count * 4 // _PAGE) * _PAGE
        block = self.free[size].pop() if self.free[size] else _map(size)
        array = np.frombuffer(block, np.float32, count)
        weakref.finalize(array, self.free[size].append, block).atexit = False
        flat = torch.from_numpy(array)
        if len(shape) == 2:
            return flat.view(tuple(shape))
        images, channels, height, width = shape
        return flat.view(images, height, width, channels).permute(0, 3, 1, 2)


def _map(size: int) -> mmap.mmap:
    block = mmap.mmap(-1, size)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        block.madvise(mmap.MADV_HUGEPAGE)  # strided access through small pages misses the TLB at every row
    return block
