"""Turns layers into kernel calls: which kernel, with which constants, on which operands.

    Call      a kernel's specification and its operands in order, the output last
    Operand   a tensor in memory (Tensor), constants (Constant), lanes gathered from the arena (Arena, then Table), the
              network's input (Image) and output (Answer)

No decisions are made here: tiles, rows and fusion are arguments from `plan`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from smallcnn.compiler import specs
from smallcnn.compiler.layers import Act, Affine, Layer, Plus, Storage, View, dense_lanes, up
from smallcnn.compiler.specs import Elementwise, Sink, Source, Spec, Tile, Window
from smallcnn.errors import CompileError
from smallcnn.ir import ops


@dataclass(frozen=True, eq=False)
class Tensor:
    """Lanes of a storage from `first` on, with the extents and strides (in floats) that the kernel expects."""

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
    """Where each channel of a view lies, relative to the Arena before it: (groups, channels), flat without groups."""

    view: View
    groups: int | None


@dataclass(frozen=True)
class Picture:
    """The network's input, bytes."""

    extents: tuple[int, ...]


@dataclass(frozen=True)
class Answer:
    """The network's output, floats."""

    extents: tuple[int, ...]


Operand = Tensor | Constant | Arena | Table | Picture | Answer


@dataclass(frozen=True, eq=False)
class Call:
    """One call of one kernel. `split` is the output's dimension that threads divide, in multiples of `grain`."""

    layers: tuple[Layer, ...]
    spec: Spec
    operands: tuple[Operand, ...]
    split: int | None
    grain: int
    scratch: int = 0  # floats per thread

    @property
    def label(self) -> str:
        """The graph nodes computed."""
        return "+".join(layer.label for layer in self.layers) or "answer"


@dataclass(frozen=True)
class Normalisation:
    """Normalisation from bytes to the network's input: value * scale + shift, per channel."""

    scale: np.ndarray
    shift: np.ndarray


def pointwise(layer: Layer, tile: Tile, vector: int, blocks: int = 1) -> Call:
    """1x1 convolution, fully connected layer. Threads can share `blocks` of the output's lanes (of a single group)."""
    view, out = layer.inputs[0], layer.output.storage
    groups = groups_of(layer)
    source, reads = _source(view, groups, (out.pixels,))
    shares = groups * blocks
    if blocks > 1:
        reads = [Tensor(view.storage, view.slots[0], (view.channels, out.pixels, blocks), (1, view.storage.pitch, 0))]
    lanes = lanes_of(layer, vector) // shares
    spec = specs.Pointwise(source, Sink(lanes, out.pitch, _steps(layer), shares), tile)
    operands = [
        *reads,
        *_packed(layer, vector, shares),
        *_ends(layer, (lanes, out.pixels, shares), _by_group(lanes), vector),
    ]
    split, grain = (2, 1) if blocks > 1 else (1, tile.pixels)
    return Call((layer,), spec, tuple(operands), split, grain)


def convolution(
    layer: Layer, tile: Tile, rows: int, vector: int, image: Normalisation | None, shape: ops.Shape
) -> Call:
    """Any other dense or grouped convolution. `shape` is the input's (H, W, C)."""
    out, groups = layer.output.storage, groups_of(layer)
    height, width, _ = shape
    reads: list[Operand]
    if image is not None:
        source, reads = _picture(shape, image)
    else:
        source, reads = _source(layer.inputs[0], groups, (width, height))
    lanes = lanes_of(layer, vector) // groups
    sink = Sink(lanes, out.pitch, _steps(layer), groups)
    spec = specs.Conv(_window(layer, (height, width)), source, image is not None, sink, tile, rows)
    operands = [
        *reads,
        *_packed(layer, vector, groups),
        *_ends(layer, (lanes, out.pixels, groups), _by_group(lanes), vector),
    ]
    return Call((layer,), spec, tuple(operands), 1, rows * out.width, spec.scratch)


def depthwise_conv(layer: Layer, pixels: int, vector: int) -> Call:
    """One filter per channel."""
    spec, operands = _taps(layer, pixels, vector)
    out = layer.output.storage
    operands += _ends(layer, (spec.sink.lanes, out.width, out.height), _by_plane(out.width), vector)
    return Call((layer,), spec, tuple(operands), 2, 1)


def separable(first: Layer, second: Layer, pixels: int, tile: Tile, rows: int, vector: int) -> Call:
    """A depthwise convolution fused with the pointwise one after it."""
    taps, operands = _taps(first, pixels, vector)
    middle, out = first.output.storage, second.output.storage
    operands += _epilogue(first, (taps.sink.lanes, middle.width, middle.height), _by_plane(middle.width), vector)
    source, tail = _projection(first, second, vector)
    spec = specs.Separable(taps, source, Sink(lanes_of(second, vector), out.pitch, _steps(second)), tile, rows)
    return Call((first, second), spec, (*operands, *tail), 1, rows * out.width, spec.scratch)


def chain(
    layers: Sequence[Layer],
    tiles: Sequence[Tile],
    rows: int,
    vector: int,
    image: Normalisation,
    input_shape: ops.Shape,
) -> Call:
    """Layers that feed each other, the last one pointwise, as one kernel; a tile for each (pixels for depthwise)."""
    stages: list[specs.Conv | specs.Pointwise | specs.Depthwise] = []
    operands: list[Operand] = []
    plane = (input_shape[1], input_shape[0])
    for i, (layer, tile) in enumerate(zip(layers, tiles, strict=True)):
        out, last = layer.output.storage, i == len(layers) - 1
        lanes = lanes_of(layer, vector)
        sink = Sink(lanes, out.pitch, _steps(layer))
        if layer.from_image:
            source, reads = _picture(input_shape, image)
            operands += reads
            stages.append(specs.Conv(_window(layer, plane[::-1]), source, True, sink, tile, rows))
            order, depth = None, 0
        elif is_depthwise(layer):
            spec, constants = _taps(layer, tile.pixels, vector)
            stages.append(spec)
            if i == 0:
                plane = (spec.window.width, spec.window.height)
                operands.append(constants[0])
            operands += [
                *constants[1:],
                *_epilogue(layer, (lanes, out.width, out.height), _by_plane(out.width), vector),
            ]
            continue
        elif i == 0:
            view = layer.inputs[0]
            plane = (view.storage.width, view.storage.height)
            source = Source(view.channels, view.storage.pitch)
            extents = (view.channels, *plane)
            operands.append(Tensor(view.storage, view.slots[0], extents, _by_plane(plane[0])(view.storage.pitch)))
            stages.append(specs.Pointwise(source, sink, tile))
            order, depth = None, 0
        else:
            before = layers[i - 1]
            depth, low = lanes_of(before, vector), low_lane(before.output, vector)
            stages.append(specs.Pointwise(Source(depth, depth), sink, tile))
            order = [slot - low for slot in layer.inputs[0].slots]
        if last:
            operands += _packed(layer, vector, 1, order, depth)
            operands += _ends(layer, (lanes, out.pixels, 1), _by_group(lanes), vector)
        else:
            operands += _packed(layer, vector, None, order, depth)
            operands += _epilogue(layer, (lanes, out.width, out.height), _by_plane(out.width), vector)
    *head, final = stages
    assert isinstance(final, specs.Pointwise)
    made = specs.Chain(plane, tuple(head), final, rows)
    return Call(tuple(layers), made, tuple(operands), 1, rows * layers[-1].output.storage.width, made.scratch)


def answer(view: View) -> Call:
    """The logits, copied out."""
    spec = specs.Gather(Source(view.channels, view.storage.pitch, table=True), view.channels, view.channels)
    return Call((), spec, (Arena(view, (1,)), Table(view, None), Answer((view.channels, 1))), None, 1)


def image(layer: Layer, normalisation: Normalisation, vector: int) -> Call:
    """Converts the image to floats where the first reader is not a convolution."""
    out, channels, lanes = layer.output.storage, layer.output.channels, lanes_of(layer, vector)
    constants = [Constant.of(v) for v in (normalisation.scale, normalisation.shift)]
    operands = (Picture((channels, out.pixels)), *constants, *_ends(layer, (lanes, out.pixels), _flat, vector))
    return Call((layer,), specs.Image(channels, lanes, out.pitch), operands, 1, 1)


def per_lane(layer: Layer, vector: int) -> Call:
    """Pooling, padding, elementwise work, copies, local response normalisation."""
    source, out = layer.inputs[0], layer.output.storage
    lanes, pitch, low = lanes_of(layer, vector), source.storage.pitch, low_lane(source, vector)
    sink = Sink(lanes, out.pitch, _steps(layer))
    plane = (source.storage.height, source.storage.width)
    reads: list[Operand] = [Tensor(source.storage, low, (lanes, *plane[::-1]), _by_plane(plane[1])(pitch))]
    extents: tuple[int, ...] = (lanes, out.width, out.height)
    strides, split = _by_plane(out.width), 2
    spec: Spec
    match layer.op:
        case "copy":
            reads = [Arena(source, (out.pixels,)), Table(source, None)]
            spec = specs.Gather(Source(source.channels, pitch, table=True), lanes, out.pitch)
            extents, strides, split = (lanes, out.pixels), _flat, 1
        case ops.Pool() as op:
            spec = specs.Pool(op.function, _window(layer, plane), op.count_padding, pitch, sink)
        case ops.Pad():
            spec = specs.Pad(_window(layer, plane), pitch, sink)
        case ops.GlobalPool():
            spec = specs.GlobalPool(*plane, pitch, sink)
            operands = [*reads, *_ends(layer, (lanes,), lambda _: (1,), vector)]
            return Call((layer,), spec, tuple(operands), None, 1)
        case ops.LocalResponseNorm() as op:
            spec = specs.Response(op.size, op.alpha, op.beta, op.bias, source.channels, pitch, sink)
            extents, strides, split = (lanes, out.pixels), _flat, 1
            reads = [Tensor(source.storage, low, extents, _flat(pitch))]
        case ops.Scale() | ops.Add() | ops.Activation() | ops.Clip() | ops.BatchNorm():
            extents, strides, split = (lanes, out.pixels), _flat, 1
            reads = [Tensor(source.storage, low, extents, _flat(pitch))]
            plus: tuple[Elementwise, ...] = ()
            for other in layer.inputs[1:]:
                first = min(other.slots) - (min(source.slots) - low)
                if isinstance(layer.op, ops.Scale):
                    reads.append(Tensor(other.storage, first, (lanes,), (1,)))
                else:
                    reads.append(Tensor(other.storage, first, extents, _flat(other.storage.pitch)))
                    plus += (Elementwise("plus", pitch=other.storage.pitch),)
            spec = specs.Lanes(pitch, isinstance(layer.op, ops.Scale), Sink(lanes, out.pitch, (*plus, *_steps(layer))))
        case op:
            raise CompileError(f"{layer.label}: the compiler has no kernel for {op}")
    operands = [*reads, *_ends(layer, extents, strides, vector)]
    return Call((layer,), spec, tuple(operands), split, 1)


def is_depthwise(layer: Layer) -> bool:
    """Whether every channel has its own single filter."""
    op = layer.op
    return isinstance(op, ops.Conv) and bool(layer.inputs) and 1 < op.groups == op.out == layer.inputs[0].channels


def groups_of(layer: Layer) -> int:
    """The groups of a convolution; 1 for other layers."""
    return layer.op.groups if isinstance(layer.op, ops.Conv) else 1


def low_lane(view: View, vector: int) -> int:
    """The first lane of the whole vectors that hold a view."""
    return view.span(vector)[0]


def even_step(view: View, groups: int) -> int | None:
    """The lane step between groups, if contiguous and evenly spaced; None if they need a table."""
    if not view.single:
        return None
    slots = np.array(view.slots).reshape(groups, -1)
    steps = np.diff(slots[:, 0])
    if (np.diff(slots, axis=1) != 1).any() or (steps != steps[:1]).any() or (steps < 0).any():
        return None
    return int(steps[0]) if len(steps) else 0


def _source(view: View, groups: int, pixels: tuple[int, ...]) -> tuple[Source, list[Operand]]:
    channels, pitch, step = view.channels // groups, view.storage.pitch, even_step(view, groups)
    if step is None:
        return Source(channels, pitch, table=True), [Arena(view, pixels), Table(view, groups)]
    strides = (1, pitch, step) if len(pixels) == 1 else (1, pitch, pitch * pixels[0], step)
    return Source(channels, pitch, step), [Tensor(view.storage, view.slots[0], (channels, *pixels, groups), strides)]


def lanes_of(layer: Layer, vector: int) -> int:
    """Lanes that the layer writes: whole vectors, per group for grouped convolutions."""
    groups = 1 if is_depthwise(layer) else groups_of(layer)
    if groups > 1:
        return groups * up(layer.op.out // groups, vector)  # type: ignore[union-attr]
    if isinstance(layer.op, ops.Dense):
        return dense_lanes(layer.op.out, vector)
    low, high = layer.output.span(vector)
    return high - low


def _matrix(layer: Layer, vector: int, order: Sequence[int] | None = None, depth: int = 0) -> np.ndarray:
    """(out, in, kh, kw) -> (groups, vectors, taps * channels, vector), rows in the order (ky, kx, channel).

    With `order`, channel i of the input is row order[i] of `depth`; the other rows are zero.
    """
    assert layer.weight is not None
    weight = layer.weight.reshape(*layer.weight.shape[:2], *(layer.weight.shape[2:] or (1, 1)))
    groups = groups_of(layer)
    rows = weight.transpose(0, 2, 3, 1).reshape(groups, len(weight) // groups, -1)
    if order is not None:
        scattered = np.zeros((*rows.shape[:2], depth), np.float32)
        for i, row in enumerate(order):
            scattered[:, :, row] += rows[:, :, i]  # a channel may be read twice
        rows = scattered
    padded = np.zeros((groups, lanes_of(layer, vector) // groups, rows.shape[2]), np.float32)
    padded[:, : rows.shape[1]] = rows
    return padded.reshape(groups, -1, vector, rows.shape[2]).transpose(0, 1, 3, 2)


def _packed(
    layer: Layer, vector: int, shares: int | None, order: Sequence[int] | None = None, depth: int = 0
) -> list[Operand]:
    """Weight and bias of a matrix product with lanes in `shares` groups; None: one group, without the dimension."""
    groups = () if shares is None else (shares,)

    def weight() -> np.ndarray:
        packed = _matrix(layer, vector, order, depth)
        return packed.reshape(*groups, -1, *packed.shape[2:])

    return [Constant(weight), Constant.of(_per_lane(layer, layer.bias, vector).reshape(*groups, -1))]


def _projection(first: Layer, second: Layer, vector: int) -> tuple[Source, list[Operand]]:
    """Weight, bias, epilogue and output of a pointwise `second` that reads the lanes of `first` in their order."""
    out, lanes = second.output.storage, lanes_of(second, vector)
    depth, low = lanes_of(first, vector), low_lane(first.output, vector)
    packed = _packed(second, vector, 1, [slot - low for slot in second.inputs[0].slots], depth)
    return Source(depth, depth), [*packed, *_ends(second, (lanes, out.pixels, 1), _by_group(lanes), vector)]


def _picture(shape: ops.Shape, image: Normalisation) -> tuple[Source, list[Operand]]:
    """The network's input by rows, with scale and shift for each byte of a row."""
    height, width, channels = shape
    tables = [Constant.of(np.tile(values, width)) for values in (image.scale, image.shift)]
    return Source(channels, channels), [Picture((width * channels, height)), *tables]


def _per_lane(layer: Layer, values: np.ndarray | None, vector: int) -> np.ndarray:
    """One value per output channel, on the lanes that the layer writes; zero elsewhere."""
    result = np.zeros(lanes_of(layer, vector), np.float32)
    if values is not None:
        low = low_lane(layer.output, vector)
        result[[slot - low for slot in layer.output.slots]] = values
    return result


def _window(layer: Layer, plane: tuple[int, int]) -> Window:
    out, op = layer.output.storage, layer.op
    assert isinstance(op, ops.Conv | ops.Pool | ops.Pad)
    before, after = zip(*op.padding, strict=True)
    kernel, stride = ((1, 1), (1, 1)) if isinstance(op, ops.Pad) else (op.kernel, op.stride)
    return Window(*plane, out.height, out.width, kernel, stride, before, after)


def _taps(layer: Layer, pixels: int, vector: int) -> tuple[specs.Depthwise, list[Operand]]:
    source, out = layer.inputs[0], layer.output.storage
    assert layer.weight is not None
    lanes = lanes_of(layer, vector)
    plane = (source.storage.height, source.storage.width)
    sink = Sink(lanes, out.pitch, _steps(layer))
    spec = specs.Depthwise(_window(layer, plane), source.storage.pitch, sink, min(pixels, out.width), layer.relu_first)
    weight = np.zeros((*layer.weight.shape[2:], lanes), np.float32)
    low = low_lane(layer.output, vector)
    weight[:, :, [slot - low for slot in layer.output.slots]] = layer.weight[:, 0].transpose(1, 2, 0)
    first = low_lane(source, vector)
    read = Tensor(source.storage, first, (lanes, *plane[::-1]), _by_plane(plane[1])(source.storage.pitch))
    return spec, [read, Constant.of(weight), Constant.of(_per_lane(layer, layer.bias, vector))]


def _steps(layer: Layer) -> specs.Epilogue:
    steps = []
    for part in layer.epilogue:
        match part:
            case Act(function, low, high):
                steps.append(Elementwise(function, low, high))
            case Affine():
                steps.append(Elementwise("affine"))
            case Plus(other):
                steps.append(Elementwise("plus", pitch=other.storage.pitch))
    return tuple(steps)


Strides = Callable[[int], tuple[int, ...]]  # by pitch


def _by_group(lanes: int) -> Strides:
    """(lane, pixel, group)."""
    return lambda pitch: (1, pitch, lanes)


def _by_plane(width: int) -> Strides:
    """(lane, x, y)."""
    return lambda pitch: (1, pitch, pitch * width)


def _flat(pitch: int) -> tuple[int, ...]:
    """(lane, pixel)."""
    return (1, pitch)


def _ends(layer: Layer, extents: tuple[int, ...], strides: Strides, vector: int) -> list[Operand]:
    """Operands of the epilogue, and the output."""
    place = layer.output.storage
    output = Tensor(place, low_lane(layer.output, vector), extents, strides(place.pitch))
    return [*_epilogue(layer, extents, strides, vector), output]


def _epilogue(layer: Layer, extents: tuple[int, ...], strides: Strides, vector: int) -> list[Operand]:
    operands: list[Operand] = []
    for part in layer.epilogue:
        if isinstance(part, Affine):
            operands += [Constant.of(_per_lane(layer, values, vector)) for values in (part.scale, part.shift)]
        elif isinstance(part, Plus):
            other = part.other
            first = min(other.slots) - min(layer.output.slots) + low_lane(layer.output, vector)
            operands.append(Tensor(other.storage, first, extents, strides(other.storage.pitch)))
    return operands
