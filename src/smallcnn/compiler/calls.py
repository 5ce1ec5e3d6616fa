"""Layers as kernel calls: which kernel, with which constants, on which operands.

    Call      a kernel's specification and its operands in order, the output last
    Operand   a tensor in memory (Tensor), constants (Constant), a table of lanes (Table), or the image

Nothing here decides; what can be chosen (tiles, rows, what is fused) comes in as arguments from `plan`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from smallcnn import ops
from smallcnn.compiler.kernels import chain, conv, depthwise, lanes, matmul
from smallcnn.compiler.kernels.matmul import Tile
from smallcnn.compiler.kernels.pipe import Step
from smallcnn.compiler.layers import Act, Affine, Layer, Plus, Storage, View, up
from smallcnn.errors import CompileError


@dataclass(frozen=True, eq=False)
class Tensor:
    """Lanes of a storage from `first` on, with the extents and strides (in floats) the kernel was made for."""

    storage: Storage
    first: int
    extents: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Constant:
    """Weights, packed; dimension 0 of the kernel is the last axis."""

    value: np.ndarray


@dataclass(frozen=True, eq=False)
class Table:
    """Where each channel of a view lies, relative to the arena operand before it: (groups, channels)."""

    view: View
    groups: int


@dataclass(frozen=True, eq=False)
class Arena:
    """The storages of a view as one operand of (lane, pixel) or (lane, x, y)."""

    view: View
    pixels: tuple[int, ...]


@dataclass(frozen=True)
class Picture:
    """The network's input, bytes."""

    extents: tuple[int, ...]


@dataclass(frozen=True)
class Answer:
    """The network's output, floats."""

    extents: tuple[int, ...]


Operand = Tensor | Constant | Table | Arena | Picture | Answer


@dataclass(frozen=True, eq=False)
class Call:
    """One call of one kernel. `split` is the output's dimension that threads divide, in multiples of `grain`."""

    layers: tuple[Layer, ...]
    spec: Any
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
    """What turns bytes into the network's numbers: value * scale + shift, per channel."""

    scale: np.ndarray
    shift: np.ndarray


def pointwise(layer: Layer, tile: Tile, vector: int, blocks: int = 1) -> Call:
    """1x1 convolution, dense layer. `blocks` divides the output's lanes so that threads can share them."""
    source, out = layer.inputs[0], layer.output.storage
    groups = layer.op.groups if isinstance(layer.op, ops.Conv) else 1
    channels = source.channels // groups
    lanes_all = _lanes(layer, vector)
    share = groups * blocks
    lanes = lanes_all // share
    pixels = out.pixels
    base = None if groups > 1 and blocks > 1 else _group_step(source, groups)
    table = base is None
    if blocks > 1 and groups > 1:
        raise CompileError(f"{layer.label}: groups and blocks")
    first = Tensor(
        source.storage, source.slots[0], (channels, pixels, share), (1, source.storage.pitch, 0 if blocks > 1 else base or 0)
    )
    reads: list[Operand] = [first]
    if table:
        reads = [Arena(source, (pixels,)), Table(source, groups)]
        if blocks > 1:
            raise CompileError(f"{layer.label}: a gathered view cannot be divided into blocks")
    spec = matmul.Pointwise(
        pixels, channels, lanes, share, table, source.storage.pitch, 0 if blocks > 1 else base or 0, out.pitch,
        _steps(layer), tile,
    )  # fmt: skip
    weight = _matrix_weight(layer, vector).reshape(share, lanes // vector, -1, vector)
    bias = _per_lane(layer, layer.bias, vector).reshape(share, lanes)
    operands = [*reads, Constant(weight), Constant(bias)]
    operands += _ends(layer, (lanes, pixels, share), _by_group(lanes), vector)
    split, grain = (1, tile.pixels) if share == 1 or groups > 1 else (2, 1)
    return Call((layer,), spec, tuple(operands), split, grain)


def convolution(layer: Layer, tile: Tile, rows: int, vector: int, image: Normalisation | None, shape: tuple[int, int, int]) -> Call:
    """Any other dense or grouped convolution. `shape` is the input's (H, W, C)."""
    op, out = layer.op, layer.output.storage
    assert isinstance(op, ops.Conv)
    height, width, all_channels = shape
    channels = all_channels // op.groups
    lanes = _lanes(layer, vector) // op.groups
    before = (op.padding[0][0], op.padding[1][0])
    pitch = step = 0
    if image is not None:
        kind = "image"
        row = [np.tile(values, width).astype(np.float32) for values in (image.scale, image.shift)]
        reads: list[Operand] = [Picture((width * channels, height)), Constant(row[0]), Constant(row[1])]
    else:
        source = layer.inputs[0]
        pitch = source.storage.pitch
        base = _group_step(source, op.groups)
        if base is None:
            kind, reads = "table", [Arena(source, (width, height)), Table(source, op.groups)]
        else:
            kind, step = "plain", base
            extents = (channels, width, height, op.groups)
            reads = [Tensor(source.storage, source.slots[0], extents, (1, pitch, pitch * width, step))]
    spec = conv.Conv(
        height, width, out.height, out.width, channels, lanes, op.groups, op.kernel, op.stride, before, kind, pitch, step,
        out.pitch, _steps(layer), tile, rows,
    )  # fmt: skip
    weight = _matrix_weight(layer, vector).reshape(op.groups, lanes // vector, -1, vector)
    bias = _per_lane(layer, layer.bias, vector).reshape(op.groups, lanes)
    operands = [*reads, Constant(weight), Constant(bias)]
    operands += _ends(layer, (lanes, out.pixels, op.groups), _by_group(lanes), vector)
    return Call((layer,), spec, tuple(operands), 1, rows * out.width, spec.scratch)


def depthwise_conv(layer: Layer, pixels: int, vector: int) -> Call:
    """One filter per channel."""
    spec, operands = _taps(layer, pixels, vector)
    out = layer.output.storage
    operands += _ends(layer, (spec.lanes, out.width, out.height), _by_plane(out.width), vector)
    return Call((layer,), spec, tuple(operands), 2, 1)


def separable(first: Layer, second: Layer, pixels: int, tile: Tile, rows: int, vector: int) -> Call:
    """A depthwise convolution and the pointwise one behind it, in strips of rows."""
    taps, operands = _taps(first, pixels, vector)
    middle, out = first.output.storage, second.output.storage
    operands += _epilogue(first, (taps.lanes, middle.width, middle.height), _by_plane(middle.width), vector)
    channels = taps.lanes
    lanes = _lanes(second, vector)
    spec = depthwise.Separable(taps, lanes, out.pitch, _steps(second), tile, rows, channels)
    # the middle's lanes in their order; idle lanes have weight zero
    order = [slot - _low(first.output, vector) for slot in second.inputs[0].slots]
    weight = _matrix_weight(second, vector, order, channels).reshape(1, lanes // vector, channels, vector)
    operands += [Constant(weight), Constant(_per_lane(second, second.bias, vector).reshape(1, lanes))]
    operands += _ends(second, (lanes, out.pixels, 1), _by_group(lanes), vector)
    return Call((first, second), spec, tuple(operands), 1, rows * out.width, spec.scratch)


def bottleneck(
    first: Layer, second: Layer, third: Layer, tiles: tuple[Tile, Tile], pixels: int, rows: int, vector: int
) -> Call:
    """Expand, depthwise, project as one kernel."""
    taps, operands = _taps(second, pixels, vector)
    source, out = first.inputs[0], third.output.storage
    expand = chain.Expand(
        source.channels, taps.lanes, source.storage.pitch, _steps(first), tiles[0]
    )
    channels, lanes = taps.lanes, _lanes(third, vector)
    fold = (rows - 1) * taps.stride[0] + taps.kernel[0]
    spec = chain.Bottleneck(
        expand, taps, lanes, channels, out.pitch, _steps(third), tiles[1], rows, fold
    )
    reads: list[Operand] = [
        Tensor(source.storage, source.slots[0], (source.channels, source.storage.width, source.storage.height),
               _by_plane(source.storage.width)(source.storage.pitch)),
        Constant(_matrix_weight(first, vector).reshape(-1, source.channels, vector)),
        Constant(_per_lane(first, first.bias, vector)),
    ]  # fmt: skip
    middle = second.output.storage
    operands = [*reads, *_epilogue(first, (), _flat, vector), *operands[1:]]
    operands += _epilogue(second, (taps.lanes, middle.width, middle.height), _by_plane(middle.width), vector)
    order = [slot - _low(second.output, vector) for slot in third.inputs[0].slots]
    weight = _matrix_weight(third, vector, order, channels).reshape(1, lanes // vector, channels, vector)
    operands += [Constant(weight), Constant(_per_lane(third, third.bias, vector).reshape(1, lanes))]
    operands += _ends(third, (lanes, out.pixels, 1), _by_group(lanes), vector)
    return Call((first, second, third), spec, tuple(operands), 1, rows * out.width, spec.scratch)


def answer(view: View) -> Call:
    """The logits, copied out."""
    spec = lanes.Gather(view.channels, view.storage.pitch, view.channels)
    operands = (Arena(view, (1,)), Table(view, 1), Answer((view.channels, 1)))
    return Call((), spec, operands, None, 1)


def per_lane(layer: Layer, vector: int, image: Normalisation | None = None) -> Call:
    """Pooling, padding, elementwise work, copies, local response normalisation."""
    out = layer.output.storage
    operands: list[Operand]
    spec: Any
    if layer.op == "image":
        assert image is not None
        channels = layer.output.channels
        spec = lanes.Image(channels, out.pitch)
        operands = [Picture((channels, out.pixels)), Constant(image.scale), Constant(image.shift)]
        operands += _ends(layer, (channels, out.pixels), _flat, vector)
        return Call((layer,), spec, tuple(operands), 1, 1)
    source = layer.inputs[0]
    if layer.op == "copy":
        spec = lanes.Gather(source.channels, source.storage.pitch, out.pitch)
        operands = [Arena(source, (out.pixels,)), Table(source, 1)]
        operands += _ends(layer, (source.channels, out.pixels), _flat, vector)
        return Call((layer,), spec, tuple(operands), 1, 1)
    width, pitch, low = _lanes(layer, vector), source.storage.pitch, _low(source, vector)
    height_in, width_in = source.storage.height, source.storage.width
    steps = _steps(layer)
    split: int | None
    strides: Strides
    match layer.op:
        case ops.Pool() as op:
            (top, bottom), (left, right) = op.padding
            spec = lanes.Pool(
                op.function, height_in, width_in, out.height, out.width, width, op.kernel, op.stride, (top, left),
                (bottom, right), op.count_padding, pitch, out.pitch, steps,
            )  # fmt: skip
            reads: list[Operand] = [_plane(source, low, width)]
            extents, strides, split = (width, out.width, out.height), _by_plane(out.width), 2
        case ops.Pad() as op:
            before = (op.padding[0][0], op.padding[1][0])
            spec = lanes.Pad(height_in, width_in, out.width, width, before, pitch, out.pitch, steps)
            reads = [_plane(source, low, width)]
            extents, strides, split = (width, out.width, out.height), _by_plane(out.width), 2
        case ops.GlobalPool():
            pixels = source.storage.pixels
            spec = lanes.GlobalPool(pixels, width, pitch, steps)
            reads = [Tensor(source.storage, low, (width, pixels), (1, pitch))]
            extents, strides, split = (width,), lambda _: (1,), None
        case ops.LocalResponseNorm() as op:
            spec = lanes.Response(
                op.size, op.alpha, op.beta, op.bias, source.channels, pitch, out.pitch, steps
            )
            reads = [Tensor(source.storage, low, (source.channels, out.pixels), (1, pitch))]
            extents, strides, split = (source.channels, out.pixels), _flat, 1
        case ops.Scale() | ops.Add() | ops.Activation() | ops.Clip() | ops.BatchNorm() as op:
            scale = isinstance(op, ops.Scale)
            others = () if not isinstance(op, ops.Add) else layer.inputs[1:]
            plus = tuple(Step("plus", pitch=other.storage.pitch) for other in others)
            spec = lanes.Lanes(width, pitch, scale, out.pitch, (*plus, *steps))
            reads = [Tensor(source.storage, low, (width, out.pixels), (1, pitch))]
            if scale:
                reads.append(Tensor(layer.inputs[1].storage, _low(layer.inputs[1], vector), (width,), (1,)))
            for other in others:
                first = min(other.slots) - (min(source.slots) - low)
                reads.append(Tensor(other.storage, first, (width, out.pixels), (1, other.storage.pitch)))
            extents, strides, split = (width, out.pixels), _flat, 1
        case other:
            raise CompileError(f"{layer.label}: no kernel for {other}")
    operands = [*reads, *_ends(layer, extents, strides, vector)]
    return Call((layer,), spec, tuple(operands), split, 1)


def _plane(view: View, low: int, width: int) -> Tensor:
    s = view.storage
    return Tensor(s, low, (width, s.width, s.height), (1, s.pitch, s.pitch * s.width))


def _low(view: View, vector: int) -> int:
    return min(view.slots) // vector * vector


def _lanes(layer: Layer, vector: int) -> int:
    """Lanes that the layer writes: whole vectors, for grouped convolutions per group."""
    if isinstance(layer.op, ops.Conv) and layer.op.groups > 1 and not _is_depthwise(layer):
        return layer.op.groups * up(layer.op.out // layer.op.groups, vector)
    slots = layer.output.slots
    return up(max(slots) + 1 - min(slots) + min(slots) % vector, vector)


def _is_depthwise(layer: Layer) -> bool:
    return (
        isinstance(layer.op, ops.Conv)
        and bool(layer.inputs)
        and 1 < layer.op.groups == layer.inputs[0].channels == layer.op.out
    )


def _group_step(view: View, groups: int) -> int | None:
    """Lanes from one group's channels to the next's, if all are contiguous and evenly apart; None: use a table."""
    if not view.single:
        return None
    slots = np.array(view.slots).reshape(groups, -1)
    if slots.shape[1] > 1 and (np.diff(slots, axis=1) != 1).any():
        return None
    steps = np.diff(slots[:, 0])
    if len(steps) and (steps != steps[0]).any():
        return None
    step = int(steps[0]) if len(steps) else 0
    return step if step >= 0 else None


def _matrix_weight(layer: Layer, vector: int, order: Sequence[int] | None = None, depth: int = 0) -> np.ndarray:
    """(out, in, kh, kw) -> (groups * vectors, taps * channels, vector): lane, then k, then vector.

    With `order`, channel i of the input is row order[i] of `depth`.
    """
    assert layer.weight is not None
    weight = layer.weight.reshape(*layer.weight.shape[:2], *(layer.weight.shape[2:] or (1, 1)))
    out, channels, height, width = weight.shape
    groups = layer.op.groups if isinstance(layer.op, ops.Conv) else 1
    per_group = out // groups
    rows = weight.transpose(0, 2, 3, 1).reshape(groups, per_group, height * width * channels)
    if order is not None:
        scattered = np.zeros((groups, per_group, depth), np.float32)
        scattered[:, :, list(order)] = rows
        rows = scattered
    padded = np.zeros((groups, up(per_group, vector), rows.shape[2]), np.float32)
    padded[:, :per_group] = rows
    return padded.reshape(groups, -1, vector, rows.shape[2]).transpose(0, 1, 3, 2)


def _per_lane(layer: Layer, values: np.ndarray | None, vector: int) -> np.ndarray:
    """One value per output channel, placed on the lanes that the layer writes; zero elsewhere."""
    result = np.zeros(_lanes(layer, vector), np.float32)
    if values is not None:
        low = _low(layer.output, vector)
        result[[slot - low for slot in layer.output.slots]] = values
    return result


def _taps(layer: Layer, pixels: int, vector: int) -> tuple[depthwise.Depthwise, list[Operand]]:
    op, source, out = layer.op, layer.inputs[0], layer.output.storage
    assert isinstance(op, ops.Conv)
    assert layer.weight is not None
    width, low = _lanes(layer, vector), _low(source, vector)
    spec = depthwise.Depthwise(
        source.storage.height, source.storage.width, out.height, out.width, width, op.kernel, op.stride,
        (op.padding[0][0], op.padding[1][0]), source.storage.pitch, out.pitch, _steps(layer), min(pixels, out.width),
    )  # fmt: skip
    weight = np.zeros((*op.kernel, width), np.float32)
    at = [slot - _low(layer.output, vector) for slot in layer.output.slots]
    weight[:, :, at] = layer.weight[:, 0].transpose(1, 2, 0)
    return spec, [_plane(source, low, width), Constant(weight), Constant(_per_lane(layer, layer.bias, vector))]


def _steps(layer: Layer) -> tuple[Step, ...]:
    steps = []
    for part in layer.epilogue:
        match part:
            case Act(function, low, high):
                steps.append(Step(function, low, high))
            case Affine():
                steps.append(Step("affine"))
            case Plus(other):
                steps.append(Step("plus", pitch=other.storage.pitch))
    return tuple(steps)


Strides = Callable[[int], tuple[int, ...]]


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
    return [*_epilogue(layer, extents, strides, vector), Tensor(place, _low(layer.output, vector), extents, strides(place.pitch))]


def _epilogue(layer: Layer, extents: tuple[int, ...], strides: Strides, vector: int) -> list[Operand]:
    operands: list[Operand] = []
    for part in layer.epilogue:
        if isinstance(part, Affine):
            operands += [Constant(_per_lane(layer, values, vector)) for values in (part.scale, part.shift)]
        elif isinstance(part, Plus):
            other = part.other
            first = min(other.slots) - min(layer.output.slots) + _low(layer.output, vector)
            operands.append(Tensor(other.storage, first, extents, strides(other.storage.pitch)))
    return operands
