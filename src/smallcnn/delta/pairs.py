"""Ranges of two files that belong together, whatever is in them: where parts of the old file are in the new one."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

_BLOCK = 32
"""Bytes of the old file that are looked for in the new one."""

_COMMON = 16
"""A block that the old file has more often, such as one of zeros, shows nothing."""

_WINDOW = 256
_ALIKE = 0.2
"""Share of equal bytes in a window of two ranges that belong together. Of four bytes of a float the highest survives
training; in unrelated code or weights about one byte in twenty is equal."""

_CHUNK = 1 << 20
_MULTIPLIER = 0x9E3779B97F4A7C15  # odd, all bits mixed

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Pair:
    """A range of the new file, and the range of the old one it most likely comes from, empty if there is none.

    `width` is the size of its numbers in bytes, 4 or 1, or 0 if unknown. Ranges with numbers have the same length.
    """

    new: int
    new_end: int
    old: int
    old_end: int
    width: int = 0

    @property
    def aligned(self) -> bool:
        """Whether both ranges have the same length."""
        return self.new_end - self.new == self.old_end - self.old


class Blocks:
    """Finds the blocks of an old file in a new one by their hash."""

    def __init__(self, old: bytes, new: bytes) -> None:
        self.old, self.new = old, new
        self.chunk = (0, 0)  # of the new file, where the blocks are known: their places here, and those in the old file
        self.places = self.targets = np.empty(0, np.intp)

    def pairs(self, start: int, end: int) -> list[Pair]:
        """Pairs that cover a range of the new file in order; those that are not aligned lie between two that are.

        From a block that both have, the files are followed as long as they are alike. So equal code, and weights that
        changed in place, are found wherever they moved.
        """
        a, b = self._old, self._new[:end]
        found: list[Pair] = []
        at = source = start
        if length := _alike(a, b, at, source):
            found.append(Pair(at, at + length, source, source + length))
            at, source = at + length, source + length
        while at < end:
            place, target = self._next(at, end)
            back = _equal_before(a, b, place, target, place - at)
            first, length = place - back, back
            if place < end:
                length = max(_alike(a, b, first, target - back), back + _BLOCK)
            if first > at:
                begin = min(source, len(a))
                found.append(Pair(at, first, begin, max(begin, target - back)))
            at, source = first + length, target - back + length
            if length:
                found.append(Pair(first, at, source - length, source))
        return found

    def _next(self, at: int, end: int) -> tuple[int, int]:
        """The first place from `at` on where the new file has a block of the old one, and the place of that block.

        If there is none: `end`, and the end of the old file.
        """
        a, b = self._old, self._new[:end]
        while at + _BLOCK <= end:
            if not self.chunk[0] <= at < self.chunk[1]:
                self._search(at)
            for i in range(int(np.searchsorted(self.places, at)), len(self.places)):
                place, target = int(self.places[i]), int(self.targets[i])
                if place + _BLOCK > end:
                    break
                equal = (a[target : target + _BLOCK] == b[place : place + _BLOCK]).all()
                if equal and _alike(a, b, place, target, _WINDOW):
                    return place, target
            at = self.chunk[1]
        return end, len(a)

    def _search(self, at: int) -> None:
        """Finds the blocks that start in the chunk of the new file from `at` on."""
        hashes = _hashes(self._new[at : at + _CHUNK + _BLOCK - 1])
        self.chunk = (at, at + len(hashes))
        known, targets = self._known
        nearest = np.searchsorted(known, hashes)
        hits = np.flatnonzero(known[nearest] == hashes)
        self.places, self.targets = hits + at, targets[nearest[hits]]

    @cached_property
    def _old(self) -> Bytes:
        return np.frombuffer(self.old, np.uint8)

    @cached_property
    def _new(self) -> Bytes:
        return np.frombuffer(self.new, np.uint8)

    @cached_property
    def _known(self) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.intp]]:
        """The hashes of the old file's blocks in order, and their places; the last entry is a sentinel."""
        hashes = np.concatenate([
            _hashes(self._old[at : at + _CHUNK])[::_BLOCK] for at in range(0, len(self.old) - _BLOCK + 1, _CHUNK)
        ] or [np.empty(0, np.uint64)])  # fmt: skip
        known, first, count = np.unique(hashes, return_index=True, return_counts=True)
        rare = count <= _COMMON
        last = np.array([np.iinfo(np.uint64).max], np.uint64)
        return np.append(known[rare], last), np.append(first[rare] * _BLOCK, len(self.old))


def _hashes(data: Bytes) -> npt.NDArray[np.uint64]:
    """A hash of the `_BLOCK` bytes from each position on: a polynomial modulo 2^64, made by doubling its length."""
    value, power, length = data.astype(np.uint64) + 1, _MULTIPLIER, 1
    while length < _BLOCK:
        value = value[:-length] * np.uint64(power) + value[length:]
        power, length = power * power % (1 << 64), 2 * length
    return value


def _alike(old: Bytes, new: Bytes, at: int, source: int, most: int | None = None) -> int:
    """How many bytes from two places on are alike, at most `most`: no window has fewer than `_ALIKE` equal ones."""
    room = min(len(new) - at, len(old) - source, len(new) if most is None else most)
    length, size = 0, 16 * _WINDOW
    while length < room:
        here = min(size, room - length)
        equal = old[source + length :][:here] == new[at + length :][:here]
        edges = np.arange(0, here, _WINDOW)
        share = np.add.reduceat(equal, edges, dtype=np.int64) / np.diff(edges, append=here)
        if len(different := np.flatnonzero(share < _ALIKE)):
            return length + int(edges[different[0]])
        length, size = length + here, min(2 * size, _CHUNK)
    return length


def _equal_before(old: Bytes, new: Bytes, at: int, source: int, most: int) -> int:
    """How many bytes before two places are equal, at most `most`."""
    room = min(most, source, _CHUNK)
    differs = np.flatnonzero(old[source - room : source] != new[at - room : at])
    return room - 1 - int(differs[-1]) if len(differs) else room
