"""Codecs of single numbers: all of them in full, few different ones, many zeros."""

from dataclasses import dataclass
from math import prod
from typing import ClassVar, Self

import numpy as np

from smallcnn.errors import FileError
from smallcnn.ir.types import SIZES, Tensor
from smallcnn.model.codecs.codec import MOST_WORDS, Array, Parts, check_indices, check_words, from_planes, to_planes

_STEP = 255
_LEAST_ZEROS = 0.05
_SAMPLE = 1024
_BITS = {1: np.uint8, 4: np.uint32}


@dataclass(frozen=True)
class Raw:
    """Every number in full."""

    kind: ClassVar[str] = "raw"

    @classmethod
    def encode(cls, value: Array) -> tuple[Self, Parts]:
        """The codec and its parts."""
        return cls(), to_planes(value.ravel())

    def sizes(self, tensor: Tensor) -> tuple[int, ...]:
        """One part per byte of a number."""
        return (prod(tensor.shape),) * SIZES[tensor.number]

    def decode(self, tensor: Tensor, parts: Parts) -> Array:
        """The tensor."""
        return from_planes(parts, tensor).reshape(tensor.shape)


@dataclass(frozen=True)
class Shared:
    """Few different numbers, `words` of them."""

    words: int
    kind: ClassVar[str] = "shared"

    @classmethod
    def encode(cls, value: Array) -> tuple[Self, Parts] | None:
        """The codec and its parts; None if there are too many different numbers."""
        bits = value.ravel().view(_BITS[value.itemsize])
        if len(np.unique(bits[:: max(1, bits.size // _SAMPLE)])) > MOST_WORDS:
            return None
        words, indices = np.unique(bits, return_inverse=True)
        if not 0 < len(words) <= MOST_WORDS:
            return None
        return cls(len(words)), [*to_planes(words.view(value.dtype)), indices.astype(np.uint8)]

    def sizes(self, tensor: Tensor) -> tuple[int, ...]:
        """The codebook's, then the indices'."""
        check_words(self.words)
        return (*(self.words,) * SIZES[tensor.number], prod(tensor.shape))

    def decode(self, tensor: Tensor, parts: Parts) -> Array:
        """The tensor."""
        *book, indices = parts
        check_indices(indices, self.words)
        return from_planes(book, tensor)[indices].reshape(tensor.shape)


@dataclass(frozen=True)
class Sparse:
    """Many zeros: `kept` numbers that are none, in `steps` distances; shared if there are `words`."""

    kept: int
    steps: int
    words: int = 0
    kind: ClassVar[str] = "sparse"

    @classmethod
    def encode(cls, value: Array) -> tuple[Self, Parts] | None:
        """The codec and its parts; None if too few numbers are zero to gain by it."""
        bits = value.ravel().view(_BITS[value.itemsize])
        places = np.flatnonzero(bits)
        if not 0 < len(places) <= (1 - _LEAST_ZEROS) * bits.size:
            return None
        distances = np.diff(places, prepend=-1) - 1
        jumps = distances // _STEP
        steps = np.full(len(places) + int(jumps.sum()), _STEP, np.uint8)
        steps[np.cumsum(jumps + 1) - 1] = distances % _STEP
        kept = value.ravel()[places]
        shared = Shared.encode(kept)
        codec, parts = shared or Raw.encode(kept)
        return cls(len(kept), len(steps), codec.words if isinstance(codec, Shared) else 0), [steps, *parts]

    def sizes(self, tensor: Tensor) -> tuple[int, ...]:
        """The distances', then those of the kept numbers."""
        count = prod(tensor.shape)
        if not (0 < self.kept <= self.steps <= count):
            raise FileError(f"{self.kept:,} numbers in {self.steps:,} steps for {count:,} weights")
        return (self.steps, *self._inner().sizes(self._line(tensor)))

    def decode(self, tensor: Tensor, parts: Parts) -> Array:
        """The tensor."""
        steps, *parts = parts
        ends = steps != _STEP
        places = np.cumsum(np.where(ends, steps.astype(np.int64) + 1, _STEP))[ends] - 1
        if len(places) != self.kept or places[-1] >= prod(tensor.shape):
            raise FileError(f"its packed bytes are damaged: their steps lead to {len(places):,} places")
        found = np.zeros(prod(tensor.shape), tensor.number)
        found[places] = self._inner().decode(self._line(tensor), parts)
        return found.reshape(tensor.shape)

    def _inner(self) -> Raw | Shared:
        return Shared(self.words) if self.words else Raw()

    def _line(self, tensor: Tensor) -> Tensor:
        return Tensor((self.kept,), tensor.number)
