"""Operands of kernel calls, before they have addresses.

Map          lanes of a storage, with the extents and strides that the kernel expects
Constant     weights
Arena        the storages of a view as a whole; a Table after it says where each channel lies
InputImage   the network's input
Answer       one of the network's outputs
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from smallcnn.compiler.storage import Storage, View
from smallcnn.ir.types import Number


@dataclass(frozen=True, eq=False)
class Map:
    """Lanes of a storage from `first` on; strides count numbers."""

    storage: Storage
    first: int
    extents: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Constant:
    """Weights; `pack` builds the array when it is stored. Dimension 0 of the kernel's operand is its last axis."""

    pack: Callable[[], np.ndarray]

    @classmethod
    def of(cls, value: np.ndarray) -> "Constant":
        """A constant that needs no packing."""
        return cls(lambda: value)


@dataclass(frozen=True, eq=False)
class Arena:
    """The storages of a view as one operand of (lane, pixel) or (lane, x, y)."""

    view: View
    pixels: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Table:
    """Where each channel of a view lies, relative to the Arena before it: (groups, channels), flat without groups.

    With `depth`, a group has that many entries; those beyond its channels are its first.
    """

    view: View
    groups: int | None
    depth: int = 0


@dataclass(frozen=True)
class InputImage:
    """The network's input, bytes."""

    extents: tuple[int, ...]


@dataclass(frozen=True)
class Answer:
    """The network's output `index`, densely packed."""

    index: int
    extents: tuple[int, ...]
    number: Number


Operand = Map | Constant | Arena | Table | InputImage | Answer
Strides = Callable[[int], tuple[int, ...]]
"""By pitch."""


def by_group(lanes: int) -> Strides:
    """(lane, pixel, group)."""
    return lambda pitch: (1, pitch, lanes)


def by_plane(width: int, *group: int) -> Strides:
    """(lane, x, y), with the lanes of a group (lane, x, y, group)."""
    return lambda pitch: (1, pitch, pitch * width, *group)


def flat(pitch: int) -> tuple[int, ...]:
    """(lane, pixel)."""
    return (1, pitch)
