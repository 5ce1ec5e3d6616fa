"""Memory for activations, kept from step to step.

The allocator of C gives large blocks back to the system, which then hands out each page anew, zeroed, in every step:
as much time as computing what fills it.
"""

import mmap
import weakref
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

_LARGE = 1 << 18  # bytes; below, PyTorch's own allocator does as well
_PAGE = 1 << 21


class Memory:
    """Tensors whose memory serves others once the last reference to them has gone; small ones just stay."""

    def __init__(self) -> None:
        self.free: defaultdict[int, list[mmap.mmap]] = defaultdict(list)
        self.kept: list[Tensor] = []

    def keep(self, tensor: Tensor) -> Tensor:
        """The tensor, which stays as long as this memory does."""
        self.kept.append(tensor)
        return tensor

    def empty(self, shape: Sequence[int]) -> Tensor:
        """float32, (N, C) or (N, C, H, W) channels last, with any content."""
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
        block.madvise(mmap.MADV_HUGEPAGE)  # a strided walk through small pages misses the TLB at every row
    return block
