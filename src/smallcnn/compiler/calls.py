"""Turns layers into kernel calls: which kernel, with which constants, on which operands.

    call(layers, choice, context) -> Call      one layer, two (depthwise, pointwise), or a chain of more

No decisions are made here: what is fused comes from `plan`, tiles and strips from a `Choice`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from smallcnn.compiler import packing, specs
from smallcnn.compiler.choices import Choice
from smallcnn.compiler.layers import ELEMENTWISE, Layer
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
from smallcnn.compiler.sides import order_of, plane_of, sink_of, source_of, taps_of, window_of
from smallcnn.compiler.specs import Elementwise, Machine, Sink, Source, Spec
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

    @property
    def scratch_bytes(self) -> int:
        """Working memory per thread."""
        return getattr(self.spec, "scratch_bytes", 0)


@dataclass(frozen=True)
class Normalisation:
    """Normalisation from bytes to the network's input: value * scale + shift, per channel."""

    scale: np.ndarray
    shift: np.ndarray


@dataclass(frozen=True)
class Context:
    """What all calls of a network share: the machine, and how its input image is read; `input_shape` is (H, W, C)."""

    machine: Machine
    image: Normalisation
    input_shape: tuple[int, int, int]

    @property
    def vector(self) -> int:
        """Floats per register."""
        return self.machine.vector


def call(layers: Sequence[Layer], choice: Choice, context: Context) -> Call:
    """The call that computes these layers, by these choices."""
    first, *more = layers
    if len(more) > 1:
        return _chain(layers, choice, context)
    if more:
        return _separable(first, more[0], choice, context.vector)
    if first.op == "image":
        return _image(first, context)
    if first.depthwise:
        return _depthwise(first, choice, context.vector)
    if isinstance(first.op, ops.Dense) or first.pointwise(grouped=True):
        return _pointwise(first, choice, context.vector)
    if isinstance(first.op, ops.Conv):
        return _convolution(first, choice, context)
    return _lanewise(first, context.vector)


def answer(view: View, index: int) -> Call:
    """An output, copied out of the arena."""
    spec = specs.Gather(
        Source(view.channels, view.storage.pitch, table=True), view.channels, view.channels, view.number
    )
    pixels = view.storage.pixels
    operands = (Arena(view, (pixels,)), Table(view, None), Answer(index, (view.channels, pixels), view.number))
    return Call((), spec, operands, 1 if pixels > 1 else None, 1)


def _pointwise(layer: Layer, choice: Choice, vector: int) -> Call:
    """1x1 convolution, fully connected layer."""
    view, out, (tile,) = layer.inputs[0], layer.output.storage, choice.tiles
    source, reads = source_of(view, layer.groups, (out.pixels,))
    shares = layer.groups * choice.shares
    if choice.shares > 1:
        extents = (view.channels, out.pixels, choice.shares)
        reads = [Map(view.storage, view.slots[0], extents, (1, view.storage.pitch, 0))]
    lanes = layer.lanes(vector) // shares
    operands = (
        *reads,
        *packing.matrix(layer, vector, shares),
        *packing.ends(layer, (lanes, out.pixels, shares), by_group(lanes), vector),
    )
    split, grain = (2, 1) if choice.shares > 1 else (1, tile.pixels)
    return Call((layer,), specs.Pointwise(source, sink_of(layer, lanes, shares), tile), operands, split, grain, choice)


def _convolution(layer: Layer, choice: Choice, context: Context) -> Call:
    """Any other dense or grouped convolution."""
    out, (tile,), vector = layer.output.storage, choice.tiles, context.vector
    if layer.from_image:
        height, width, _ = context.input_shape
        source, reads = _image_rows(context)
    else:
        height, width = layer.inputs[0].storage.height, layer.inputs[0].storage.width
        source, reads = source_of(layer.inputs[0], layer.groups, (width, height))
    lanes = layer.lanes(vector) // layer.groups
    sink = sink_of(layer, lanes, layer.groups)
    spec = specs.Conv(window_of(layer, (height, width)), source, layer.from_image, sink, tile, choice.rows)
    operands = (
        *reads,
        *packing.matrix(layer, vector, layer.groups),
        *packing.ends(layer, (lanes, out.pixels, layer.groups), by_group(lanes), vector),
    )
    return Call((layer,), spec, operands, 1, choice.rows * out.width, choice)


def _depthwise(layer: Layer, choice: Choice, vector: int) -> Call:
    """One filter per channel."""
    spec, operands = taps_of(layer, choice.tiles[0], vector)
    out = layer.output.storage
    operands += packing.ends(layer, (spec.sink.lanes, out.width, out.height), by_plane(out.width), vector)
    return Call((layer,), spec, tuple(operands), 2, 1, choice)


def _separable(first: Layer, second: Layer, choice: Choice, vector: int) -> Call:
    """A depthwise convolution fused with the pointwise one after it."""
    neighbours, tile = choice.tiles
    taps, operands = taps_of(first, neighbours, vector)
    middle, out = first.output.storage, second.output.storage
    depth, lanes = first.lanes(vector), second.lanes(vector)
    operands += packing.epilogue(first, (depth, middle.width, middle.height), by_plane(middle.width), vector)
    operands += packing.matrix(second, vector, 1, order_of(second, first, vector), depth)
    operands += packing.ends(second, (lanes, out.pixels, 1), by_group(lanes), vector)
    spec = specs.Separable(taps, Source(depth, depth), sink_of(second, lanes), tile, choice.rows)
    return Call((first, second), spec, tuple(operands), 1, choice.rows * out.width, choice)


def _chain(layers: Sequence[Layer], choice: Choice, context: Context) -> Call:
    """Layers that feed each other, the last one pointwise, as one kernel."""
    stages: list[specs.Conv | specs.Pointwise | specs.Depthwise] = []
    operands: list[Operand] = []
    vector = context.vector
    plane = (context.input_shape[1], context.input_shape[0])
    for i, (layer, tile) in enumerate(zip(layers, choice.tiles, strict=True)):
        out, last = layer.output.storage, i == len(layers) - 1
        lanes = layer.lanes(vector)
        extents, strides = (lanes, out.width, out.height), by_plane(out.width)
        if layer.depthwise:
            spec, constants = taps_of(layer, tile, vector)
            stages.append(spec)
            if i == 0:
                plane = (spec.window.width, spec.window.height)
                operands.append(constants[0])
            operands += [*constants[1:], *packing.epilogue(layer, extents, strides, vector)]
            continue
        order, depth = None, 0
        if layer.from_image:
            source, reads = _image_rows(context)
            operands += reads
            window = window_of(layer, plane[::-1])
            stages.append(specs.Conv(window, source, True, sink_of(layer, lanes), tile, choice.rows))
        elif i == 0:
            view = layer.inputs[0]
            plane = (view.storage.width, view.storage.height)
            pitch = view.storage.pitch
            operands.append(Map(view.storage, view.slots[0], (view.channels, *plane), by_plane(plane[0])(pitch)))
            stages.append(specs.Pointwise(Source(view.channels, pitch), sink_of(layer, lanes), tile))
        else:
            order, depth = order_of(layer, layers[i - 1], vector), layers[i - 1].lanes(vector)
            stages.append(specs.Pointwise(Source(depth, depth), sink_of(layer, lanes), tile))
        if last:
            operands += packing.matrix(layer, vector, 1, order, depth)
            operands += packing.ends(layer, (lanes, out.pixels, 1), by_group(lanes), vector)
        else:
            operands += packing.matrix(layer, vector, None, order, depth)
            operands += packing.epilogue(layer, extents, strides, vector)
    *head, final = stages
    assert isinstance(final, specs.Pointwise)
    grain = choice.rows * layers[-1].output.storage.width
    return Call(tuple(layers), specs.Chain(plane, tuple(head), final, choice.rows), tuple(operands), 1, grain, choice)


def _image(layer: Layer, context: Context) -> Call:
    """Converts the image to floats where the first reader is not a convolution."""
    out, channels, lanes = layer.output.storage, layer.output.channels, layer.lanes(context.vector)
    operands = (
        InputImage((channels, out.pixels)),
        *(Constant.of(values) for values in (context.image.scale, context.image.shift)),
        *packing.ends(layer, (lanes, out.pixels), flat, context.vector),
    )
    return Call((layer,), specs.Image(channels, lanes, out.pitch), operands, 1, 1)


def _lanewise(layer: Layer, vector: int) -> Call:
    """Pooling, padding, elementwise work, copies, local response normalisation."""
    source, out = layer.inputs[0], layer.output.storage
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
        case ops.Pool() as op:
            spec = specs.Pool(op.function, window_of(layer, plane), op.count_padding, pitch, sink, number)
        case ops.Pad():
            spec = specs.Pad(window_of(layer, plane), pitch, sink, number, layer.zero)
        case ops.GlobalPool():
            spec = specs.GlobalPool(*plane, pitch, sink)
            operands = [*reads, *packing.ends(layer, (lanes,), lambda _: (1,), vector)]
            return Call((layer,), spec, tuple(operands), None, 1)
        case ops.LocalResponseNorm() as op:
            spec = specs.Response(op.size, op.alpha, op.beta, op.bias, source.channels, pitch, sink)
            extents, strides, split = (lanes, out.pixels), flat, 1
            reads = [Map(source.storage, low, extents, flat(pitch))]
        case op if isinstance(op, (ops.Scale, ops.Add, *ELEMENTWISE)):
            extents, strides, split = (lanes, out.pixels), flat, 1
            reads = [Map(source.storage, low, extents, flat(pitch))]
            plus: tuple[Elementwise, ...] = ()
            for other in layer.inputs[1:]:
                first = min(other.slots) - (min(source.slots) - low)
                if isinstance(layer.op, ops.Scale):
                    reads.append(Map(other.storage, first, (lanes,), (1,)))
                else:
                    reads.append(Map(other.storage, first, extents, flat(other.storage.pitch)))
                    plus += (Elementwise("plus", pitch=other.storage.pitch),)
            sink = Sink(lanes, out.pitch, (*plus, *sink.epilogue), number=sink.number)
            spec = specs.Lanes(pitch, isinstance(layer.op, ops.Scale), sink, number)
        case op:
            raise CompileError(f"{layer.label}: the compiler has no kernel for {op}")
    operands = [*reads, *packing.ends(layer, extents, strides, vector)]
    return Call((layer,), spec, tuple(operands), split, 1)


def _image_rows(context: Context) -> tuple[Source, list[Operand]]:
    """The network's input by rows, with scale and shift for each byte of a row."""
    height, width, channels = context.input_shape
    tables = [Constant.of(np.tile(values, width)) for values in (context.image.scale, context.image.shift)]
    return Source(channels, channels), [InputImage((width * channels, height)), *tables]
