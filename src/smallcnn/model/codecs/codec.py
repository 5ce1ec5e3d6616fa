"""What codecs are, and what they share: numbers as planes of bytes, and checks of what a file says."""

from collections.abc import Sequence
from typing import ClassVar, Protocol

import numpy as np

from smallcnn.errors import FileError
from smallcnn.ir.types import Tensor

Array = np.ndarray
Parts = Sequence[Array]

MOST_WORDS = 256
"""Entries of a codebook, so that an index is a byte."""


class Codec(Protocol):
    """One tensor's codec. `to_json` has its parameters."""

    kind: ClassVar[str]

    def sizes(self, tensor: Tensor) -> tuple[int, ...]:
        """The length of each part. Raises FileError if the tensor cannot be of this codec."""

    def decode(self, tensor: Tensor, parts: Parts) -> Array:
        """The tensor. Raises FileError if the parts do not describe one."""


def to_planes(numbers: Array) -> list[Array]:
    """(count,) numbers -> the bytes of each, lowest first: one vector for each place."""
    width = numbers.itemsize
    lowest_first = np.ascontiguousarray(numbers, numbers.dtype.newbyteorder("<"))
    return list(np.ascontiguousarray(lowest_first.view(np.uint8).reshape(-1, width).T))


def from_planes(planes: Parts, tensor: Tensor) -> Array:
    """The inverse of `to_planes`."""
    dtype = np.dtype(tensor.number)
    return np.stack(planes, axis=1).view(dtype.newbyteorder("<")).ravel().astype(dtype)


def check_words(words: int) -> None:
    """Raises FileError unless a codebook may have so many entries."""
    if not 0 < words <= MOST_WORDS:
        raise FileError(f"a codebook of {words:,} entries; from 1 to {MOST_WORDS} are allowed")


def check_indices(indices: Array, words: int) -> None:
    """Raises FileError if an index is beyond a codebook."""
    if indices.size and indices.max() >= words:
        raise FileError(f"its packed bytes are damaged: index {indices.max()} into a codebook of {words}")
