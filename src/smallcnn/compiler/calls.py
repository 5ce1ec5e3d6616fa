"""Turns layers into kernel calls: which kernel, with which constants, on which operands.

    call(layers, choice, context) -> Call      one layer, two (depthwise, pointwise), or a chain of more

No decisions are made here: what is fused comes from `plan`, tiles and strips from a `Choice`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from smallcnn.compiler import detecting, packing, specs, whole
from smallcnn.compiler.arithmetic import Machine
from smallcnn.compiler.choice import Choice
from smallcnn.compiler.estimate import Estimator
from smallcnn.compiler.layers import ELEMENTWISE, Layer
from smallcnn.compiler.machines import MachineModel
from smallcnn.compiler.operands import (
    Answer,
    Arena,
    Constant,
    InputImage,
    Map,
    Operand,
    Table,
    by_group,
    by_plane,
    flat,
)  # fmt: skip
from smallcnn.compiler.sides import (
    order_of,
    plane_of,
    pool_of,
    resize_of,
    sink_of,
    source_of,
    taps_of,
    terms_of,
    window_of,
)
from smallcnn.compiler.specs import Elementwise, Sink, Source, Spec
from smallcnn.compiler.storage import View
from smallcnn.errors import CompileError
from smallcnn.ir import ops


@dataclass(frozen=True, eq=False)
class Call:
    """One call of one kernel. `split` is the output's dimension that threads divide, in multiples of `grain`."""

    layers: tuple[Layer, ...]
    spec: Spec
    operands: tuple[Operand, ...]
    split: int | None
    grain: int
    choice: Choice = Choice()

    @property
    def label(self) -> str:
        """The graph nodes computed."""
        return "+".join(layer.label for layer in self.layers) or "answer"


@dataclass(frozen=True)
class Normalisation:
    """Normalisation from bytes to the network's input: value * scale + shift, per channel."""

    scale: np.ndarray
    shift: np.ndarray


@dataclass(frozen=True)
class Context:
    """What all calls of a network share: the machine, what is known of its speed, and how its input image is read;
    `input_shape` is (H, W, C). `compact`: no kernel holds more weights than its layers have."""

    machine: Machine
    model: MachineModel
    image: Normalisation
    input_shape: tuple[int, int, int]
    compact: bool = False

    @property
    def vector(self) -> int:
        """Floats per register."""
        return self.machine.vector

    def estimator(self, threads: int) -> Estimator:
        """Estimates for this machine and network."""
        return Estimator(self.model, self.machine, self.input_shape, threads)


def call(layers: Sequence[Layer], choice: Choice, context: Context) -> Call:
    """The call that computes these layers, by these choices."""
    first, *more = layers
    if len(more) == 1 and first.depthwise and more[0].pointwise():
        return _separable(first, more[0], choice, context.machine)
    if more:
        return _chain(layers, choice, context)
    if first.op == "image":
        return _image(first, context)
    if first.depthwise:
        return _depthwise(first, choice, context.machine)
    if isinstance(first.op, ops.Dense) or first.pointwise(grouped=True):
        return _pointwise(first, choice, context.machine)
    if isinstance(first.op, ops.Conv):
        return _convolution(first, choice, context)
    if isinstance(first.op, ops.Detect | ops.Count | ops.Join):
        return Call((first,), *detecting.kernel(first), None, 1)
    return _lanewise(first, choice, context.machine)


def answer(view: View, index: int) -> Call:
    """An output, copied out of the arena."""
    spec = specs.Gather(
        Source(view.channels, view.storage.pitch, table=True), view.channels, view.channels, view.number
    )
    pixels = view.storage.pixels
    operands = (Arena(view, (pixels,)), Table(view, None), Answer(index, (view.channels, pixels), view.number))
    return Call((), spec, operands, 1 if pixels > 1 else None, 1)


def _pointwise(layer: Layer, choice: Choice, machine: Machine) -> Call:
    """1x1 convolution, fully connected layer."""
    view, out, (tile,), vector = layer.inputs[0], layer.output.storage, choice.tiles, machine.vector
    source, reads, places = source_of(layer, layer.groups, (out.pixels,), machine)
    shares = layer.groups * choice.shares
    if choice.shares > 1:
        extents = (view.channels, out.pixels, choice.shares)
        reads = [Map(view.storage, view.slots[0], extents, (1, view.storage.pitch, 0))]
    lanes = layer.lanes(vector) // shares
    operands = (
        *reads,
        *packing.matrix(layer, machine, shares, places, source.channels),
        *packing.ends(layer, (lanes, out.pixels, shares), by_group(lanes), vector),
    )
    split, grain = (2, 1) if choice.shares > 1 else (1, tile.pixels)
    spec = specs.Pointwise(source, sink_of(layer, lanes, shares), tile, layer.bytes)
    return Call((layer,), spec, operands, split, grain, choice)


def _convolution(layer: Layer, choice: Choice, context: Context) -> Call:
    """Any other dense or grouped convolution."""
    (tile,), vector = choice.tiles, context.vector
    if layer.from_image:
        height, width, _ = context.input_shape
        source, reads = _image_rows(layer, context)
    else:
        height, width = layer.inputs[0].storage.height, layer.inputs[0].storage.width
        source, reads, _ = source_of(layer, layer.groups, (width, height), context.machine)
    lanes = layer.lanes(vector) // layer.groups
    sink = sink_of(layer, lanes, layer.groups)
    window = window_of(layer, (height, width))
    spec: Spec = specs.Winograd(window, source, sink, tile, choice.rows, layer.bytes)
    if not tile.side:
        looks_up = _looks_up(layer, reads)
        spec = specs.Conv(window, source, layer.from_image, sink, tile, choice.rows, layer.bytes, looks_up)
    operands, split, grain = _strips(layer, choice, context.machine)
    return Call((layer,), spec, (*reads, *operands), split, grain, choice)


def _depthwise(layer: Layer, choice: Choice, machine: Machine) -> Call:
    """One filter per channel."""
    spec, operands = taps_of(layer, choice.tiles[0], machine)
    out, vector = layer.output.storage, machine.vector
    operands += packing.ends(layer, (spec.sink.lanes, out.width, out.height), by_plane(out.width), vector)
    return Call((layer,), spec, tuple(operands), 2, 1, choice)


def _separable(first: Layer, second: Layer, choice: Choice, machine: Machine) -> Call:
    """A depthwise convolution fused with the pointwise one after it."""
    (neighbours, tile), vector = choice.tiles, machine.vector
    taps, operands = taps_of(first, neighbours, machine)
    middle = first.output.storage
    depth, lanes = terms_of(second, first, vector), second.lanes(vector)
    extents = (first.lanes(vector), middle.width, middle.height)
    operands += packing.epilogue(first, extents, by_plane(middle.width), vector)
    last, split, grain = _strips(second, choice, machine, [order_of(second, first, vector)], depth)
    spec = specs.Separable(taps, Source(depth, depth), sink_of(second, lanes), tile, choice.rows, second.bytes)
    return Call((first, second), spec, (*operands, *last), split, grain, choice)


def _chain(layers: Sequence[Layer], choice: Choice, context: Context) -> Call:
    """Layers that feed each other as one kernel."""
    stages: list[specs.Conv | specs.Pointwise | specs.Depthwise | specs.Pool] = []
    operands: list[Operand] = []
    machine, vector = context.machine, context.vector
    plane = (context.input_shape[1], context.input_shape[0])
    order: list[list[int]] | None = None
    depth = 0
    for i, (layer, tile) in enumerate(zip(layers, choice.tiles, strict=True)):
        out, last = layer.output.storage, i == len(layers) - 1
        lanes = layer.lanes(vector)
        extents, strides = (lanes, out.width, out.height), by_plane(out.width)
        if layer.depthwise or isinstance(layer.op, ops.Pool):
            stage, (source, *constants) = (taps_of if layer.depthwise else pool_of)(layer, tile, machine)
            stages.append(stage)
            if i == 0:
                plane = (stage.window.width, stage.window.height)
                operands.append(source)
            operands += [*constants, *(packing.ends if last else packing.epilogue)(layer, extents, strides, vector)]
            continue
        order, depth = None, 0
        if layer.from_image:
            image, reads = _image_rows(layer, context)
            operands += reads
            window = window_of(layer, plane[::-1])
            sink = sink_of(layer, lanes)
            stages.append(
                specs.Conv(window, image, True, sink, tile, choice.rows, layer.bytes, _looks_up(layer, reads))
            )
        elif i == 0:
            view = layer.inputs[0]
            plane = (view.storage.width, view.storage.height)
            pitch = view.storage.pitch
            operands.append(Map(view.storage, view.slots[0], (view.channels, *plane), by_plane(plane[0])(pitch)))
            stages.append(specs.Pointwise(Source(view.channels, pitch), sink_of(layer, lanes), tile, layer.bytes))
        else:
            order, depth = [order_of(layer, layers[i - 1], vector)], terms_of(layer, layers[i - 1], vector)
            stages.append(specs.Pointwise(Source(depth, depth), sink_of(layer, lanes), tile, layer.bytes))
        if not last:
            operands += packing.matrix(layer, machine, None, order, depth)
            operands += packing.epilogue(layer, extents, strides, vector)
    *head, final = stages
    assert not isinstance(final, specs.Conv)
    spec = specs.Chain(plane, tuple(head), final, choice.rows)
    if not isinstance(final, specs.Pointwise):
        return Call(tuple(layers), spec, tuple(operands), 2, choice.rows, choice)
    more, split, grain = _strips(layers[-1], choice, machine, order, depth)
    return Call(tuple(layers), spec, (*operands, *more), split, grain, choice)


def _strips(
    layer: Layer, choice: Choice, machine: Machine, order: Sequence[Sequence[int]] | None = None, depth: int = 0
) -> tuple[list[Operand], int, int]:
    """Weights, epilogue and output of a matrix product in strips of rows; the dimension that threads split, and its
    grain."""
    out, groups, vector = layer.output.storage, layer.groups, machine.vector
    lanes = layer.lanes(vector) // groups
    extents: tuple[int, ...]
    shares: int | None
    if choice.tiles[-1].across:
        extents, strides, shares = (lanes, out.pixels, groups), by_group(lanes), groups
        split, grain = 1, choice.rows * out.width
    else:
        of_group = (groups,) if groups > 1 else ()
        extents, strides = (lanes, out.width, out.height, *of_group), by_plane(out.width, *[lanes] * len(of_group))
        split, grain, shares = 2, choice.rows, (groups if of_group else None)
    weights = packing.matrix(layer, machine, shares, order, depth)
    if choice.tiles[-1].side and not layer.bytes:
        weights = packing.minimal(layer, machine, choice.tiles[-1].side)
    return [*weights, *packing.ends(layer, extents, strides, vector)], split, grain


def _image(layer: Layer, context: Context) -> Call:
    """Converts the image to floats where the first reader is not a convolution."""
    out, channels, lanes = layer.output.storage, layer.output.channels, layer.lanes(context.vector)
    operands = (
        InputImage((channels, out.pixels)),
        *_normalised(layer, context, 1),
        *packing.ends(layer, (lanes, out.pixels), flat, context.vector),
    )
    return Call((layer,), specs.Image(channels, lanes, out.pitch, out.number), operands, 1, 1)


def _lanewise(layer: Layer, choice: Choice, machine: Machine) -> Call:
    """Pooling, padding, elementwise work, copies, local response normalisation."""
    source, out, vector = layer.inputs[0], layer.output.storage, machine.vector
    lanes, pitch, low, number = layer.lanes(vector), source.storage.pitch, source.low(vector), source.number
    sink = sink_of(layer, lanes)
    plane = (source.storage.height, source.storage.width)
    reads: list[Operand] = [plane_of(source, lanes, vector)]
    extents: tuple[int, ...] = (lanes, out.width, out.height)
    strides, split = by_plane(out.width), 2
    spec: Spec
    match layer.op:
        case "copy":
            reads = [Arena(source, (out.pixels,)), Table(source, None)]
            spec = specs.Gather(Source(source.channels, pitch, table=True), lanes, out.pitch, number)
            extents, strides, split = (lanes, out.pixels), flat, 1
        case ops.Pool():
            spec, reads = pool_of(layer, choice.tiles[0], machine)
        case ops.Pad():
            spec = specs.Pad(window_of(layer, plane), pitch, sink, number, layer.zero)
        case ops.Resize():
            spec, reads = resize_of(layer, machine)
        case ops.GlobalPool():
            spec = specs.GlobalPool(*plane, pitch, sink, number, layer.zero)
            operands = [*reads, *packing.ends(layer, (lanes,), lambda _: (1,), vector)]
            return Call((layer,), spec, tuple(operands), None, 1, choice)
        case ops.LocalResponseNorm() as op:
            spec = specs.Response(op.size, op.alpha, op.beta, op.bias, source.channels, pitch, sink)
            extents, strides, split = (lanes, out.pixels), flat, 1
            reads = [Map(source.storage, low, extents, flat(pitch))]
        case op if isinstance(op, (ops.Scale, ops.Add, ops.Sub, *ELEMENTWISE)):
            extents, strides, split = (lanes, out.pixels), flat, 1
            reads = [Map(source.storage, low, extents, flat(pitch))]
            plus: tuple[Elementwise, ...] = ()
            for other in layer.inputs[1:]:
                first = min(other.slots) - (min(source.slots) - low)
                if isinstance(layer.op, ops.Scale):
                    reads.append(Map(other.storage, first, (lanes,), (1,)))
                else:
                    reads.append(Map(other.storage, first, extents, flat(other.storage.pitch)))
                    sign = "minus" if isinstance(layer.op, ops.Sub) else "plus"
                    plus += (Elementwise(sign, pitch=other.storage.pitch),)
            sink = Sink(lanes, out.pitch, (*plus, *sink.epilogue), number=sink.number)
            zeros = (layer.zero, layer.other_zero)
            spec = specs.Lanes(pitch, isinstance(layer.op, ops.Scale), sink, number, zeros)
        case op:
            raise CompileError(f"{layer.label}: the compiler has no kernel for {op}")
    operands = [*reads, *packing.ends(layer, extents, strides, vector)]
    return Call((layer,), spec, tuple(operands), split, 1, choice)


def _image_rows(layer: Layer, context: Context) -> tuple[Source, list[Operand]]:
    """The network's input by rows, with scale and shift for each byte of a row, or a table of bytes."""
    height, width, channels = context.input_shape
    image = InputImage((width * channels, height))
    return Source(channels, channels), [image, *_normalised(layer, context, width)]


def _looks_up(layer: Layer, reads: Sequence[Operand]) -> bool:
    """Whether the image is read through a table: one operand after it, instead of scale and shift."""
    return layer.from_image and len(reads) == 2


def _normalised(layer: Layer, context: Context, width: int) -> list[Operand]:
    """Scale and shift for each byte of `width` pixels; for a layer of bytes, those that round to the bytes that stand
    for them, or a table of these."""
    scale, shift = context.image.scale, context.image.shift
    if layer.grid:
        table = whole.image_table(layer.grid, scale, shift)
        affine = whole.image_affine(table, layer.grid, scale, shift) if layer.op != "image" else None
        if affine is None:
            return [Constant.of(table)]
        scale, shift = affine
    return [Constant.of(np.tile(values, width)) for values in (scale, shift)]
