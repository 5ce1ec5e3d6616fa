"""The reference definition of every operator in numpy, float64; every fast engine must agree with it.

Reads a graph and its weights unchanged, including batch norm, and runs node by node. Slow and simple on purpose:
MobileNet v1 at 224 x 224 takes seconds, not milliseconds.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from smallcnn.ir import ops
from smallcnn.ir.graph import Graph
from smallcnn.ir.ops import Padding
from smallcnn.ir.rewrite import in_order
from smallcnn.ir.types import RANGES, Tensor
from smallcnn.reference.detection import detect
from smallcnn.reference.numbers import real, stored

Array = np.ndarray


def run(graph: Graph, weights: Mapping[str, Array], images: Array) -> dict[str, Array]:
    """The outputs by name for prepared images (N, H, W, C): float64, or whole numbers in their own type."""
    values: dict[str, Array] = {}
    for node, finished in in_order(graph):
        own = {
            key: real(weight.tensor, weights[f"{node.name}.{key}"]) for key, weight in graph.weights_of(node).items()
        }
        inputs = [values[name] for name in node.inputs] or [np.asarray(images, np.float64)]
        tensors = [graph[name].tensor for name in node.inputs]
        values[node.name] = apply(node.op, inputs, own, tensors)
        for name in finished:
            del values[name]
    return {output.name: values[output.node] for output in graph.outputs}


def answer(graph: Graph, weights: Mapping[str, Array], images: Array) -> Array:
    """The only output, such as a classifier's logits: (N, H, W, C) -> (N, classes). GraphError if there are several."""
    node = graph.output
    results = run(graph, weights, images)
    return next(results[output.name] for output in graph.outputs if output.node == node)


def apply(op: ops.Op, inputs: list[Array], weights: Mapping[str, Array], tensors: Sequence[Tensor] = ()) -> Array:
    """One operator on a batch, channels last; `tensors` tells the number types of inputs that are not real."""
    x = inputs[0]
    match op:
        case ops.Input() | ops.Dropout():
            return x
        case ops.Conv():
            return _conv(op, x, weights["weight"]) + weights.get("bias", 0.0)
        case ops.Dense():
            return x @ weights["weight"].T + weights.get("bias", 0.0)
        case ops.BatchNorm():
            std = np.sqrt(weights["running_var"] + op.epsilon)
            return (x - weights["running_mean"]) / std * weights["weight"] + weights["bias"]
        case ops.Activation():
            return _activation(op, x)
        case ops.Clip():
            return np.clip(x, op.low, op.high)
        case ops.Pad():
            return _margins(op, x, _zero(tensors))
        case ops.Pool(function="max"):
            return np.maximum.reduce(_taps(op, x, _least(tensors)))
        case ops.Pool():
            inside = np.ones_like(x[:1, :, :, :1])
            count = np.add.reduce(_taps(op, inside, 1.0 if op.count_padding else 0.0))
            return np.add.reduce(_taps(op, x, 0.0)) / count
        case ops.GlobalPool():
            return x.mean((1, 2))
        case ops.Flatten():
            return x.reshape(len(x), -1)
        case ops.PRelu():
            return np.where(x < 0, weights["slope"] * x, x)
        case ops.Exp():
            return np.exp(x)
        case ops.Resize():
            return _resized(op, _resized(op, x, 1, op.height), 2, op.width)
        case ops.Add():
            return np.add.reduce(inputs)
        case ops.Sub():
            return inputs[0] - inputs[1]
        case ops.Scale():
            return x * inputs[1][:, None, None, :]
        case ops.Concat():
            return np.concatenate(inputs, -1)
        case ops.Shuffle():
            return x.reshape(*x.shape[:-1], op.groups, -1).swapaxes(-1, -2).reshape(x.shape)
        case ops.Rows():
            return x.reshape(len(x), -1, op.columns)
        case ops.Join():
            return np.concatenate(inputs, 1)
        case ops.Detect():
            return np.stack([detect(op, *(each[i] for each in inputs)) for i in range(len(x))])
        case ops.Count():
            return (x.reshape(len(x), -1) > 0).sum(1, keepdims=True, dtype=np.float64)
        case ops.Slice():
            return x[..., op.start : op.stop]
        case ops.Quantize(number=number, grid=grid):
            return stored(number, grid, x)
        case ops.Dequantize():
            return real(tensors[0], x)
        case ops.LocalResponseNorm():
            return _local_response_norm(op, x)
        case _:
            raise NotImplementedError(f"the reference does not define {op.kind}")


def _taps(op: ops.Conv | ops.Pool, x: Array, fill: float) -> list[Array]:
    """For each pixel of the window, row by row, its input at every output position: (N, H', W', C)."""
    (kernel_h, kernel_w), (stride_h, stride_w) = op.kernel, op.stride
    step_h, step_w = op.dilation if isinstance(op, ops.Conv) else (1, 1)
    x = _pad(x, op.padding, fill)
    height = (x.shape[1] - (kernel_h - 1) * step_h - 1) // stride_h + 1
    width = (x.shape[2] - (kernel_w - 1) * step_w - 1) // stride_w + 1
    return [
        x[:, i : i + (height - 1) * stride_h + 1 : stride_h, j : j + (width - 1) * stride_w + 1 : stride_w]
        for i in range(0, kernel_h * step_h, step_h)
        for j in range(0, kernel_w * step_w, step_w)
    ]


def _pad(x: Array, padding: Padding, fill: float) -> Array:
    return np.pad(x, ((0, 0), *padding, (0, 0)), constant_values=fill)


def _zero(tensors: Sequence[Tensor]) -> float:
    """The stored number that stands for 0."""
    grid = tensors[0].grid if tensors else None
    return grid.zero[0] if grid else 0


def _least(tensors: Sequence[Tensor]) -> float:
    """The stored number below which there is none."""
    number = tensors[0].number if tensors else "float32"
    return -np.inf if number == "float32" else RANGES[number][0]


def _margins(op: ops.Pad, x: Array, zero: float) -> Array:
    """Adds zeros where a margin is positive, crops where it is negative."""
    (top, bottom), (left, right) = op.padding
    height, width = x.shape[1:3]
    kept = x[:, max(-top, 0) : height - max(-bottom, 0), max(-left, 0) : width - max(-right, 0)]
    return _pad(kept, ((max(top, 0), max(bottom, 0)), (max(left, 0), max(right, 0))), zero)


def _resized(op: ops.Resize, x: Array, axis: int, after: int) -> Array:
    """Height (axis 1) or width (axis 2) brought to `after` pixels."""
    low, high, weight = (np.array(column) for column in zip(*op.taps(x.shape[axis], after), strict=True))
    if op.mode == "nearest":
        return x.take(low, axis)
    weight = weight.reshape(-1, *[1] * (x.ndim - 1 - axis))
    return x.take(low, axis) * (1 - weight) + x.take(high, axis) * weight


def _conv(op: ops.Conv, x: Array, weight: Array) -> Array:
    """Sum over the window of (grouped) matrix products."""
    taps = _taps(op, x, 0.0)
    weight = weight.reshape(op.groups, op.out // op.groups, -1, len(taps))
    total = 0.0
    for i, tap in enumerate(taps):
        grouped = tap.reshape(*tap.shape[:3], op.groups, -1)
        total = total + np.einsum("nhwgc,goc->nhwgo", grouped, weight[..., i], optimize=True)
    return np.asarray(total).reshape(*np.shape(total)[:3], op.out)


def _activation(op: ops.Activation, x: Array) -> Array:
    match op.function:
        case "relu":
            return np.maximum(x, 0)
        case "relu6":
            return np.clip(x, 0, 6)
        case "leaky_relu":
            return np.where(x < 0, op.slope * x, x)
        case "hard_sigmoid":
            return np.clip(x + 3, 0, 6) / 6
        case "hard_swish":
            return x * np.clip(x + 3, 0, 6) / 6
        case "sigmoid":
            return 1 / (1 + np.exp(-x))


def _local_response_norm(op: ops.LocalResponseNorm, x: Array) -> Array:
    squares = np.pad(x**2, ((0, 0),) * 3 + ((op.size // 2,) * 2,))
    windows = np.lib.stride_tricks.sliding_window_view(squares, op.size, axis=-1)
    return x / (op.bias + op.alpha / op.size * windows.sum(-1)) ** op.beta
