"""The codec of hashed weights: values, of which a hash of its place chooses each number."""

from dataclasses import dataclass
from math import prod
from typing import ClassVar, Self

import numpy as np

from smallcnn.errors import FileError
from smallcnn.ir.types import SIZES, Tensor
from smallcnn.model.codecs.codec import Array, Parts, from_planes, to_planes
from smallcnn.transform.share.hashed import SEEDS, Hashing, hashing_of


@dataclass(frozen=True)
class Hashed:
    """`values` numbers, of which a hash with `seed` chooses each of the tensor's; see `transform.share.hashed`."""

    values: int
    seed: int
    kind: ClassVar[str] = "hashed"

    @classmethod
    def encode(cls, value: Array) -> tuple[Self, Parts] | None:
        """The codec and its parts; None if no hash chose the numbers."""
        if value.dtype != np.float32 or not (hashed := hashing_of(value)):
            return None
        hashing, values = hashed
        return cls(hashing.values, hashing.seed), to_planes(values)

    def sizes(self, tensor: Tensor) -> tuple[int, ...]:
        """One part per byte of a value."""
        count = prod(tensor.shape)
        if tensor.number != "float32" or self.seed >= SEEDS or not 0 < self.values <= count:
            raise FileError(
                f"{count:,} {tensor.number} weights hashed in {self.values:,} values with seed {self.seed:,}; "
                f"float32 can be, with seeds below {SEEDS}"
            )
        return (self.values,) * SIZES[tensor.number]

    def decode(self, tensor: Tensor, parts: Parts) -> Array:
        """The tensor."""
        return Hashing(values=self.values, seed=self.seed).expand(from_planes(parts, tensor), tensor.shape)
