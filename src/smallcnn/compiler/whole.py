"""Whole numbers in layers: weights and biases of sums of bytes, and the steps that turn sums and bytes into bytes.

`reference.integer` defines the arithmetic. A source's zero goes into the bias: sum of (x - zero) * w is that of x * w,
less zero * sum of w.
"""

from dataclasses import dataclass

import numpy as np

from smallcnn.compiler.arithmetic import Bytes
from smallcnn.compiler.layers import Bound, Epilogue, Lookup, Requantize, Round, Swish, Term
from smallcnn.errors import CompileError
from smallcnn.ir import ops
from smallcnn.ir.graph import Node
from smallcnn.ir.types import RANGES, Grid, Number, Tensor
from smallcnn.reference import integer

_NUDGES = (0.0, 1e-5, -1e-5, 1e-4, -1e-4, 1e-3, -1e-3)
"""Steps that the shift of the image may be moved by, to round as the definition does."""
_MOST = float(2**21)
"""Steps: products of sums and multipliers up to here are rounded by adding a number whose unit is 1."""


@dataclass(frozen=True)
class Weighted:
    """What a convolution or dense layer computes bytes with. `most` is the largest magnitude of each output's sum."""

    bytes: Bytes
    weight: np.ndarray
    bias: np.ndarray
    most: np.ndarray


def check(node: Node, *numbers: Number) -> None:
    """Raises CompileError if an operator of whole numbers reads or gives int8."""
    if "int8" in numbers:
        raise CompileError(f"{node.name}: the compiler computes with uint8 between layers, not int8")


def weighted(node: Node, weight: np.ndarray, bias: np.ndarray | None, source: Tensor) -> Weighted:
    """The weights less their zero, if int8 holds them, else less what makes them int8. Raises CompileError for others
    with several zeros."""
    assert isinstance(node.op, ops.Conv | ops.Dense)
    assert node.op.grid is not None
    assert source.grid is not None
    zeros, zero = np.array(node.op.grid.zero), source.grid.zero[0]
    centred = weight.astype(np.int64) - zeros.reshape(-1, *[1] * (weight.ndim - 1))
    taken = centred.reshape(len(weight), -1)
    total = -zero * taken.sum(1) + (0 if bias is None else bias.astype(np.int64))
    most = np.abs(taken).sum(1) * 255 + np.abs(total)
    wrapped = (total & 0xFFFFFFFF).astype(np.uint32).view(np.int32)
    low, high = RANGES["int8"]
    if low <= centred.min() and centred.max() <= high:
        return Weighted(Bytes(zero), centred.astype(np.int8), wrapped, most)
    if len(set(node.op.grid.zero)) > 1:
        raise CompileError(f"{node.name}: the compiler does not support weights of {node.op.number} with several zeros")
    more = RANGES[node.op.number][0] - low
    weight = (weight.astype(np.int64) - more).astype(np.int8)
    return Weighted(Bytes(zero, int(zeros[0]) - more), weight, wrapped, most)


def requantize(sums: Tensor, quantize: ops.Quantize, most: np.ndarray) -> Requantize:
    """Sums to bytes."""
    assert sums.grid is not None
    multiplier = np.array(sums.grid.scale, np.float32) / np.float32(quantize.grid.scale[0])
    multiplier = np.broadcast_to(multiplier, (sums.shape[-1],))
    return Requantize(multiplier, quantize.grid.zero[0], large=bool((most * multiplier > _MOST).any()))


def bound(op: ops.Activation | ops.Clip, tensor: Tensor) -> Bound:
    """A bounding activation of bytes."""
    low, high = integer.apply(op, [np.arange(256, dtype=np.uint8)], {}, [tensor])[[0, -1]].tolist()  # type: ignore[index]
    return Bound(low, high)


def curve(op: ops.Activation, quantize: ops.Quantize, tensor: Tensor) -> Epilogue:
    """An activation of bytes and the quantize after it: a table, or arithmetic that gives the same for all bytes."""
    assert tensor.grid is not None
    bytes = np.arange(256, dtype=np.uint8)
    curved = integer.apply(op, [bytes], {}, [tensor])
    table = np.asarray(integer.apply(quantize, [curved], {}, [Tensor(tensor.shape)]))
    if op.function == "hard_swish" and quantize.number == "uint8":
        factor, (zero,), one = np.float32(tensor.grid.scale[0]), quantize.grid.zero, np.float32(1)
        sixth = one / (6 * np.float32(quantize.grid.scale[0]))
        x = (bytes.astype(np.float32) - np.float32(tensor.grid.zero[0])) * factor
        steps = x * (np.clip(x + 3 * one, 0, 6 * one) * sixth)
        if (np.clip(np.rint(steps) + zero, 0, 255) == table).all():
            return Swish(Term(float(factor), tensor.grid.zero[0]), float(sixth)), Round(zero)
    return (Lookup(table),)


def image_affine(table: np.ndarray, grid: Grid, scale: np.ndarray, shift: np.ndarray) -> tuple[np.ndarray, ...] | None:
    """Scale and shift, float32 per channel, of which round(byte * scale + shift) gives the entries of `image_table`.

    None if none is found: where each byte lies halfway between two steps.
    """
    step, bytes = np.float64(grid.scale[0]), np.arange(256, dtype=np.float32)
    factors, shifts = (scale / step).astype(np.float32), []
    for channel, factor in enumerate(factors):
        for nudge in _NUDGES:
            moved = np.float32(shift[channel] / step + grid.zero[0] + nudge)
            if (np.clip(np.rint(bytes * factor + moved), 0, 255) == table[:, channel]).all():
                shifts.append(moved)
                break
        else:
            return None
    return factors, np.array(shifts)


def image_table(grid: Grid, scale: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """(256, channels): the bytes on `grid` that stand for those of the image, normalised."""
    values = np.arange(256, dtype=np.uint8)[:, None] * scale + shift
    return np.asarray(integer.apply(ops.Quantize(number="uint8", grid=grid), [values], {}, [Tensor(values.shape)]))
