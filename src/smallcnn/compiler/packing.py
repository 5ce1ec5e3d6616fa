"""A layer's weights in the order in which kernels read them."""

from collections.abc import Sequence

import numpy as np

from smallcnn.compiler.layers import Affine, Layer, OffGrid, OntoGrid, Plus
from smallcnn.compiler.operands import Constant, Map, Operand, Strides


def matrix(
    layer: Layer, vector: int, shares: int | None, order: Sequence[int] | None = None, depth: int = 0
) -> list[Operand]:
    """Weight and bias of a matrix product with lanes in `shares` groups; None: one group, without the dimension.

    With `order`, channel i of the input is row order[i] of `depth`; the other rows are zero.
    """
    groups = () if shares is None else (shares,)

    def weight() -> np.ndarray:
        packed = _panels(layer, vector, order, depth)
        return packed.reshape(*groups, -1, *packed.shape[2:])

    return [Constant(weight), Constant.of(per_lane(layer, layer.bias, vector).reshape(*groups, -1))]


def _panels(layer: Layer, vector: int, order: Sequence[int] | None, depth: int) -> np.ndarray:
    """(out, in, kh, kw) -> (groups, vectors, taps * channels, vector), rows in the order (ky, kx, channel)."""
    assert layer.weight is not None
    weight = layer.weight.reshape(*layer.weight.shape[:2], *(layer.weight.shape[2:] or (1, 1)))
    rows = weight.transpose(0, 2, 3, 1).reshape(layer.groups, len(weight) // layer.groups, -1)
    if order is not None:
        scattered = np.zeros((*rows.shape[:2], depth), np.float32)
        for i, row in enumerate(order):
            scattered[:, :, row] += rows[:, :, i]  # a channel may be read twice
        rows = scattered
    padded = np.zeros((layer.groups, layer.lanes(vector) // layer.groups, rows.shape[2]), np.float32)
    padded[:, : rows.shape[1]] = rows
    return padded.reshape(layer.groups, -1, vector, rows.shape[2]).transpose(0, 1, 3, 2)


def filters(layer: Layer, vector: int) -> list[Operand]:
    """Weight (taps by lane) and bias of a depthwise convolution."""
    assert layer.weight is not None
    weight = np.zeros((*layer.weight.shape[2:], layer.lanes(vector)), np.float32)
    low = layer.output.low(vector)
    weight[:, :, [slot - low for slot in layer.output.slots]] = layer.weight[:, 0].transpose(1, 2, 0)
    return [Constant.of(weight), Constant.of(per_lane(layer, layer.bias, vector))]


def per_lane(layer: Layer, values: np.ndarray | float | None, vector: int, idle: float = 0.0) -> np.ndarray:
    """One value per output channel, on the lanes that the layer writes; `idle` elsewhere."""
    result = np.full(layer.lanes(vector), idle, np.float32)
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
            case Plus(other):
                first = min(other.slots) - min(layer.output.slots) + layer.output.low(vector)
                operands.append(Map(other.storage, first, extents, strides(other.storage.pitch)))
    return operands


def ends(layer: Layer, extents: tuple[int, ...], strides: Strides, vector: int) -> list[Operand]:
    """Operands of the epilogue, and the output."""
    place = layer.output.storage
    output = Map(place, layer.output.low(vector), extents, strides(place.pitch))
    return [*epilogue(layer, extents, strides, vector), output]
