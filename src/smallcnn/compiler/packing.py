"""A layer's weights in the order in which kernels read them."""

from collections.abc import Sequence

import numpy as np

from smallcnn.compiler.arithmetic import MAGIC_BITS, Machine
from smallcnn.compiler.layers import (
    AddBytes,
    Affine,
    Layer,
    Lookup,
    OffGrid,
    OntoGrid,
    Plus,
    Requantize,
    Round,
    Slopes,
    Swish,
    Term,
)
from smallcnn.compiler.operands import Constant, Map, Operand, Strides
from smallcnn.compiler.storage import View, up
from smallcnn.compiler.winograd import transform


def matrix(
    layer: Layer, machine: Machine, shares: int | None, order: Sequence[Sequence[int]] | None = None, depth: int = 0
) -> list[Operand]:
    """Weight and bias of a matrix product with lanes in `shares` groups; None: one group, without the dimension.

    With `order`, channel i of group g of the input is row order[g][i] of `depth`; the other rows are zero.
    """
    groups, vector = () if shares is None else (shares,), machine.vector

    def weight() -> np.ndarray:
        packed = _panels(layer, machine, order, depth)
        return packed.reshape(*groups, -1, *packed.shape[2:])

    return [Constant(weight), Constant.of(per_lane(layer, _bias(layer, machine), vector).reshape(*groups, -1))]


def _panels(layer: Layer, machine: Machine, order: Sequence[Sequence[int]] | None, depth: int) -> np.ndarray:
    """(out, in, kh, kw) -> (groups, vectors, taps * channels, vector), rows in the order (ky, kx, channel); of bytes
    (groups, vectors, taps * channels / dot, vector, dot), with channels (of the image: a row of the window, unless its
    columns are apart) rounded up to whole `dot`."""
    assert layer.weight is not None
    vector, groups, of = machine.vector, layer.groups, layer.bytes
    dot, zero = (machine.dot, of.weight_zero) if of else (1, 0)
    weight = layer.weight.reshape(*layer.weight.shape[:2], *(layer.weight.shape[2:] or (1, 1)))
    rows = weight.transpose(0, 2, 3, 1)  # (out, ky, kx, channel)
    if order is not None:
        scattered = np.full((*rows.shape[:3], depth), zero, rows.dtype if of else np.float32)
        for own, target, places in zip(*(np.split(a, groups) for a in (rows, scattered)), order, strict=True):
            for i, row in enumerate(places):
                target[..., row] += own[..., i] - target.dtype.type(zero)  # a channel may be read twice
        rows = scattered
    if layer.from_image and not layer.apart:
        rows = rows.reshape(*rows.shape[:2], -1)
    rows = _filled(rows, up(rows.shape[-1], dot), zero).reshape(groups, len(weight) // groups, -1)
    lanes = layer.lanes(vector) // groups
    padded = np.full((groups, lanes, rows.shape[2]), zero, rows.dtype if of else np.float32)
    padded[:, : rows.shape[1]] = rows
    panels = padded.reshape(groups, -1, vector, rows.shape[2] // dot, dot).transpose(0, 1, 3, 2, 4)
    return panels if of else panels[..., 0]


def minimal(layer: Layer, machine: Machine, side: int) -> list[Operand]:
    """Weight and bias of a 3x3 convolution by minimal filtering, in tiles of `side` x `side` outputs."""
    vector = machine.vector

    def weight() -> np.ndarray:
        assert layer.weight is not None
        filters = transform(side).filtered(layer.weight)  # (out, in, i, j)
        filters = np.pad(filters, [(0, layer.lanes(vector) - len(filters)), (0, 0), (0, 0), (0, 0)])
        return filters.reshape(-1, vector, *filters.shape[1:]).transpose(3, 4, 0, 2, 1)

    return [Constant(weight), Constant.of(per_lane(layer, layer.bias, vector))]


def _filled(values: np.ndarray, length: int, fill: int) -> np.ndarray:
    """The last axis made as long as `length`."""
    margin = [(0, 0)] * (values.ndim - 1) + [(0, length - values.shape[-1])]
    return np.pad(values, margin, constant_values=fill)


def filters(layer: Layer, machine: Machine) -> list[Operand]:
    """Weight (taps by lane) and bias of a depthwise convolution."""
    assert layer.weight is not None
    vector, of = machine.vector, layer.bytes
    low, zero = layer.output.low(vector), of.weight_zero if of else 0
    number = np.int8 if of else np.float32
    weight = np.full((*layer.weight.shape[2:], layer.lanes(vector)), zero, number)
    weight[:, :, [slot - low for slot in layer.output.slots]] = layer.weight[:, 0].transpose(1, 2, 0)
    if of:  # (rows, columns, lane) -> (columns, rows / dot, lane, dot)
        rows, dot = len(weight), machine.dot
        woven = _filled(weight.transpose(1, 2, 0), up(rows, dot), zero)
        weight = woven.reshape(*woven.shape[:2], -1, dot).transpose(0, 2, 1, 3)
    return [Constant.of(weight), Constant.of(per_lane(layer, _bias(layer, machine), vector))]


def _bias(layer: Layer, machine: Machine) -> np.ndarray | None:
    """The bias; where the bytes of the source are lowered, with what their products lose. Sums wrap."""
    if not layer.bytes or not (lowered := machine.lowered):
        return layer.bias
    assert layer.weight is not None
    assert layer.bias is not None
    weight = layer.weight.reshape(len(layer.weight), -1).astype(np.int32) - layer.bytes.weight_zero
    return layer.bias + np.int32(lowered) * weight.sum(1, dtype=np.int32)


def per_lane(layer: Layer, values: np.ndarray | float | None, vector: int, idle: float = 0.0) -> np.ndarray:
    """One value per output channel, on the lanes that the layer writes; `idle` elsewhere. Biases of whole sums stay
    int32, all else becomes float32."""
    whole = isinstance(values, np.ndarray) and values.dtype == np.int32
    result = np.full(layer.lanes(vector), idle, np.int32 if whole else np.float32)
    if values is not None:
        low = layer.output.low(vector)
        result[[slot - low for slot in layer.output.slots]] = values
    return result


def epilogue(layer: Layer, extents: tuple[int, ...], strides: Strides, vector: int) -> list[Operand]:
    """Operands of the epilogue."""
    operands: list[Operand] = []
    for step in layer.epilogue:
        match step:
            case Affine(scale, shift):
                operands += [Constant.of(per_lane(layer, values, vector)) for values in (scale, shift)]
            case OntoGrid(grid=grid) | OffGrid(grid=grid):
                scale = per_lane(layer, np.array(grid.scale), vector, idle=1.0)  # idle lanes are divided by it, too
                operands += [Constant.of(scale), Constant.of(per_lane(layer, np.array(grid.zero), vector))]
            case Slopes(slope):
                operands.append(Constant.of(per_lane(layer, slope, vector)))
            case Plus(other):
                operands.append(_alongside(layer, other, extents, strides, vector))
            case Requantize(multiplier, zero):
                operands += [Constant.of(per_lane(layer, multiplier, vector)), _offset(zero)]
            case AddBytes(own, others):
                operands.append(_term(own))
                for view, term in others:
                    operands += [_term(term), _alongside(layer, view, extents, strides, vector)]
            case Round(zero):
                operands.append(_offset(zero))
            case Swish(own, sixth):
                operands.append(Constant.of(np.array([own.factor, own.zero, sixth], np.float32)))
            case Lookup(values):
                operands.append(Constant.of(values))
    return operands


def ends(layer: Layer, extents: tuple[int, ...], strides: Strides, vector: int) -> list[Operand]:
    """Operands of the epilogue, and the output."""
    place = layer.output.storage
    output = Map(place, layer.output.low(vector), extents, strides(place.pitch))
    return [*epilogue(layer, extents, strides, vector), output]


def _alongside(layer: Layer, other: View, extents: tuple[int, ...], strides: Strides, vector: int) -> Map:
    """Another result, where its channels lie like the layer's."""
    first = min(other.slots) - min(layer.output.slots) + layer.output.low(vector)
    return Map(other.storage, first, extents, strides(other.storage.pitch))


def _term(term: Term) -> Constant:
    return Constant.of(np.array([term.factor, term.zero], np.float32))


def _offset(zero: int) -> Constant:
    """The bits of 1.5 * 2**23, less a zero: see `kernels.pipe`."""
    return Constant.of(np.array([MAGIC_BITS - zero], np.int32))
