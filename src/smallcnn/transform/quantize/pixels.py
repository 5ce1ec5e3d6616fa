"""The input of a quantized network: the bytes of the image themselves, where the first layers allow it."""

from dataclasses import replace

import numpy as np

from smallcnn.image.fit import Preprocessing
from smallcnn.ir import ops
from smallcnn.ir.graph import Graph
from smallcnn.ir.rewrite import rewrite
from smallcnn.ir.types import Grid
from smallcnn.transform.fold import Weights
from smallcnn.transform.quantize.ranges import grid_between

Array = np.ndarray


def reading_pixels(
    graph: Graph, weights: Weights, preprocessing: Preprocessing
) -> tuple[Graph, dict[str, Array], Preprocessing, Grid]:
    """A ready network that reads pixels, the preprocessing that goes with it, and the grid of its input.

    The new preprocessing has one mean, a whole number of 255ths, and one standard deviation, so that the stored number
    of a pixel is the pixel. What is left of the old one goes into the weights and biases of the first convolutions. At
    padded borders that is exact only where a mean does not move; more than half a step of the pixels' grid is not
    accepted there: then the network stays, and its input is rounded to a grid that covers all channels.
    """
    mean, std = (np.array(values, np.float64) for values in (preprocessing.mean, preprocessing.std))
    zero, spread = int(np.clip(np.rint(255 * mean.mean()), 0, 255)), float(std.mean())
    moved = replace(preprocessing, mean=(zero / 255,) * len(mean), std=(spread,) * len(std))
    grid = Grid((1 / (255 * spread),), (zero,))
    first = graph.nodes[0]
    convs = {node.name: node.op for node in graph.consumers[first.name] if isinstance(node.op, ops.Conv)}
    padded = any(op.padding != ops.NO_PADDING for op in convs.values())
    near = np.abs(255 * mean - zero).max() <= 0.5 + 1e-6
    alone = first.name not in {*graph.taps, *(output.node for output in graph.outputs)}
    plain = len(convs) == len(graph.consumers[first.name]) and all(op.groups == 1 for op in convs.values())
    framed = preprocessing.fit == "letterbox" and moved.border != preprocessing.border  # other pixels around an image
    if framed or not (alone and plain and (near or not padded)):
        low, high = (-mean / std).min(), ((1 - mean) / std).max()
        return graph, dict(weights), preprocessing, grid_between(float(low), float(high))
    changed = dict(weights)
    for name, op in convs.items():
        weight = changed[f"{name}.weight"].astype(np.float64)
        bias = changed.get(f"{name}.bias", np.zeros(op.out)).astype(np.float64)
        shift = weight.sum((2, 3)) @ ((zero / 255 - mean) / std)
        changed[f"{name}.weight"] = (weight * (spread / std).reshape(1, -1, 1, 1)).astype(np.float32)
        changed[f"{name}.bias"] = (bias + shift).astype(np.float32)
    biased = rewrite(graph, ops={name: replace(op, bias=True) for name, op in convs.items()})
    return biased, {name: changed[name] for name in biased.weights}, moved, grid
