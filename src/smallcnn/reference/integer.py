"""The definition of quantized networks, in numpy: every engine of ours gives the same bits.

    stored   a number of uint8 or int8, standing for scale * (stored - zero)
    sum      a number of int32: what operators on stored numbers compute, exactly

    convolution, dense   sum of (input - its zero) * (weight - its zero), plus the bias; modulo 2**32
    scale (a map's channels by a vector)   (map - its zero) * (vector - its zero)
    global pool          sum of (input - zero); an average pool the same over each window, its padding adding nothing
    add, sub             one sum, input - zero, for each input; of what sub takes away, zero - input
    quantize             round(sum * multiplier) + zero, saturated; multiplier = scale of the sum / scale of the result

The scale of a sum is the product of its factors' scales; of a mean, its input's divided by the number of terms. Scales,
multipliers and products are float32, each rounded to nearest, ties to even; so is a sum before it is multiplied (one
beyond 2**24 is not exact). `round` gives the nearest whole number, ties to even. An add's sums are multiplied each by
its own multiplier, and added as float32 in the order of the inputs. This is the arithmetic of ONNX Runtime's and
XNNPACK's float32 requantization; gemmlowp and TensorFlow Lite's reference kernels multiply by fixed-point numbers
instead, and may be one step off.

relu, relu6 and clip of stored numbers bound them by the nearest stored numbers of their bounds. Any other activation of
stored numbers, and prelu, is the function of the number stood for, rounded to float32. A dequantize gives the float32
product of scale and (stored - zero), of a sum of scale and sum. Operators on float32 are those of `reference.floating`,
rounded to float32; only for them may engines differ, as they round within the operator.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from smallcnn.ir import ops
from smallcnn.ir.graph import Graph
from smallcnn.ir.rewrite import in_order
from smallcnn.ir.types import RANGES, Grid, Number, Tensor
from smallcnn.reference import floating
from smallcnn.reference.numbers import real, stored

Array = np.ndarray


@dataclass(frozen=True)
class Sums:
    """A real result as terms of (whole numbers, float32 scales that broadcast along them)."""

    terms: tuple[tuple[Array, Array], ...]

    def real(self) -> Array:
        """The float32 numbers stood for."""
        return self._added([scale for _, scale in self.terms])

    def quantized(self, number: Number, grid: Grid) -> Array:
        """The stored numbers: each sum times its multiplier, rounded, saturated."""
        new = np.float32(grid.scale[0])
        steps = np.rint(self._added([scale / new for _, scale in self.terms])).astype(np.float64) + grid.zero[0]
        return np.clip(steps, *RANGES[number]).astype(number)

    def _added(self, factors: Sequence[Array]) -> Array:
        products = [whole.astype(np.float32) * factor for (whole, _), factor in zip(self.terms, factors, strict=True)]
        total = products[0]
        for product in products[1:]:
            total = total + product
        return total


Value = Array | Sums


def run(graph: Graph, weights: Mapping[str, Array], images: Array) -> dict[str, Array]:
    """The outputs by name for prepared images (N, H, W, C): float32, or whole numbers in their own type."""
    values: dict[str, Value] = {}
    for node, finished in in_order(graph):
        own = {key: weights[f"{node.name}.{key}"] for key in graph.weights_of(node)}
        inputs = [values[name] for name in node.inputs] or [np.asarray(images, np.float32)]
        values[node.name] = apply(node.op, inputs, own, [graph[name].tensor for name in node.inputs])
        for name in finished:
            del values[name]
    return {output.name: plain(values[output.node]) for output in graph.outputs}


def plain(value: Value) -> Array:
    """A result as an array; float32 sums as the real numbers they stand for."""
    return value.real() if isinstance(value, Sums) else value


def apply(op: ops.Op, inputs: Sequence[Value], weights: Mapping[str, Array], tensors: Sequence[Tensor]) -> Value:
    """One operator on a batch, channels last; `tensors` tells the number types and grids of the inputs."""
    if isinstance(op, ops.Quantize) and isinstance(inputs[0], Sums):
        return inputs[0].quantized(op.number, op.grid)
    arrays = [plain(value) for value in inputs]
    grids = [tensor.grid for tensor in tensors if tensor.grid]
    if not grids:
        return _on_floats(op, arrays, weights)
    scales = [np.array(grid.scale, np.float32) for grid in grids]
    if isinstance(op, ops.Quantize):
        return Sums(((arrays[0], scales[0]),)).quantized(op.number, op.grid)
    if op.bounds:
        return _bounded(op.bounds, arrays[0], tensors[0])
    if op.keeps_grid:
        return floating.apply(op, arrays, {}, tensors)
    centred = [array.astype(np.int64) - np.array(grid.zero) for array, grid in zip(arrays, grids, strict=True)]
    match op:
        case ops.Dequantize():
            return Sums(((centred[0], scales[0]),)).real()
        case ops.Conv() | ops.Dense():
            return _weighted(op, centred[0], weights)
        case ops.Scale():
            return (centred[0] * centred[1][:, None, None, :]).astype(np.int32)
        case ops.GlobalPool():
            return centred[0].sum((1, 2)).astype(np.int32)
        case ops.Pool():
            return _window_sums(op, centred[0], scales[0])
        case ops.Add():
            return Sums(tuple(zip(centred, scales, strict=True)))
        case ops.Sub():
            return Sums(((centred[0], scales[0]), (-centred[1], scales[1])))
        case ops.Activation() | ops.PRelu():
            values = Sums(((centred[0], scales[0]),)).real().astype(np.float64)
            return np.asarray(floating.apply(op, [values], weights)).astype(np.float32)
        case _:
            raise NotImplementedError(f"the reference does not define {op.kind} of whole numbers")


def _on_floats(op: ops.Op, inputs: Sequence[Array], weights: Mapping[str, Array]) -> Array:
    """An operator on float32."""
    if isinstance(op, ops.Quantize):
        return stored(op.number, op.grid, inputs[0])
    own = dict(weights)
    if isinstance(op, ops.Conv | ops.Dense) and op.grid is not None:
        own["weight"] = real(Tensor(own["weight"].shape, op.number, op.grid), own["weight"])
    wide = [value.astype(np.float64) for value in inputs]
    return np.asarray(floating.apply(op, wide, own)).astype(np.float32)


def _weighted(op: ops.Conv | ops.Dense, source: Array, weights: Mapping[str, Array]) -> Array:
    """Sums of products. In float64 they are exact: below 2**53."""
    assert op.grid is not None
    weight = weights["weight"].astype(np.float64)
    weight -= np.array(op.grid.zero, np.float64).reshape(-1, *[1] * (weight.ndim - 1))
    own = {"weight": weight} | ({"bias": weights["bias"].astype(np.float64)} if op.bias else {})
    return floating.apply(op, [source.astype(np.float64)], own).astype(np.int64).astype(np.int32)


def _window_sums(op: ops.Pool, source: Array, scale: Array) -> Sums:
    """Sums over each window, and the scale over the number of its terms."""

    def total(values: Array) -> Array:
        taken = ops.Pool(function="average", kernel=op.kernel, stride=op.stride, padding=op.padding, count_padding=True)
        means = floating.apply(taken, [values.astype(np.float64)], {})
        return np.rint(means * prod(op.kernel))

    counts = prod(op.kernel) if op.count_padding else total(np.ones_like(source[:1, :, :, :1]))
    return Sums(((total(source).astype(np.int64), scale / np.asarray(counts, np.float32)),))


def _bounded(bounds: tuple[float, float], source: Array, tensor: Tensor) -> Array:
    """Between the stored numbers of the bounds."""
    assert tensor.grid is not None
    return np.clip(source, *stored(tensor.number, tensor.grid, np.array(bounds)))
