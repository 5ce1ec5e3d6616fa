"""A network under construction while a file is read: nodes, weights, and tensors whose axes are moved, cut and joined.

`idioms` has exporters' spellings of one operator.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import prod

import numpy as np

from smallcnn.errors import FileError
from smallcnn.foreign import views
from smallcnn.foreign.budget import Budget
from smallcnn.foreign.names import Names
from smallcnn.foreign.views import Array, View
from smallcnn.ir import ops
from smallcnn.ir.checks import shown
from smallcnn.ir.graph import Node, make_node
from smallcnn.ir.types import Grid, Number

_MOST_RUNS = 256


@dataclass(frozen=True)
class Affine:
    """`source` * scale + shift, per channel, float64."""

    source: Node
    scale: Array
    shift: Array

    def after(self, scale: Array, shift: Array) -> tuple[Array, Array]:
        """Scale and shift of both steps combined, if (scale, shift) follows this one."""
        return self.scale * scale, self.shift * scale + shift


class Network:
    """Nodes by name in execution order, their tensors, and the nodes that only scale and shift."""

    def __init__(self, input_shape: tuple[int, int, int], budget: Budget) -> None:
        self.budget = budget
        self.nodes: dict[str, Node] = {}
        self.weights: dict[str, dict[str, Array]] = {}
        self.affine: dict[str, Affine] = {}
        self.implied: set[str] = set()  # dequantizes that only an exporter needs
        self.biases: dict[str, Array] = {}  # those known more exactly than their float32
        self._moved: dict[tuple[str, ops.Op], Node] = {}
        self._names = Names()
        self.input = self.add(ops.Input(input_shape), [], "input")

    def add(self, op: ops.Op, inputs: Sequence[Node], label: str, **weights: Array) -> Node:
        """A new node named after `label`. FileError if its weights do not fit; GraphError if its inputs do not."""
        node = make_node(self._names.new(label, op.kind), op, inputs)
        wanted = op.weights(*(source.tensor for source in inputs))
        for key, weight in wanted.items():
            if weights[key].shape != weight.shape:
                raise FileError(f"has a {key} of {weights[key].shape}, not {weight.shape}")
        self.nodes[node.name] = node
        self.weights[node.name] = {key: self._stored(weights[key], key, weight) for key, weight in wanted.items()}
        if "bias" in wanted and weights["bias"].dtype == np.float64:
            self.biases[node.name] = weights["bias"]
        return node

    def _stored(self, value: Array, key: str, weight: ops.Weight) -> Array:
        self.budget.spend(value.size)
        if weight.tensor.number != "float32":
            return value.astype(weight.tensor.number, copy=False)
        with np.errstate(over="ignore"):
            stored = value.astype(np.float32, copy=False)
        if not np.isfinite(stored).all():
            raise FileError(f"has a {key} with values that are infinite or NaN")
        return stored

    def ordered(self, view: View) -> View:
        """The same tensor over a node with its channels in the tensor's order, shuffled if needed."""
        return self.channels_in_order(view, views.atoms_of(view.dims, views.CHANNELS))

    def channels_in_order(self, view: View, order: Sequence[views.Atom]) -> View:
        """The same tensor over a node with its channels in `order`."""
        groups = views.swapped_groups(order)
        if groups is None:
            return view
        shuffle, pooled = ops.Shuffle(groups=groups), isinstance(view.node.op, ops.GlobalPool)
        if pooled:  # a vector has no channels to shuffle: those of its map are
            source = replace(view, node=self.nodes[view.node.inputs[0]])
            node = self._once(ops.GlobalPool(), replace(view, node=self._once(shuffle, source)))
        else:
            node = self._once(shuffle, view)
        return replace(view, node=node, dims=views.renumbered(view.dims, order))

    def channels_first(self, view: View) -> Node:
        """The node of a tensor (N, C, H, W): a map, or a vector where the plane is one pixel."""
        if len(view.dims) != 4:
            raise FileError(f"needs (batch, channels, height, width), not {shown(view.sizes)}")
        view = self.ordered(view)
        if view.dims != views.channels_first(view.node.shape):
            raise FileError(f"reads {shown(view.sizes)} with its axes out of order; a transpose must come first")
        return view.node

    def map_first(self, view: View) -> Node:
        """The node of a tensor (N, C, H, W) if it has a plane."""
        node = self.channels_first(view)
        if len(node.shape) != 3:
            raise FileError(f"needs a plane, but its input {shown(view.sizes)} was already averaged over it")
        return node

    def vector(self, view: View) -> View:
        """The same tensor over a vector; it has no plane, or one of one pixel."""
        if len(view.node.shape) == 1:
            return view
        if max(view.node.shape[:2]) > 1:
            raise FileError(f"needs a vector, not a map {shown(view.node.shape)}")
        return replace(view, node=self._once(ops.Flatten(), view))

    def _once(self, op: ops.Op, view: View) -> Node:
        """The node that moves the data of `view`, shared by all its readers."""
        key = (view.node.name, op)
        if key not in self._moved:
            self._moved[key] = self.add(op, [view.node], view.label)
        return self._moved[key]

    def activation(self, view: View, function: ops.ActivationKind, label: str, slope: float = 0.01) -> View:
        """An elementwise function of `view`."""
        return self.on(view, ops.Activation(function=function, slope=slope), label)

    def on(self, view: View, op: ops.Op, label: str) -> View:
        """An operator that treats every element alike."""
        return replace(view, node=self.add(op, [view.node], label))

    def sum(self, terms: Sequence[View], label: str) -> View:
        """The sum of results of one shape."""
        return self.together(ops.Add(), terms, label)

    def together(self, op: ops.Add | ops.Sub, terms: Sequence[View], label: str) -> View:
        """The sum or difference of results of one shape."""
        axes = max(len(term.dims) for term in terms)
        if len({(term.dims, term.node.shape) for term in terms}) > 1:
            terms = [self.ordered(term) for term in terms]
        if len({len(term.node.shape) for term in terms}) > 1:
            terms = [self.vector(term) for term in terms]
        dims = [views.broadcast(term.dims, axes) for term in terms]
        if len(set(dims)) > 1 or len({term.node.shape for term in terms}) > 1:
            verb = "adds" if isinstance(op, ops.Add) else "subtracts"
            shapes = " and ".join(shown(term.sizes) for term in terms[:4])
            raise FileError(f"{verb} results of different shapes: {shapes}")
        return View(self.add(op, [term.node for term in terms], label), dims[0])

    def mean(self, view: View, axes: Collection[int], label: str, *, keep: bool) -> View:
        """The mean over axes, the plane or one of its sides; `keep` leaves them with length 1."""
        gone = {atom.axis: atom.size for axis in axes for atom in view.dims[axis]}
        node = view.node
        if any(axis == views.CHANNELS or size != node.shape[axis] for axis, size in gone.items()):
            raise FileError(f"averages {shown(view.sizes)} over axes {shown(sorted(axes))}, not height and width")
        left = {atom.axis for i, dim in enumerate(view.dims) if i not in axes for atom in dim}
        if gone and left.isdisjoint((views.HEIGHT, views.WIDTH)):
            node = self.add(ops.GlobalPool(), [node], label)
        elif gone:
            kernel = (gone.get(views.HEIGHT, 1), gone.get(views.WIDTH, 1))
            node = self.add(ops.Pool(function="average", kernel=kernel, stride=(1, 1)), [node], label)
        return View(node, tuple(() if i in axes else dim for i, dim in enumerate(view.dims) if keep or i not in axes))

    def rows(self, view: View) -> View | None:
        """The same tensor over rows, (N, C): its last axis is C and one other is N. None if it is neither a map read
        row by row nor rows already."""
        sides = [i for i, size in enumerate(view.sizes[:-1]) if size > 1]
        (columns,), shape = view.sizes[-1:], view.node.shape
        if len(sides) > 1 or len(shape) == 1 or prod(view.sizes) != prod(shape) or columns > shape[-1]:
            return None
        if (views.positions(view.dims, shape) != np.arange(prod(shape))).any():
            return None
        node = view.node if shape[1:] == (columns,) else self._once(ops.Rows(columns=columns), view)
        dims: list[tuple[views.Atom, ...]] = [()] * len(view.dims)
        dims[-1] = (views.Atom(views.CHANNELS, columns),) if columns > 1 else ()
        for side in sides:
            dims[side] = (views.Atom(views.WIDTH, node.shape[0]),)
        return replace(view, node=node, dims=tuple(dims))

    def join_rows(self, parts: Sequence[View], axis: int, label: str) -> View | None:
        """Joins rows one after the other; None if the tensors are not rows along this axis."""
        rows = [row for part in parts if (row := self.rows(part)) is not None and row.sizes[axis] == row.node.shape[0]]
        if len(rows) < len(parts) or axis == len(parts[0].dims) - 1 or len({row.sizes[-1] for row in rows}) > 1:
            return None
        node = self.add(ops.Join(), [row.node for row in rows], label)
        dims = list(rows[0].dims)
        dims[axis] = (views.Atom(views.WIDTH, node.shape[0]),)
        return View(node, tuple(dims))

    def join(self, parts: Sequence[View], axis: int, label: str) -> View:
        """Joins tensors along an axis, which must be the channels."""
        if len({len(part.node.shape) for part in parts}) > 1:
            parts = [self.vector(part) for part in parts]
        parts = [self.ordered(part) for part in parts]
        for part in parts:
            channels = part.node.shape[-1]
            if part.dims[axis] != ((views.Atom(views.CHANNELS, channels),) if channels > 1 else ()):
                raise FileError(f"joins {shown(part.sizes)} along axis {axis}, which is not the channels")
        if len({(part.dims[:axis], part.dims[axis + 1 :], part.node.shape[:-1]) for part in parts}) > 1:
            raise FileError(
                f"joins results of different shapes: {' and '.join(shown(part.sizes) for part in parts[:4])}"
            )
        node = self.add(ops.Concat(), [part.node for part in parts], label)
        dims = list(parts[0].dims)
        dims[axis] = (views.Atom(views.CHANNELS, node.shape[-1]),)
        return View(node, tuple(dims))

    def part(self, view: View, axis: int, start: int, stop: int, label: str) -> View:
        """Indices start to stop of an axis: consecutive channels, or rows or columns of the plane."""
        dim, size = view.dims[axis], view.sizes[axis]
        if (start, stop) == (0, size):
            return view
        if not 0 <= start < stop <= size:
            raise FileError(f"takes {start} to {stop} of an axis of {size}")
        if view.ended:
            raise FileError(f"takes part of the result of {view.ended}, which is supported only as the last operator")
        here = {atom.axis for atom in dim}
        if here == {views.CHANNELS}:
            others = [d for i, d in enumerate(view.dims) if i != axis]
            view = self.channels_in_order(view, [*dim, *views.atoms_of(others, views.CHANNELS)])
            block = view.node.shape[-1] // size
            node = self.add(ops.Slice(start=start * block, stop=stop * block), [view.node], label)
            kept = (views.Atom(views.CHANNELS, stop - start, block),) if stop - start > 1 else ()
        elif len(dim) == 1 and dim[0].size == view.node.shape[dim[0].axis]:
            margins = {dim[0].axis: (-start, stop - size)}
            padding = (margins.get(views.HEIGHT, (0, 0)), margins.get(views.WIDTH, (0, 0)))
            node = self.add(ops.Pad(padding=padding), [view.node], label)
            kept = (views.Atom(dim[0].axis, stop - start),) if stop - start > 1 else ()
        else:
            raise FileError(f"takes part of axis {axis} of {shown(view.sizes)}, which is neither channels nor plane")
        return replace(view, node=node, dims=(*view.dims[:axis], kept, *view.dims[axis + 1 :]))

    def parts(self, view: View, axis: int, sizes: Sequence[int], label: str) -> list[View]:
        """Consecutive parts of an axis, of these sizes, which cover it."""
        if sum(sizes) != view.sizes[axis] or min(sizes) < 1:
            raise FileError(f"splits axis {axis} of {shown(view.sizes)} into {shown(list(sizes))}")
        starts = [sum(sizes[:i]) for i in range(len(sizes))]
        return [
            self.part(view, axis, start, start + size, f"{label}.{i}")
            for i, (start, size) in enumerate(zip(starts, sizes, strict=True))
        ]

    def pick(self, view: View, axis: int, index: Array, label: str) -> View:
        """Channels by number in any order: as a shuffle, or as consecutive runs that are cut and joined."""
        dim, size = view.dims[axis], view.sizes[axis]
        if {atom.axis for atom in dim} != {views.CHANNELS}:
            raise FileError(f"takes indices of axis {axis} of {shown(view.sizes)} that are not consecutive")
        groups = _shuffles(index, size)
        if groups:
            (slow, fast) = views.reshaped((dim,), (groups, size // groups))
            return replace(view, dims=(*view.dims[:axis], fast + slow, *view.dims[axis + 1 :]))
        starts = [0, *(np.flatnonzero(np.diff(index) != 1) + 1).tolist(), index.size]
        if len(starts) > _MOST_RUNS:
            raise FileError(f"takes channels in {len(starts) - 1} runs; at most {_MOST_RUNS} are supported")
        parts = [
            self.part(view, axis, int(index[first]), int(index[stop - 1]) + 1, f"{label}.{i}")
            for i, (first, stop) in enumerate(pairwise(starts))
        ]
        return replace(self.join(parts, axis, label), pixels=view.pixels)

    def dense(
        self,
        view: View,
        weight: Array,
        bias: Array | None,
        label: str,
        *,
        number: Number = "float32",
        grid: Grid | None = None,
    ) -> View:
        """Fully connected, (out, in) over the tensor's last axis, which holds everything."""
        if any(view.dims[:-1]) or weight.ndim != 2 or view.sizes[-1:] != weight.shape[1:]:
            raise FileError(f"multiplies {shown(view.sizes)} by a matrix of {shown(weight.shape[::-1])}")
        node = view.node
        order = views.positions(view.dims, node.shape)
        if (order != np.arange(len(order))).any():
            self.budget.spend(weight.size)
            turned = np.empty_like(weight)
            turned[:, order] = weight
            weight = turned
        if len(node.shape) > 1:
            node = self._once(ops.Flatten(), view)
        op = ops.Dense(out=len(weight), bias=bias is not None, number=number, grid=grid)
        made = self.add(op, [node], label, weight=weight, **({} if bias is None else {"bias": bias}))
        return View(made, views.plain(made.shape, (views.CHANNELS,)))


def _shuffles(index: Array, size: int) -> int | None:
    """The groups of the channel shuffle with this order; None if there is none."""
    if index.size != size or size < 2 or not 1 < index[1] < size or size % index[1] or index[0]:
        return None
    columns = int(index[1])
    groups = size // columns
    return groups if (index == np.arange(size).reshape(groups, columns).T.reshape(-1)).all() else None
