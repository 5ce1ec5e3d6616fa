"""The sides of a kernel: where a layer reads and writes, as fields of a specification and as operands."""

import numpy as np

from smallcnn.compiler import packing
from smallcnn.compiler.arithmetic import Machine
from smallcnn.compiler.layers import (
    Act,
    AddBytes,
    Affine,
    Bound,
    Layer,
    Lookup,
    OffGrid,
    OntoGrid,
    Plus,
    Requantize,
    Round,
    Slopes,
    Swish,
)
from smallcnn.compiler.operands import Arena, Constant, Map, Operand, Table, by_plane
from smallcnn.compiler.reading import even_step, runs
from smallcnn.compiler.specs import Depthwise, Elementwise, Pool, Resize, Sink, Source, Tile, Window
from smallcnn.compiler.storage import View, up
from smallcnn.ir import ops
from smallcnn.ir.types import RANGES


def source_of(
    layer: Layer, groups: int, pixels: tuple[int, ...], machine: Machine
) -> tuple[Source, list[Operand], list[list[int]] | None]:
    """The channels that a layer reads in `groups`: in place if they are evenly spaced, else through a table.

    Where they are read as runs of lanes, the last is each channel's row among its group's (`reading.runs`), else None.
    """
    view = layer.inputs[0]
    channels, pitch, step = view.channels // groups, view.storage.pitch, even_step(view, groups)
    depth = up(channels, machine.dot) if layer.bytes else channels
    if step is None and layer.bytes and layer.unstripped:
        found = runs(view, groups, machine.runs)
        entries = machine.converted(found.lanes) // found.length
        source = Source(found.lanes, pitch, table=True, run=found.length)
        return source, [Arena(view, pixels), Table(found.starts, groups, entries)], found.rows
    if step is None:
        return Source(channels, pitch, table=True), [Arena(view, pixels), Table(view, groups, depth)], None
    strides = (1, pitch, step) if len(pixels) == 1 else (1, pitch, pitch * pixels[0], step)
    return Source(channels, pitch, step), [Map(view.storage, view.slots[0], (depth, *pixels, groups), strides)], None


def plane_of(view: View, lanes: int, vector: int) -> Map:
    """All lanes of a map."""
    storage = view.storage
    extents = (lanes, storage.width, storage.height)
    return Map(storage, view.low(vector), extents, by_plane(storage.width)(storage.pitch))


def window_of(layer: Layer, plane: tuple[int, int]) -> Window:
    """The window of a convolution, pool or padding over a plane of (height, width)."""
    out, op = layer.output.storage, layer.op
    assert isinstance(op, ops.Conv | ops.Pool | ops.Pad)
    before, after = zip(*op.padding, strict=True)
    kernel, stride = ((1, 1), (1, 1)) if isinstance(op, ops.Pad) else (op.kernel, op.stride)
    down, right = op.dilation if isinstance(op, ops.Conv) else (1, 1)
    dilation = (down if kernel[0] > 1 else 1, right if kernel[1] > 1 else 1)
    return Window(*plane, out.height, out.width, kernel, stride, before, after, dilation)


def taps_of(layer: Layer, neighbours: Tile, machine: Machine) -> tuple[Depthwise, list[Operand]]:
    """A depthwise convolution, and its source, weight and bias."""
    vector = machine.vector
    source, out, lanes = layer.inputs[0], layer.output.storage, layer.lanes(vector)
    window = window_of(layer, (source.storage.height, source.storage.width))
    pixels, sink = min(neighbours.pixels, out.width), sink_of(layer, lanes)
    spec = Depthwise(
        window, source.storage.pitch, sink, pixels, neighbours.block, relu=layer.relu_first, bytes=layer.bytes
    )
    return spec, [plane_of(source, lanes, vector), *packing.filters(layer, machine)]


def pool_of(layer: Layer, neighbours: Tile, machine: Machine) -> tuple[Pool, list[Operand]]:
    """A pool, and its source; of an average of bytes the scales, too."""
    vector = machine.vector
    source, lanes = layer.inputs[0], layer.lanes(vector)
    assert isinstance(layer.op, ops.Pool)
    window, sink = window_of(layer, (source.storage.height, source.storage.width)), sink_of(layer, lanes)
    pixels, pitch = min(neighbours.pixels, window.out_width), source.storage.pitch
    spec = Pool(layer.op.function, window, layer.op.count_padding, pitch, sink, pixels, source.number, layer.zero)
    scales = [Constant.of(np.array(layer.mean, np.float32))] if layer.mean else []
    return spec, [plane_of(source, lanes, vector), *scales]


def resize_of(layer: Layer, machine: Machine) -> tuple[Resize, list[Operand]]:
    """A resize, its source and its tables: the rows and columns that pixels read, and the shares of the second ones."""
    op, source, lanes = layer.op, layer.inputs[0], layer.lanes(machine.vector)
    assert isinstance(op, ops.Resize)
    storage, linear = source.storage, op.mode == "bilinear"
    tables, shares = [], []
    for before, after in ((storage.height, op.height), (storage.width, op.width)):
        first, second, share = zip(*op.taps(before, after), strict=True)
        tables.append(Constant.of(np.array([first, second] if linear else [first], np.int32).T.copy()))
        shares.append(Constant.of(np.array(share, np.float32)))
    plane, size = (storage.height, storage.width), (op.height, op.width)
    spec = Resize(plane, size, linear, storage.pitch, sink_of(layer, lanes), source.number)
    return spec, [plane_of(source, lanes, machine.vector), *tables, *(shares if linear else [])]


def order_of(layer: Layer, before: Layer, vector: int) -> list[int]:
    """Where each input channel of `layer` lies among the lanes of `before`."""
    low = before.output.low(vector)
    return [slot - low for slot in layer.inputs[0].slots]


def terms_of(layer: Layer, before: Layer, vector: int) -> int:
    """Terms of the sums of `layer`: lanes of `before` up to the last that it reads."""
    return max(layer.inputs[0].slots) + 1 - before.output.low(vector)


def sink_of(layer: Layer, lanes: int, groups: int = 1) -> Sink:
    """Where a layer writes, after its epilogue."""
    steps = []
    for step in layer.epilogue:
        match step:
            case Act(function, low, high):
                steps.append(Elementwise(function, low, high))
            case Affine():
                steps.append(Elementwise("affine"))
            case Slopes():
                steps.append(Elementwise("prelu"))
            case Plus(other, sign):
                steps.append(Elementwise(sign, pitch=other.storage.pitch))
            case OntoGrid(number):
                least, most = RANGES[number]
                steps.append(Elementwise("quantize", least, most, number=number))
            case OffGrid():
                steps.append(Elementwise("dequantize"))
            case Requantize(zero=zero, large=large):
                steps.append(Elementwise("requantize" if zero else "rescale", high=float(large)))
            case AddBytes(others=others):
                steps.append(Elementwise("scale"))
                steps += [Elementwise("term", pitch=view.storage.pitch, number="uint8") for view, _ in others]
            case Round():
                steps.append(Elementwise("round"))
            case Bound(low, high):
                steps.append(Elementwise("bound", low, high))
            case Swish():
                steps.append(Elementwise("swish"))
            case Lookup():
                steps.append(Elementwise("table"))
    return Sink(lanes, layer.output.storage.pitch, tuple(steps), groups, layer.output.number)
