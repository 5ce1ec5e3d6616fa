"""Lowers a folded graph to the layers that will run: what is computed, from where, to where.

    Storage   memory of one tensor: (H, W, pitch) float32, channels innermost; a pixel's channels are `lanes` wide
    View      a logical tensor (H, W, C): for every channel, the storage and the lane that holds it
    Layer     one computation with everything elementwise that follows it

Shuffles, slices and concatenations compute nothing; they only create a view. An activation, a residual addition or a
batch norm that could not be folded becomes part of the layer before it (its epilogue).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from smallcnn.errors import CompileError
from smallcnn.ir import ops
from smallcnn.ir.graph import Graph, Node

_ALIASING = 128
"""Floats. Pixels spaced a multiple of this apart share few cache sets (32 KiB, 8 ways: the same set every 4 KiB). That
made a depthwise 14x14x512 three times slower than 14x14x576 on a Zen 3; such a pitch is made one line longer."""
_LINE = 16
_MANY = 256
"""Number of outputs from which a fully connected layer is large."""


def up(value: int, multiple: int) -> int:
    """`value` rounded up to a multiple."""
    return -(-value // multiple) * multiple


def dense_lanes(outputs: int, vector: int) -> int:
    """Lanes of a fully connected layer: for a large one a multiple of four vectors, which threads can split."""
    return up(outputs, 4 * vector if outputs >= _MANY else vector)


@dataclass(eq=False)
class Storage:
    """Memory for (height, width) pixels, `pitch` floats apart, of which the first `lanes` may be written."""

    height: int
    width: int
    lanes: int

    @cached_property
    def pitch(self) -> int:
        """Floats from one pixel to the next."""
        return self.lanes + _LINE if self.lanes % _ALIASING == 0 else self.lanes

    @property
    def pixels(self) -> int:
        """Height times width."""
        return self.height * self.width

    @property
    def floats(self) -> int:
        """Size."""
        return self.pixels * self.pitch


@dataclass(frozen=True, eq=False)
class View:
    """Channel c of a map is lane `slots[c]` of `storages[c]`; all storages have one shape and one pitch."""

    storages: tuple[Storage, ...]
    slots: tuple[int, ...]

    @classmethod
    def of(cls, storage: Storage, slots: Sequence[int]) -> "View":
        """Channels of one storage."""
        return cls((storage,) * len(slots), tuple(slots))

    @property
    def storage(self) -> Storage:
        """The only storage; callers check `single` first."""
        return self.storages[0]

    @property
    def channels(self) -> int:
        """Number of channels."""
        return len(self.slots)

    @property
    def single(self) -> bool:
        """Whether all channels lie in one storage."""
        return all(storage is self.storages[0] for storage in self.storages)

    @property
    def uniform(self) -> bool:
        """Whether all storages have one pitch, so that one address step moves from pixel to pixel in all of them."""
        return len({storage.pitch for storage in self.storages}) == 1

    @property
    def contiguous(self) -> bool:
        """Whether the channels are consecutive in one storage."""
        return self.single and self.slots == tuple(range(self.slots[0], self.slots[0] + len(self.slots)))

    def span(self, vector: int) -> tuple[int, int]:
        """First and end lane of the whole vectors that hold the channels."""
        return min(self.slots) // vector * vector, up(max(self.slots) + 1, vector)

    def pick(self, channels: Sequence[int]) -> "View":
        """A view of these channels, in this order."""
        return View(tuple(self.storages[c] for c in channels), tuple(self.slots[c] for c in channels))


@dataclass(frozen=True)
class Act:
    """An elementwise function in an epilogue."""

    function: str
    low: float = 0.0
    high: float = 0.0


@dataclass(frozen=True, eq=False)
class Affine:
    """A batch norm that was not folded: scale and shift per channel."""

    scale: np.ndarray
    shift: np.ndarray


@dataclass(frozen=True, eq=False)
class Plus:
    """Adds another map or vector."""

    other: View


Epilogue = tuple[Act | Affine | Plus, ...]


@dataclass(eq=False)
class Layer:
    """One computation: `op` of the graph, or "copy" (gathered channels), "image" (the input's bytes as floats)."""

    names: tuple[str, ...]
    op: ops.Op | str
    inputs: tuple[View, ...]
    output: View
    epilogue: Epilogue = ()
    weight: np.ndarray | None = None
    bias: np.ndarray | None = None
    from_image: bool = False  # reads the network's input as bytes
    relu_first: bool = False  # on the input (depthwise convolutions only)

    @property
    def label(self) -> str:
        """The graph nodes computed."""
        return "+".join(self.names)

    @property
    def reads(self) -> tuple[View, ...]:
        """Everything read, epilogue included."""
        return (*self.inputs, *(step.other for step in self.epilogue if isinstance(step, Plus)))


def lower(graph: Graph, weights: Mapping[str, np.ndarray], vector: int) -> tuple[list[Layer], View]:
    """Layers in order and the view of the output. `vector` is floats per register.

    Raises CompileError naming an operator that the compiler does not support.
    """
    lowering = _Lowering(graph, weights, vector)
    for node in graph.nodes[1:]:
        if node.name not in lowering.done:
            lowering.node(node)
    answer = lowering.contiguous(graph.output)
    return lowering.layers, answer


class _Lowering:
    def __init__(self, graph: Graph, weights: Mapping[str, np.ndarray], vector: int) -> None:
        self.graph, self.weights, self.vector = graph, weights, vector
        self.layers: list[Layer] = []
        self.views: dict[str, View] = {}
        self.done: set[str] = set()
        self.copies: dict[str, View] = {}
        self.rectified: set[str] = set()  # activations that a depthwise convolution applies to its input
        self.places = self._places()
        self.image = graph.nodes[0].name

    def node(self, node: Node) -> None:
        """Lowers one node and the elementwise nodes that follow it."""
        match node.op:
            case ops.Dropout():
                self.views[node.name] = self.read(node.inputs[0])
            case ops.Slice(start=start, stop=stop):
                self.views[node.name] = self.read(node.inputs[0]).pick(range(start, stop))
            case ops.Shuffle(groups=groups):
                order = np.arange(node.shape[-1]).reshape(groups, -1).T.ravel().tolist()
                self.views[node.name] = self.read(node.inputs[0]).pick(order)
            case ops.Concat():
                self.views[node.name] = self._concat(node)
            case ops.Conv() as op if op.is_depthwise(*self.graph.input_shapes(node)) and op.out == op.groups:
                self._per_channel(node)
            case ops.Conv() | ops.Dense():
                self._matrix(node)
            case ops.Pool() | ops.GlobalPool() | ops.Pad() | ops.Scale() | ops.Add():
                self._per_channel(node)
            case ops.Activation(function="relu") if self._only_depthwise(node):
                self.views[node.name] = self.read(node.inputs[0])
                self.rectified.add(node.name)
            case ops.Activation() | ops.Clip() | ops.BatchNorm():
                self._per_channel(node)
            case ops.Flatten() | ops.LocalResponseNorm():
                self._whole(node)
            case op:
                raise CompileError(f"{node.name}: the compiler does not support the operator {op.kind}")

    def _only_depthwise(self, node: Node) -> bool:
        """Whether a depthwise convolution is the only reader of a node."""
        readers = self.graph.consumers[node.name]
        return (
            len(readers) == 1
            and node.name != self.graph.output
            and isinstance(readers[0].op, ops.Conv)
            and readers[0].op.is_depthwise(node.shape)
            and readers[0].op.out == readers[0].op.groups
        )

    def read(self, name: str) -> View:
        """The view of a node's result; for the image, adds a layer that converts it to floats."""
        if name == self.image and name not in self.views:
            height, width, channels = self.graph.input_shape
            storage = Storage(height, width, up(channels, self.vector))
            self.views[name] = View.of(storage, range(channels))
            self.layers.append(Layer((name,), "image", (), self.views[name], from_image=True))
        return self.views[name]

    def contiguous(self, name: str) -> View:
        """The view, gathered into its own storage if its channels are scattered."""
        view = self.read(name)
        if view.contiguous and view.slots[0] % self.vector == 0:
            return view
        if name not in self.copies:
            storage = self._storage(self.graph[name].shape)
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

    def _storage(self, shape: ops.Shape, lanes: int | None = None) -> Storage:
        height, width = shape[:2] if len(shape) == 3 else (1, 1)
        return Storage(height, width, up(lanes or shape[-1], self.vector))

    def _target(self, node: Node, slots: Sequence[int], lanes: int) -> View:
        """Where the result of a chain ending in `node` goes: a concatenation's storage or its own."""
        if node.name in self.places:
            storage, start, width = self.places[node.name]
            if lanes > width:
                return View.of(self._storage(node.shape, lanes), slots)
            return View.of(storage, [start + slot for slot in slots])
        return View.of(self._storage(node.shape, lanes), slots)

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
            storage = self._storage(node.shape, sum(widths))
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
        while not isinstance(node.op, (ops.Conv, *views)) or (
            isinstance(node.op, ops.Conv) and node.op.is_depthwise(*self.graph.input_shapes(node))
        ):
            node = self.graph[node.inputs[0]]
        if isinstance(node.op, ops.Conv) and node.op.groups > 1:
            return node.op.groups * up(node.shape[-1] // node.op.groups, self.vector)
        return up(node.shape[-1], self.vector)

    def _concat(self, node: Node) -> View:
        parts = [self.read(name) for name in node.inputs]
        view = View(sum((part.storages for part in parts), ()), sum((part.slots for part in parts), ()))
        if view.uniform:
            return view
        storage = self._storage(node.shape, sum(up(part.channels, self.vector) for part in parts))
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
        image = node.inputs[0] == self.image and isinstance(op, ops.Conv) and groups == 1
        per_group = node.shape[-1] // groups
        step = dense_lanes(per_group, self.vector) if isinstance(op, ops.Dense) else up(per_group, self.vector)
        slots = [g * step + c for g in range(groups) for c in range(per_group)]
        inputs = () if image else (self.read(node.inputs[0]),)
        self._add(node, op, inputs, slots, groups * step, from_image=image)

    def _per_channel(self, node: Node) -> None:
        """Layers that treat all lanes alike keep the lanes of their first input."""
        sources = [self.lanewise(name) for name in node.inputs]
        first = sources[0]
        if isinstance(node.op, ops.Scale | ops.Add) and any(not _alike(first, other) for other in sources[1:]):
            sources = [self.contiguous(name) for name in node.inputs]
            first = sources[0]
        low, high = first.span(self.vector)
        rectified = isinstance(node.op, ops.Conv) and node.inputs[0] in self.rectified
        self._add(node, node.op, tuple(sources), [slot - low for slot in first.slots], high - low, relu_first=rectified)

    def _whole(self, node: Node) -> None:
        source = self.contiguous(node.inputs[0])
        if isinstance(node.op, ops.Flatten):
            storage = source.storage
            flat = Storage(1, 1, storage.floats)
            slots = [p * storage.pitch + s for p in range(storage.pixels) for s in source.slots]
            self.views[node.name] = View.of(_Flat.of(storage, flat), slots)
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
        names, epilogue, last = [node.name], [], node
        while last.name != self.graph.output and len(self.graph.consumers[last.name]) == 1:
            follower = self.graph.consumers[last.name][0]
            step = self._absorb(follower, last, slots)
            if step is None:
                break
            epilogue += step
            names.append(follower.name)
            self.done.add(follower.name)
            last = follower
        target = self._target(last, slots, lanes)
        weight, bias = (self.weights.get(f"{node.name}.{key}") for key in ("weight", "bias"))
        if not isinstance(op, ops.Conv | ops.Dense):
            weight = bias = None
        if isinstance(op, ops.Activation | ops.Clip | ops.BatchNorm):
            epilogue = [*self._elementwise(node), *epilogue]
        self.layers.append(
            Layer(tuple(names), op, inputs, target, tuple(epilogue), weight, bias, from_image, relu_first)
        )
        self.views[last.name] = target

    def _absorb(self, follower: Node, last: Node, slots: Sequence[int]) -> list[Act | Affine | Plus] | None:
        """`follower` as epilogue steps, or None if it needs its own layer."""
        match follower.op:
            case ops.Activation() | ops.Clip() | ops.BatchNorm():
                return self._elementwise(follower)
            case ops.Dropout():
                return []
            case ops.Add():
                others = [name for name in follower.inputs if name != last.name]
                if len(others) != len(follower.inputs) - 1 or any(name not in self.views for name in others):
                    return None
                steps: list[Act | Affine | Plus] = []
                for name in others:
                    view = self.views[name]
                    if not view.single or not _same_lanes(view, slots):
                        view = self.contiguous(name)
                    if not view.single or not _same_lanes(view, slots):
                        return None
                    steps.append(Plus(view))
                return steps
            case _:
                return None

    def _elementwise(self, node: Node) -> list[Act | Affine | Plus]:
        match node.op:
            case ops.Activation(function="leaky_relu", slope=slope):
                return [Act("leaky_relu", slope)]
            case ops.Activation(function=function):
                return [Act(function)]
            case ops.Clip(low=low, high=high):
                return [Act("clip", low, high)]
            case ops.BatchNorm(epsilon=epsilon):
                gamma, beta, mean, variance = (
                    self.weights[f"{node.name}.{key}"].astype(np.float64)
                    for key in ("weight", "bias", "running_mean", "running_var")
                )
                scale = gamma / np.sqrt(variance + epsilon)
                return [Affine(scale, beta - mean * scale)]
            case op:
                raise CompileError(f"{node.name}: {op.kind} is not elementwise")


class _Flat(Storage):
    """A storage's memory under another shape."""

    base: Storage

    @classmethod
    def of(cls, base: Storage, flat: Storage) -> Storage:
        alias = cls(flat.height, flat.width, flat.lanes)
        alias.base = base
        return alias

    @cached_property
    def pitch(self) -> int:
        return self.lanes


def root(storage: Storage) -> Storage:
    """The storage that owns the memory."""
    return storage.base if isinstance(storage, _Flat) else storage


def _alike(a: View, b: View) -> bool:
    """Whether both views, each in one storage, have their channels in the same order and spacing."""
    return b.single and _same_lanes(b, a.slots)


def _same_lanes(view: View, slots: Sequence[int]) -> bool:
    apart = min(view.slots) - min(slots)
    return len(slots) == view.channels and all(a - b == apart for a, b in zip(view.slots, slots, strict=True))
