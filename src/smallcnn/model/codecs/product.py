"""The codec of product quantization: few different vectors of input channels."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from typing import ClassVar, Self

import numpy as np

from smallcnn.errors import FileError
from smallcnn.ir.types import SIZES, Tensor
from smallcnn.model.codecs.codec import MOST_WORDS, Array, Parts, check_indices, check_words, from_planes, to_planes
from smallcnn.model.codecs.deflated import deflate
from smallcnn.transform.share.vectors import from_vectors, to_vectors

_LENGTHS = (2, 3, 4, 6, 8, 16)  # of the vectors that are looked for
_SAMPLE = 1024


@dataclass(frozen=True)
class Product:
    """Few different vectors of `length` input channels: `books` of `words`, one for all subspaces or one for each."""

    length: int
    words: int
    books: int
    kind: ClassVar[str] = "product"

    @classmethod
    def encode(cls, value: Array) -> tuple[Self, Parts] | None:
        """The codec and its parts for the length that takes the fewest bytes; None if no vectors are few enough."""
        lengths = [length for length in _LENGTHS if value.ndim > 1 and value.shape[1] % length == 0]
        found = [made for length in lengths for made in cls._of_length(value, length)]
        return min(found, key=lambda made: len(deflate(made[1])), default=None)

    @classmethod
    def _of_length(cls, value: Array, length: int) -> Iterable[tuple[Self, Parts]]:
        """With one codebook and with one for each subspace, if there are few enough vectors for them."""
        vectors = np.ascontiguousarray(to_vectors(value, length))
        rows = vectors.view(np.dtype((np.void, length * value.itemsize)))[..., 0]  # (positions, subspaces)
        if rows.size <= MOST_WORDS:
            return
        for columns in dict.fromkeys((1, rows.shape[1])):
            split = rows.reshape(-1, columns)
            made = _codebooks(split) if len(np.unique(split[:_SAMPLE, 0])) <= MOST_WORDS else None
            if made is None:
                continue
            books, indices = made
            words = max(map(len, books))
            filled = np.stack([np.concatenate([book, np.repeat(book[-1:], words - len(book))]) for book in books])
            numbers = np.frombuffer(filled.tobytes(), value.dtype)
            yield cls(length, words, len(books)), [*to_planes(numbers), indices.reshape(-1)]

    def sizes(self, tensor: Tensor) -> tuple[int, ...]:
        """The codebooks', then the indices'."""
        check_words(self.words)
        inputs = tensor.shape[1] if len(tensor.shape) > 1 else 1
        if self.length < 1 or inputs % self.length or self.books not in (1, inputs // self.length):
            raise FileError(f"{self.books:,} codebooks of vectors of {self.length:,} for {inputs:,} inputs")
        numbers = self.books * self.words * self.length
        return (*(numbers,) * SIZES[tensor.number], prod(tensor.shape) // self.length)

    def decode(self, tensor: Tensor, parts: Parts) -> Array:
        """The tensor."""
        *book, indices = parts
        check_indices(indices, self.words)
        books = from_planes(book, tensor).reshape(self.books, self.words, self.length)
        chosen = indices.reshape(-1, self.books)
        return from_vectors(books[np.arange(self.books), chosen], tensor.shape)


def _codebooks(rows: Array) -> tuple[list[Array], Array] | None:
    """Of (positions, subspaces) vectors, the different ones of each subspace, and their indices; None if too many."""
    books, indices = [], np.empty(rows.shape, np.uint8)
    for column in range(rows.shape[1]):
        book, found = np.unique(rows[:, column], return_inverse=True)
        if len(book) > MOST_WORDS:
            return None
        books.append(book)
        indices[:, column] = found
    return books, indices
