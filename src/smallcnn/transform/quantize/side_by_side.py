"""Runs a network and its quantized form side by side: corrects biases layer by layer, and measures each layer's error.

The quantized form is simulated in float32: bytes and weights are the real numbers they stand for. Rounding shifts the
mean of a channel, as its few weights are not rounded evenly. So each bias takes up the difference of the means over the
calibration images, given the inputs that the corrected layers before it deliver (Nagel et al. 2019, arXiv 1906.04721,
section 4.2).
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from math import inf, log10

import numpy as np

from smallcnn.ir import ops
from smallcnn.ir.graph import Graph
from smallcnn.ir.rewrite import in_order
from smallcnn.ir.types import RANGES, Grid, Tensor
from smallcnn.reference.numbers import real, stored
from smallcnn.transform.fold import Weights
from smallcnn.transform.quantize.edges import find_edges
from smallcnn.transform.quantize.rounding import compensated
from smallcnn.transform.quantize.stored import weight_grid
from smallcnn.transform.quantize.values import Operators, own_weights

Array = np.ndarray

_TOGETHER = 16
"""Images whose errors are summed at a time, so that differences take little memory."""


@dataclass(frozen=True)
class Layer:
    """How well the quantized network follows the float one at an edge or an output, on the calibration images.

    `name` is that of the edge (see `edges`), `layer` that of the node that computes it, and `op` its kind. Ratios of
    signal to noise are in dB: `snr` of the result, with everything before it quantized; `weights_snr` of the rounded
    weights alone, infinite if there are none; `bytes_snr` of the rounded result alone. `saturated` is the share of
    results beyond the range `low` to `high`.
    """

    name: str
    layer: str
    op: str
    in_float: bool
    snr: float
    weights_snr: float
    bytes_snr: float
    saturated: float
    low: float
    high: float


def side_by_side(
    graph: Graph,
    weights: Weights,
    grids: Mapping[str, Grid],
    images: Array,
    operators: Operators,
    *,
    keep_float: Collection[str] = (),
    per_tensor: bool = False,
    compensate: bool = True,
    correct: bool = True,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[dict[str, Array], dict[str, Grid], tuple[Layer, ...]]:
    """The weights to store, as real numbers, their grids, and the errors for prepared images (N, H, W, C).

    Weights are rounded to the nearest, or with `compensate` as `rounding` says; with `correct`, biases are corrected.
    """
    edges = find_edges(graph, keep_float)
    ends = {output.node for output in graph.outputs}
    computes = {edge: producer for producer, edge in reversed(edges.of.items())}
    changed = dict(weights)
    exact: dict[str, Array] = {}
    rough: dict[str, Array] = {}
    held: dict[str, Grid] = {}  # the grid of the bytes that come from each node
    weight_grids: dict[str, Grid] = {}
    weights_snr: dict[str, float] = {}
    layers: list[Layer] = []
    for done, (node, finished) in enumerate(in_order(graph)):
        report(done, len(graph.nodes))
        if not node.inputs:
            value = near = images
        else:
            own = own_weights(graph, node, weights)
            inputs = [exact[name] for name in node.inputs]
            value = operators(node, inputs, own)
            whole = node.name not in edges.in_float
            if isinstance(node.op, ops.Conv | ops.Dense) and whole:
                fine = weight_grid(own["weight"], own.get("bias"), held[node.inputs[0]], per_tensor=per_tensor)
                own["weight"] = _rounded(node.op, own["weight"], fine, rough[node.inputs[0]] if compensate else None)
                changed[f"{node.name}.weight"], weight_grids[node.name] = own["weight"], fine
                alone = operators(node, inputs, own)
                if correct and "bias" in own:
                    alone += (_mean(value) - _mean(alone)).astype(np.float32)
                weights_snr[node.name] = snr(value, alone)
                del alone
            near = operators(node, [rough[name] for name in node.inputs], own)
            if whole and correct and "bias" in own:
                shift = (_mean(value) - _mean(near)).astype(np.float32)
                changed[f"{node.name}.bias"] = weights[f"{node.name}.bias"] + shift
                near += shift
        if node.name in edges.of:
            held[node.name] = grids[edges.of[node.name]]
        elif node.inputs and node.inputs[0] in held:
            held[node.name] = held[node.inputs[0]]
        if node.name in computes or node.name in ends:
            layer = computes.get(node.name, node.name)
            grid = grids[node.name] if node.name in computes else None
            near = near if grid is None else on_grid(near, grid)
            layers.append(
                Layer(
                    name=node.name,
                    layer=layer,
                    op=graph[layer].op.kind,
                    in_float=layer in edges.in_float,
                    snr=snr(value, near),
                    weights_snr=weights_snr.get(layer, inf),
                    bytes_snr=inf if grid is None else snr(value, on_grid(value, grid)),
                    **_range(value, grid),
                )
            )
        exact[node.name], rough[node.name] = value, near
        for name in finished:
            del exact[name], rough[name]
    return changed, weight_grids, tuple(layers)


def worst(layers: Sequence[Layer]) -> list[str]:
    """The names of the layers with int8 weights, those that add the most noise first."""
    rounded = [layer for layer in layers if layer.weights_snr < inf]
    return [one.layer for one in sorted(rounded, key=lambda one: min(one.weights_snr, one.bytes_snr))]


def on_grid(values: Array, grid: Grid) -> Array:
    """The real numbers, float32, that the bytes of `values` stand for."""
    scale, zero = np.float32(grid.scale[0]), grid.zero[0]
    low, high = RANGES["uint8"]
    found = values / scale
    np.rint(found, out=found)
    np.clip(found, low - zero, high - zero, out=found)
    found *= scale
    return found


def snr(exact: Array, near: Array) -> float:
    """Signal-to-noise ratio in dB: mean square of `exact` over that of the difference; infinite if there is none."""
    noise = signal = 0.0
    for start in range(0, len(exact), _TOGETHER):
        some = exact[start : start + _TOGETHER]
        noise += float(np.square(near[start : start + _TOGETHER] - some).sum(dtype=np.float64))
        signal += float(np.square(some).sum(dtype=np.float64))
    if noise == 0:
        return inf
    return 10 * log10(signal / noise) if signal else -inf


def _rounded(op: ops.Conv | ops.Dense, weight: Array, grid: Grid, source: Array | None) -> Array:
    """A layer's weights as the real numbers that its int8 stand for; compensated if its inputs are given."""
    nearest = stored("int8", grid, weight)
    whole = nearest if source is None else compensated(op, weight, np.array(grid.scale), source)
    return real(Tensor(weight.shape, "int8", grid), whole).astype(np.float32)


def _mean(values: Array) -> Array:
    """Mean of each channel, float64."""
    return values.reshape(-1, values.shape[-1]).mean(0, dtype=np.float64)


def _range(values: Array, grid: Grid | None) -> dict[str, float]:
    """The range of an edge, and the share of its values beyond; without a grid the range of the values."""
    if grid is None:
        return {"saturated": 0.0, "low": float(values.min()), "high": float(values.max())}
    step, zero = grid.scale[0], grid.zero[0]
    low, high = step * -zero, step * (255 - zero)
    beyond = (values < low - step / 2) | (values > high + step / 2)
    return {"saturated": float(beyond.mean()), "low": low, "high": high}
