"""Runs a network and its quantized form side by side: corrects biases layer by layer, and measures each layer's error.

The quantized form is simulated in float32: bytes and weights are the real numbers they stand for. Rounding shifts the
mean of a channel, as its few weights are not rounded evenly. So each bias takes up the difference of the means over the
calibration images, given the inputs that the corrected layers before it deliver (Nagel et al. 2019, arXiv 1906.04721,
section 4.2).
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from math import inf

import numpy as np

from smallcnn.ir import ops
from smallcnn.ir.graph import Graph, Node
from smallcnn.ir.rewrite import in_order
from smallcnn.ir.types import RANGES, Grid, Tensor
from smallcnn.reference.numbers import real, stored
from smallcnn.transform.fold import Weights
from smallcnn.transform.quantize.edges import find_edges
from smallcnn.transform.quantize.noise import Noise
from smallcnn.transform.quantize.rounding import compensated
from smallcnn.transform.quantize.stored import weight_grid
from smallcnn.transform.quantize.values import Bytes, Operators, batches, own_weights, tidy, to_bytes

Array = np.ndarray


@dataclass(frozen=True)
class Layer:
    """How well the quantized network follows the float one at an edge or an output, on the calibration images.

    `name` is that of the edge (see `find_edges`), `layer` that of the node that computes it, and `op` its kind. Ratios
    of signal to noise are in dB: `snr` of the result, with everything before it quantized; `weights_snr` of the rounded
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
    ratios: Mapping[str, Array] = {},
    compensate: bool = True,
    correct: bool = True,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[dict[str, Array], dict[str, Grid], tuple[Layer, ...]]:
    """The weights to store, as real numbers, their grids, and the errors for prepared images (N, H, W, C).

    Weights are rounded to the nearest, or with `compensate` as `rounding` says; with `correct`, biases are corrected.
    `per_tensor` and the `ratios` of layers are as for `weight_grid`.
    """
    edges = find_edges(graph, keep_float)
    ends = {output.node for output in graph.outputs}
    computes = {edge: producer for producer, edge in reversed(edges.of.items())}
    changed = dict(weights)
    results: dict[str, _Results] = {}
    held: dict[str, Grid] = {}  # the grid of the bytes that come from each node
    weight_grids: dict[str, Grid] = {}
    weights_snr: dict[str, float] = {}
    layers: list[Layer] = []
    for done, (node, finished) in enumerate(in_order(graph)):
        report(done, len(graph.nodes))
        inputs = [results[name] for name in node.inputs]
        whole = node.name not in edges.in_float
        if not inputs:
            made = _Results(images, images)
        else:
            own = own_weights(graph, node, weights)
            rounded = dict(own)
            if isinstance(node.op, ops.Conv | ops.Dense) and whole:
                source, alike = held[node.inputs[0]], ratios.get(node.name)
                fine = weight_grid(own["weight"], own.get("bias"), source, per_tensor=per_tensor, ratios=alike)
                rounded["weight"] = _rounded(node.op, own["weight"], fine, inputs[0].rough if compensate else None)
                weight_grids[node.name] = fine
            free = [results[name] for name in finished if graph[name].inputs and graph[name].shape == node.shape]
            corrected = whole and correct and "bias" in own
            made, shift, alone = _computed(node, inputs, own, rounded, operators, free, corrected)
            if corrected:
                rounded["bias"] = own["bias"] + shift
            if node.name in weight_grids:
                weights_snr[node.name] = alone.snr(around_mean=corrected)
                changed |= {f"{node.name}.{key}": value for key, value in rounded.items()}
        if node.name in edges.of:
            held[node.name] = grids[edges.of[node.name]]
        elif inputs and node.inputs[0] in held:
            held[node.name] = held[node.inputs[0]]
        moves = bool(inputs) and whole and node.op.keeps_grid and all(isinstance(one.rough, Bytes) for one in inputs)
        grid = grids[node.name] if node.name in computes else held[node.name] if moves else None
        if grid is not None:
            made.rough = _stored(made.rough, grid)
        if node.name in computes or node.name in ends:
            layer = computes.get(node.name, node.name)
            layers.append(
                Layer(
                    name=node.name,
                    layer=layer,
                    op=graph[layer].op.kind,
                    in_float=layer in edges.in_float,
                    weights_snr=weights_snr.get(layer, inf),
                    **_errors(made, grid if node.name in computes else None),
                )
            )
        results[node.name] = made
        for name in finished:
            del results[name]
        tidy(done)
    return changed, weight_grids, tuple(layers)


def worst(layers: Sequence[Layer]) -> list[str]:
    """The names of the layers with int8 weights, those that add the most noise first."""
    rounded = [layer for layer in layers if layer.weights_snr < inf]
    return [one.layer for one in sorted(rounded, key=lambda one: min(one.weights_snr, one.bytes_snr))]


@dataclass
class _Results:
    """A node's results (N, ...) in the float and in the quantized network."""

    exact: Array
    rough: Array | Bytes


def _computed(
    node: Node,
    inputs: Sequence[_Results],
    own: Mapping[str, Array],
    rounded: Mapping[str, Array],
    operators: Operators,
    free: Sequence[_Results],
    corrected: bool,
) -> tuple[_Results, Array, Noise]:
    """The results of a node, the shift that its bias takes up if `corrected`, and the noise of a layer's weights alone.

    No image depends on another, so results are written where the batch's inputs were, if these are `free`.
    """
    shape = (len(inputs[0].exact), *node.shape)
    exact = next((one.exact for one in free), None)
    rough = next((one.rough for one in free if isinstance(one.rough, np.ndarray)), None)
    exact, rough = (np.empty(shape, np.float32) if place is None else place for place in (exact, rough))
    total, alone = Noise(), Noise()
    for some in batches(len(exact)):
        given = [one.exact[some] for one in inputs]
        value = operators(node, given, own)
        near = operators(node, [one.rough[some] for one in inputs], rounded)
        if own:
            total.add(value, near)
            alone.add(value, operators(node, given, rounded))
        exact[some], rough[some] = value, near
    shift = total.mean.astype(np.float32) if corrected else np.float32(0)
    if corrected:
        rough += shift
    return _Results(exact, rough), np.asarray(shift), alone


def _rounded(op: ops.Conv | ops.Dense, weight: Array, grid: Grid, source: Array | Bytes | None) -> Array:
    """A layer's weights as the real numbers that its int8 stand for; compensated if its inputs are given."""
    nearest = stored("int8", grid, weight)
    whole = nearest if source is None else compensated(op, weight, np.array(grid.scale), source)
    return real(Tensor(weight.shape, "int8", grid), whole).astype(np.float32)


def _stored(values: Array | Bytes, grid: Grid) -> Bytes:
    """The nearest bytes of all images."""
    found = np.empty(values.shape, np.uint8)
    for some in batches(len(found)):
        found[some] = to_bytes(values[some], grid)
    return Bytes(found, grid)


def _errors(results: _Results, grid: Grid | None) -> dict[str, float]:
    """The figures of `Layer` that follow from the results of an edge, or of an output without a grid."""
    noise, rounding = Noise(), Noise()
    low, high, beyond = inf, -inf, 0
    if grid is not None:
        low, high = (grid.scale[0] * (end - grid.zero[0]) for end in RANGES["uint8"])
    for some in batches(len(results.exact)):
        value = results.exact[some]
        noise.add(value, results.rough[some])
        if grid is None:
            low, high = min(low, float(value.min())), max(high, float(value.max()))
        else:
            rounding.add(value, Bytes(to_bytes(value, grid), grid)[:])
            half = grid.scale[0] / 2
            beyond += int(np.count_nonzero((value < low - half) | (value > high + half)))
    return {
        "snr": noise.snr(),
        "bytes_snr": rounding.snr(),
        "saturated": beyond / results.exact.size,
        "low": low,
        "high": high,
    }
