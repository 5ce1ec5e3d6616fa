"""Lowers a folded graph to the layers that will run: what is computed, from where, to where.

Shuffles, slices and concatenations compute nothing; they only create a view. Nor do rows and their joins: a detector's
end reads the maps that hold them. An activation, a residual addition, a change of the number type or a batch norm that
could not be folded becomes part of the layer before it (`epilogues`).
"""

from collections.abc import Mapping, Sequence
from math import prod

import numpy as np

from smallcnn.compiler import whole
from smallcnn.compiler.epilogues import Epilogues
from smallcnn.compiler.layers import (
    ELEMENTWISE,
    Epilogue,
    Layer,
    Round,
    dense_lanes,
)
from smallcnn.compiler.specs import Rows
from smallcnn.compiler.storage import Flat, Storage, View, up
from smallcnn.errors import CompileError
from smallcnn.ir import ops
from smallcnn.ir.graph import Graph, Node
from smallcnn.ir.rewrite import only_reader
from smallcnn.ir.types import Grid, Tensor
from smallcnn.reference.numbers import real


def lower(graph: Graph, weights: Mapping[str, np.ndarray], vector: int) -> tuple[list[Layer], list[View]]:
    """Layers in order and a view of each output. `vector` is floats per register.

    Weights on a grid become the real numbers they stand for. Raises CompileError naming an operator that the compiler
    does not support.
    """
    lowering = _Lowering(graph, weights, vector)
    for node in graph.nodes[1:]:
        if node.name not in lowering.done:
            lowering.node(node)
    answers = [lowering.contiguous(output.node) for output in graph.outputs]
    return lowering.layers, answers


class _Lowering:
    def __init__(self, graph: Graph, weights: Mapping[str, np.ndarray], vector: int) -> None:
        self.graph, self.vector = graph, vector
        self.weights = weights
        self.layers: list[Layer] = []
        self.views: dict[str, View] = {}
        self.done: set[str] = set()
        self.copies: dict[str, View] = {}
        self.pieces: dict[str, tuple[View, ...]] = {}  # maps that hold rows
        self.rectified: set[str] = set()  # activations that a depthwise convolution applies to its input
        self.epilogues = Epilogues(graph, weights, self._alongside)
        self.places = self._places()
        self.image = graph.nodes[0].name
        self.stored_images: dict[str, Grid] = {}  # quantizes of the image

    def node(self, node: Node) -> None:
        """Lowers one node and the elementwise nodes that follow it."""
        match node.op:
            case ops.Dropout():
                self.views[node.name] = self.read(node.inputs[0])
            case ops.Quantize(number="uint8", grid=grid) if node.inputs[0] == self.image:
                self.stored_images[node.name] = grid
            case ops.Slice(start=start, stop=stop):
                self.views[node.name] = self.read(node.inputs[0]).pick(range(start, stop))
            case ops.Shuffle(groups=groups):
                order = np.arange(node.shape[-1]).reshape(groups, -1).T.ravel().tolist()
                self.views[node.name] = self.read(node.inputs[0]).pick(order)
            case ops.Concat():
                self.views[node.name] = self._concat(node)
            case ops.Rows():
                self.pieces[node.name] = (self._in_order(node.inputs[0]),)
            case ops.Join():
                self.pieces[node.name] = tuple(piece for name in node.inputs for piece in self.rows(name))
            case ops.Dequantize() if self._for_detect(node):
                self.pieces[node.name] = self.rows(node.inputs[0])
            case ops.Detect() | ops.Count():
                self._found(node)
            case ops.Conv() as op if self.graph.is_depthwise(node) and op.out == op.groups:
                self._per_channel(node)
            case ops.Conv() | ops.Dense():
                self._matrix(node)
            case ops.Pool() | ops.GlobalPool() | ops.Pad() | ops.Resize() | ops.Scale() | ops.Add() | ops.Sub():
                self._per_channel(node)
            case ops.Activation(function="relu") if self._only_depthwise(node) and node.tensor.grid is None:
                self.views[node.name] = self.read(node.inputs[0])
                self.rectified.add(node.name)
            case op if isinstance(op, ELEMENTWISE):
                self._per_channel(node)
            case ops.Flatten() | ops.LocalResponseNorm():
                self._whole(node)
            case op:
                raise CompileError(f"{node.name}: the compiler does not support the operator {op.kind}")

    def _only_depthwise(self, node: Node) -> bool:
        """Whether a depthwise convolution is the only reader of a node."""
        reader = only_reader(self.graph, node)
        return (
            reader is not None
            and isinstance(reader.op, ops.Conv)
            and reader.op.is_depthwise(node.shape)
            and reader.op.out == reader.op.groups
        )

    def read(self, name: str) -> View:
        """The view of a node's result; for the image, adds a layer that converts it to floats, or to other bytes, and
        for rows that lie in maps, one that copies them."""
        if name in self.pieces and name not in self.views:
            pieces, tensor = self.pieces[name], self.graph[name].tensor
            self.views[name] = View.of(self._storage(tensor), range(tensor.shape[-1]))
            rows = Rows(len(pieces), tensor.shape[-1], tensor.number)
            self.layers.append(Layer((f"{name}.rows",), ops.Join(), pieces, self.views[name], rows=(rows,)))
        if (name == self.image or name in self.stored_images) and name not in self.views:
            channels, grid = self.graph.input_shape[2], self.stored_images.get(name)
            self.views[name] = View.of(self._storage(self.graph[name].tensor), range(channels))
            self.layers.append(Layer((name,), "image", (), self.views[name], from_image=True, grid=grid))
        return self.views[name]

    def rows(self, name: str) -> tuple[View, ...]:
        """The maps that hold the rows of a result, each with contiguous channels."""
        return self.pieces[name] if name in self.pieces else (self._in_order(name),)

    def _in_order(self, name: str) -> View:
        view = self.read(name)
        return view if view.contiguous else self.contiguous(name)

    def _for_detect(self, node: Node) -> bool:
        """Whether only a detector's end reads rows of real numbers, which it can make of the bytes itself."""
        reader = only_reader(self.graph, node)
        return len(node.shape) == 2 and reader is not None and isinstance(reader.op, ops.Detect)

    def _found(self, node: Node) -> None:
        """A detector's end, or the count of what it has found."""
        inputs: list[View] = []
        rows: list[Rows] = []
        for name in node.inputs:
            pieces, source = self.rows(name), self.graph[name]
            made = source if pieces[0].number == "float32" else self.graph[source.inputs[0]]
            rows.append(Rows(len(pieces), made.shape[-1], pieces[0].number, made.tensor.grid))
            inputs += pieces
        target = View.of(self._storage(node.tensor), range(node.shape[-1]))
        self.layers.append(Layer((node.name,), node.op, tuple(inputs), target, rows=tuple(rows)))
        self.views[node.name] = target

    def contiguous(self, name: str) -> View:
        """The view, gathered into its own storage if its channels are scattered."""
        view = self.read(name)
        if view.contiguous and view.slots[0] % self.vector == 0:
            return view
        if name not in self.copies:
            storage = self._storage(self.graph[name].tensor)
            self.copies[name] = View.of(storage, range(view.channels))
            self.layers.append(Layer((f"{name}.gather",), "copy", (view,), self.copies[name]))
        return self.copies[name]

    def lanewise(self, name: str) -> View:
        """A view in one storage, in any order and with few idle lanes: for layers that treat all lanes alike."""
        view = self.read(name)
        if name in self.copies:
            return self.copies[name]
        if view.single and len(set(view.slots)) == view.channels:
            low, high = view.span(self.vector)
            if high - low <= 1.5 * up(view.channels, self.vector):
                return view
        return self.contiguous(name)

    def _storage(self, tensor: Tensor, lanes: int | None = None) -> Storage:
        height, width, *_ = (*tensor.shape[:-1], 1, 1)
        return Storage(height, width, up(lanes or tensor.shape[-1], self.vector), tensor.number)

    def _target(self, node: Node, slots: Sequence[int], lanes: int) -> View:
        """Where the result of a chain ending in `node` goes: a concatenation's storage or its own."""
        if node.name in self.places:
            storage, start, width = self.places[node.name]
            if lanes <= width:
                return View.of(storage, [start + slot for slot in slots])
        return View.of(self._storage(node.tensor, lanes), slots)

    def _places(self) -> dict[str, tuple[Storage, int, int]]:
        """For each result read only by a concatenation: its storage, first lane there, and lanes reserved for it.

        Except where only shuffles and slices read the concatenation: separate parts are better there, because a later
        reader gathers from parts of equal pitch.
        """
        places: dict[str, tuple[Storage, int, int]] = {}
        for node in self.graph:
            if not isinstance(node.op, ops.Concat) or len(node.shape) != 3:
                continue
            if all(isinstance(reader.op, ops.Shuffle | ops.Slice) for reader in self.graph.consumers[node.name]):
                continue
            if not all(self._owned(name) for name in node.inputs) or len(set(node.inputs)) < len(node.inputs):
                continue
            widths = [self._lanes(self.graph[name]) for name in node.inputs]
            storage = self._storage(node.tensor, sum(widths))
            for name, width, end in zip(node.inputs, widths, np.cumsum(widths).tolist(), strict=True):
                places[name] = (storage, end - width, width)
        return places

    def _owned(self, name: str) -> bool:
        node = self.graph[name]
        views = (ops.Input, ops.Dropout, ops.Slice, ops.Shuffle, ops.Concat, ops.Flatten)
        return len(self.graph.consumers[name]) == 1 and not isinstance(node.op, views)

    def _lanes(self, node: Node) -> int:
        """Lanes that a result is expected to need before its layer is known: grouped convolutions round every group
        up; layers that treat all lanes alike keep them."""
        views = (ops.Concat, ops.Slice, ops.Shuffle, ops.Input, ops.Dense)
        while not isinstance(node.op, (ops.Conv, *views)) or self.graph.is_depthwise(node):
            node = self.graph[node.inputs[0]]
        if isinstance(node.op, ops.Conv) and node.op.groups > 1:
            return node.op.groups * up(node.shape[-1] // node.op.groups, self.vector)
        return up(node.shape[-1], self.vector)

    def _concat(self, node: Node) -> View:
        parts = [self.read(name) for name in node.inputs]
        view = View(sum((part.storages for part in parts), ()), sum((part.slots for part in parts), ()))
        if view.uniform:
            return view
        storage = self._storage(node.tensor, sum(up(part.channels, self.vector) for part in parts))
        start = 0
        slots: list[int] = []
        for name, part in zip(node.inputs, parts, strict=True):
            target = View.of(storage, range(start, start + part.channels))
            self.layers.append(Layer((f"{node.name}.{name}",), "copy", (part,), target))
            slots += target.slots
            start += up(part.channels, self.vector)
        return View.of(storage, slots)

    def _matrix(self, node: Node) -> None:
        """Dense and grouped convolutions, fully connected layers: read any lanes, write groups of whole vectors."""
        op = node.op
        groups = op.groups if isinstance(op, ops.Conv) else 1
        image = node.inputs[0] in (self.image, *self.stored_images) and isinstance(op, ops.Conv) and groups == 1
        per_group = node.shape[-1] // groups
        step = dense_lanes(per_group, self.vector) if isinstance(op, ops.Dense) else up(per_group, self.vector)
        slots = [g * step + c for g in range(groups) for c in range(per_group)]
        inputs = () if image else (self.read(node.inputs[0]),)
        self._add(node, op, inputs, slots, groups * step, from_image=image)

    def _per_channel(self, node: Node) -> None:
        """Layers that treat all lanes alike keep the lanes of their first input."""
        sources = [self.lanewise(name) for name in node.inputs]
        first = sources[0]
        if isinstance(node.op, ops.Scale | ops.Add | ops.Sub) and any(
            not (other.single and other.lies_like(first.slots)) for other in sources[1:]
        ):
            sources = [self.contiguous(name) for name in node.inputs]
            first = sources[0]
        low, high = first.span(self.vector)
        rectified = isinstance(node.op, ops.Conv) and node.inputs[0] in self.rectified
        self._add(node, node.op, tuple(sources), [slot - low for slot in first.slots], high - low, relu_first=rectified)

    def _whole(self, node: Node) -> None:
        source = self.contiguous(node.inputs[0])
        if isinstance(node.op, ops.Flatten):
            storage = source.storage
            slots = [p * storage.pitch + s for p in range(storage.pixels) for s in source.slots]
            self.views[node.name] = View.of(Flat(storage), slots)
            return
        self._add(node, node.op, (source,), range(source.channels), up(source.channels, self.vector))

    def _add(
        self,
        node: Node,
        op: ops.Op,
        inputs: tuple[View, ...],
        slots: Sequence[int],
        lanes: int,
        *,
        from_image: bool = False,
        relu_first: bool = False,
    ) -> None:
        """Appends the layer with the longest epilogue that fits."""
        names, last, source = [node.name], node, self.graph[node.inputs[0]].tensor
        epilogue: Epilogue = ()
        weight, bias = self._weights(node)
        bytes, mean, other_zero, most = None, None, 0, np.zeros(node.shape[-1])
        if source.grid:
            if not (op.keeps_grid or isinstance(op, ops.Dequantize)):
                whole.check(node, source.number)
            match op:
                case ops.Conv() | ops.Dense():
                    of = whole.weighted(node, self.weights[f"{node.name}.weight"], bias, source)
                    bytes, weight, bias, most = of.bytes, of.weight, of.bias, of.most
                case ops.GlobalPool():
                    most += 255.0 * prod(source.shape[:2])
                case ops.Scale():
                    most += 255.0**2
                    other_zero = self.graph[node.inputs[1]].tensor.grid.zero[0]  # type: ignore[union-attr]
                case ops.Pool(function="average"):
                    new = self.epilogues.quantized(node)
                    mean = (source.grid.scale[0], new.grid.scale[0] if new else 1.0)
                case ops.Add() | ops.Sub():
                    inputs = inputs[:1]
        if isinstance(op, ELEMENTWISE) or (isinstance(op, ops.Add | ops.Sub) and source.grid):
            step = self.epilogues.absorb(node, self.graph[node.inputs[0]], slots, most)
            assert step is not None
            epilogue, last = step
            names += self._between(node, last)
        while (follower := only_reader(self.graph, last)) is not None:
            if mean and last is node and isinstance(follower.op, ops.Quantize):
                step = (Round(follower.op.grid.zero[0]),), follower
            else:
                step = self.epilogues.absorb(follower, last, slots, most)
            if step is None:
                break
            names += [follower.name, *self._between(follower, step[1])]
            epilogue, last = epilogue + step[0], step[1]
        self.done.update(names)
        target = self._target(last, slots, lanes)
        grid = self.stored_images.get(node.inputs[0]) if from_image else None
        zero = source.grid.zero[0] if source.grid else 0
        self.layers.append(
            Layer(
                tuple(names), op, inputs, target, epilogue, weight, bias, zero, bytes, from_image=from_image, grid=grid,
                other_zero=other_zero, mean=mean, relu_first=relu_first,
            )
        )  # fmt: skip
        self.views[last.name] = target

    def _between(self, first: Node, last: Node) -> list[str]:
        """The quantize that a step ends in, if it is not the step's own node."""
        return [] if first is last else [last.name]

    def _weights(self, node: Node) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Weight and bias; weights on a grid of a layer that computes with real numbers become real ones."""
        if not isinstance(node.op, ops.Conv | ops.Dense):
            return None, None
        weight, bias = (self.weights.get(f"{node.name}.{key}") for key in ("weight", "bias"))
        tensor = self.graph.weights[f"{node.name}.weight"].tensor
        if tensor.grid and not self.graph[node.inputs[0]].tensor.grid:
            weight = real(tensor, np.asarray(weight)).astype(np.float32)
        return weight, bias

    def _alongside(self, names: Sequence[str], slots: Sequence[int]) -> list[View] | None:
        """Views of results whose channels lie like `slots`; None if one is not known yet, or cannot."""
        if any(name not in self.views for name in names):
            return None
        views = []
        for name in names:
            view = self.views[name]
            if not (view.single and view.lies_like(slots)):
                view = self.contiguous(name)
            if not (view.single and view.lies_like(slots)):
                return None
            views.append(view)
        return views
