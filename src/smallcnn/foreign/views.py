"""How a file's tensor maps to a node's result: the bookkeeping that eliminates transposes and reshapes.

A tensor of the file, for a batch of one, is a node's result with its axes arranged in some way: moved, merged, cut into
factors. `Dims` lists for each axis of the tensor the parts of the node's axes it covers, slowest first; an axis of
length 1 covers none. So channels first over (H, W, C) is ((), (C,), (H,), (W,)), its flattening ((), (C, H, W)),
and a channel shuffle is the channels' two factors in the other order.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from smallcnn.errors import FileError
from smallcnn.ir.checks import shown
from smallcnn.ir.graph import Node
from smallcnn.ir.ops import NO_PADDING, Padding, Shape

Array = np.ndarray

HEIGHT, WIDTH, CHANNELS = -3, -2, -1


@dataclass(frozen=True, slots=True)
class Atom:
    """An axis of a node's result, or every `stride`-th step of one."""

    axis: int
    size: int
    stride: int = 1


Dims = tuple[tuple[Atom, ...], ...]


@dataclass(frozen=True)
class View:
    """A tensor of the file: a node's result and the mapping to it.

    `label` is the file's name of its operator; `pixels`: it holds bytes; `ended`: the operator passed after the logits,
    such as "Softmax"; `margins`: padding around the plane that never wins a maximum, (N, C, H, W) only.
    """

    node: Node
    dims: Dims
    label: str = ""
    pixels: bool = False
    ended: str | None = None
    margins: Padding = NO_PADDING

    @property
    def sizes(self) -> Shape:
        """The tensor's shape in the file, for a batch of one."""
        return tuple(prod(atom.size for atom in dim) for dim in self.dims)


def plain(shape: Shape, order: Sequence[int]) -> Dims:
    """A batch of one, then whole axes of a result of `shape` in this order; a missing axis has length 1."""
    return ((), *(_tidy([Atom(axis, shape[axis])] if -axis <= len(shape) else []) for axis in order))


def channels_first(shape: Shape) -> Dims:
    """The layout of ONNX's convolutions: (N, C, H, W)."""
    return plain(shape, (CHANNELS, HEIGHT, WIDTH))


def reshaped(dims: Dims, target: Sequence[int]) -> Dims:
    """The same elements in the same order with another shape."""
    atoms = [atom for dim in dims for atom in dim]
    if prod(target) != prod(atom.size for atom in atoms):
        raise FileError(f"cannot reshape {_shape(dims)} to {shown(tuple(target))}")
    atoms.reverse()
    result = []
    for size in target:
        dim: list[Atom] = []
        while (left := size // prod(atom.size for atom in dim)) > 1:
            atom = atoms.pop()
            if atom.size > left:
                if atom.size % left:
                    raise FileError(f"cannot follow the reshape of {_shape(dims)} to {shown(tuple(target))}")
                inner = atom.size // left
                atoms.append(Atom(atom.axis, inner, atom.stride))
                atom = Atom(atom.axis, left, atom.stride * inner)
            elif left % atom.size:
                raise FileError(f"cannot follow the reshape of {_shape(dims)} to {shown(tuple(target))}")
            dim.append(atom)
        result.append(_tidy(dim))
    return tuple(result)


def along(axis: int, axes: int) -> int:
    """An axis counted from the front. Raises FileError if it is out of range."""
    if not -axes <= axis < axes:
        raise FileError(f"names axis {axis} of {axes}")
    return axis % axes


def transposed(view: View, order: Sequence[int]) -> View:
    """The same tensor with its axes in another order."""
    if sorted(order) != list(range(len(view.dims))):
        raise FileError(f"transposes {shown(view.sizes)} by {shown(list(order))}")
    return replace(view, dims=tuple(view.dims[axis] for axis in order))


def broadcast(dims: Dims, axes: int) -> Dims:
    """Adds leading axes of length 1 up to this number of axes."""
    return ((),) * (axes - len(dims)) + dims


def atoms_of(dims: Iterable[Sequence[Atom]], axis: int) -> list[Atom]:
    """The parts of one axis, in their order."""
    return [atom for dim in dims for atom in dim if atom.axis == axis]


def swapped_groups(order: Sequence[Atom]) -> int | None:
    """The groups of the channel shuffle that gives this order; None if no shuffle is needed."""
    merged = _tidy(order)
    if len(merged) <= 1:
        return None
    if len(merged) == 2 and merged[0].stride == 1 and merged[1].stride == merged[0].size:
        return merged[1].size
    raise FileError("permutes the channels in a way that no channel shuffle can express")


def renumbered(dims: Dims, order: Sequence[Atom]) -> Dims:
    """`dims` after the channels are put into `order`."""
    new: dict[Atom, Atom] = {}
    stride = 1
    for atom in reversed(order):
        new[atom] = Atom(atom.axis, atom.size, stride)
        stride *= atom.size
    return tuple(_tidy([new.get(atom, atom) for atom in dim]) for dim in dims)


def positions(dims: Dims, shape: Shape) -> np.ndarray:
    """For each element of the tensor in order, its index in the node's result."""
    steps = np.cumprod((1, *reversed(shape[1:])))[::-1]
    index = np.zeros(1, np.int64)
    for dim in dims:
        for atom in dim:
            index = np.add.outer(index, np.arange(atom.size) * atom.stride * steps[atom.axis]).reshape(-1)
    return index


def _tidy(atoms: Iterable[Atom]) -> tuple[Atom, ...]:
    """Drops parts of length 1 and joins contiguous neighbours."""
    result: list[Atom] = []
    for atom in atoms:
        if atom.size == 1:
            continue
        if result and (last := result[-1]).axis == atom.axis and last.stride == atom.stride * atom.size:
            result[-1] = Atom(atom.axis, last.size * atom.size, atom.stride)
        else:
            result.append(atom)
    return tuple(result)


def _shape(dims: Dims) -> str:
    return shown(tuple(prod(atom.size for atom in dim) for dim in dims))


def decimal(value: float) -> float:
    """The shortest decimal number that rounds to this float32: the one originally written."""
    return float(str(np.float32(value)))
