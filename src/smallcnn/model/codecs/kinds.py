"""The codecs: how one tensor becomes parts, vectors of uint8 that are deflated one after the other.

raw       each byte of the numbers in a part of its own: first all lowest bytes, then the next
shared    a codebook of at most 256 numbers, raw, and for each number of the tensor its index
sparse    the distances between the numbers that are not zero, and these as raw or shared
product   codebooks of at most 256 vectors, raw, and for each vector of the tensor its index

Numbers are equal if their bits are, so that decoding gives back every bit. A distance of n + 1 is the byte n, below
255; 255 is a step of 255 with no number at its end. Codecs without parameters beyond sizes are told apart by `kind`;
each knows from these and the tensor how long its parts are, before anything is unpacked.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import prod
from typing import Any, ClassVar, Protocol, Self

import numpy as np

from smallcnn.errors import FileError
from smallcnn.ir import checks
from smallcnn.ir.types import SIZES, Tensor
from smallcnn.model.codecs.deflated import deflate
from smallcnn.transform.share.vectors import from_vectors, to_vectors

Array = np.ndarray
Parts = Sequence[Array]

MOST_WORDS = 256
"""Entries of a codebook, so that an index is a byte."""
_STEP = 255
_LEAST_ZEROS = 0.05
_LENGTHS = (2, 3, 4, 6, 8, 16)  # of the vectors that are looked for
_SAMPLE = 1024


class Codec(Protocol):
    """One tensor's codec. `to_json` has its parameters."""

    kind: ClassVar[str]

    def sizes(self, tensor: Tensor) -> tuple[int, ...]:
        """The length of each part. Raises FileError if the tensor cannot be of this codec."""

    def decode(self, tensor: Tensor, parts: Parts) -> Array:
        """The tensor. Raises FileError if the parts do not describe one."""


@dataclass(frozen=True)
class Raw:
    """Every number in full."""

    kind: ClassVar[str] = "raw"

    @classmethod
    def encode(cls, value: Array) -> tuple[Self, Parts]:
        """The codec and its parts."""
        return cls(), _planes(value.ravel())

    def sizes(self, tensor: Tensor) -> tuple[int, ...]:
        """One part per byte of a number."""
        return (prod(tensor.shape),) * SIZES[tensor.number]

    def decode(self, tensor: Tensor, parts: Parts) -> Array:
        """The tensor."""
        return _numbers(parts, tensor).reshape(tensor.shape)


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
        return cls(len(words)), [*_planes(words.view(value.dtype)), indices.astype(np.uint8)]

    def sizes(self, tensor: Tensor) -> tuple[int, ...]:
        """The codebook's, then the indices'."""
        _check_words(self.words)
        return (*(self.words,) * SIZES[tensor.number], prod(tensor.shape))

    def decode(self, tensor: Tensor, parts: Parts) -> Array:
        """The tensor."""
        *planes, indices = parts
        _check_indices(indices, self.words)
        return _numbers(planes, tensor)[indices].reshape(tensor.shape)


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
        found = [made for length in lengths if (made := cls._of_length(value, length))]
        return min(found, key=lambda made: len(deflate(made[1])), default=None)

    @classmethod
    def _of_length(cls, value: Array, length: int) -> tuple[Self, Parts] | None:
        vectors = np.ascontiguousarray(to_vectors(value, length))
        rows = vectors.view(np.dtype((np.void, length * value.itemsize)))[..., 0]  # (positions, subspaces)
        if len(np.unique(rows[:_SAMPLE, 0])) > MOST_WORDS or rows.size <= MOST_WORDS:
            return None
        whole = _codebooks(rows.reshape(-1, 1)) if len(np.unique(rows.ravel()[:_SAMPLE])) <= MOST_WORDS else None
        books, indices = whole or _codebooks(rows) or (None, None)
        if books is None or indices is None:
            return None
        words = max(map(len, books))
        filled = np.stack([np.concatenate([book, np.repeat(book[-1:], words - len(book))]) for book in books])
        numbers = np.frombuffer(filled.tobytes(), value.dtype)
        return cls(length, words, len(books)), [*_planes(numbers), indices.reshape(-1)]

    def sizes(self, tensor: Tensor) -> tuple[int, ...]:
        """The codebooks', then the indices'."""
        _check_words(self.words)
        inputs = tensor.shape[1] if len(tensor.shape) > 1 else 1
        if self.length < 1 or inputs % self.length or self.books not in (1, inputs // self.length):
            raise FileError(f"{self.books:,} codebooks of vectors of {self.length:,} for {inputs:,} inputs")
        numbers = self.books * self.words * self.length
        return (*(numbers,) * SIZES[tensor.number], prod(tensor.shape) // self.length)

    def decode(self, tensor: Tensor, parts: Parts) -> Array:
        """The tensor."""
        *planes, indices = parts
        _check_indices(indices, self.words)
        books = _numbers(planes, tensor).reshape(self.books, self.words, self.length)
        chosen = indices.reshape(-1, self.books)
        return from_vectors(books[np.arange(self.books), chosen], tensor.shape)


CODECS: dict[str, type[Raw | Shared | Sparse | Product]] = {each.kind: each for each in (Raw, Shared, Sparse, Product)}
"""Codecs by name."""


def candidates(value: Array) -> Iterable[tuple[Codec, Parts]]:
    """The codecs that a tensor can be stored with."""
    yield Raw.encode(value)
    for codec in (Shared, Sparse, Product):
        if value.size and (found := codec.encode(value)):
            yield found


def to_json(codec: Codec) -> dict[str, Any]:
    """The codec's name and parameters."""
    return {"codec": codec.kind, **asdict(codec)}  # type: ignore[call-overload]


def from_json(record: Mapping[str, Any]) -> Codec:
    """The inverse of `to_json`. Raises FileError for a codec that there is not, or sizes that are none."""
    kind = record.get("codec")
    if not (isinstance(kind, str) and kind in CODECS):
        raise FileError(f"no codec {checks.shown(kind)}; there are {', '.join(CODECS)}")
    sizes = {name: size for name, size in record.items() if name != "codec"}
    if not all(checks.is_whole(size, 0) for size in sizes.values()):
        raise FileError(f"codec {kind} of {checks.shown(sizes)}")
    try:
        return CODECS[kind](**sizes)
    except TypeError as error:
        raise FileError(f"codec {kind} of {checks.shown(sizes)}") from error


_BITS = {1: np.uint8, 4: np.uint32}


def _planes(numbers: Array) -> list[Array]:
    """(count,) numbers -> the bytes of each, lowest first: one vector for each place."""
    width = numbers.itemsize
    lowest_first = np.ascontiguousarray(numbers, numbers.dtype.newbyteorder("<"))
    return list(np.ascontiguousarray(lowest_first.view(np.uint8).reshape(-1, width).T))


def _numbers(planes: Parts, tensor: Tensor) -> Array:
    """The inverse of `_planes`."""
    dtype = np.dtype(tensor.number)
    return np.stack(planes, axis=1).view(dtype.newbyteorder("<")).ravel().astype(dtype)


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


def _check_words(words: int) -> None:
    if not 0 < words <= MOST_WORDS:
        raise FileError(f"a codebook of {words:,} entries; from 1 to {MOST_WORDS} are allowed")


def _check_indices(indices: Array, words: int) -> None:
    if indices.size and indices.max() >= words:
        raise FileError(f"its packed bytes are damaged: index {indices.max()} into a codebook of {words}")
