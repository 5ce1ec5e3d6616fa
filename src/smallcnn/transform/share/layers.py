"""Replaces the weights of a network layer by layer, each layer correcting for those before it.

A layer's new weights are chosen for the inputs that the changed network delivers (Wu et al. 2016, "Quantized
convolutional neural networks", arXiv 1512.06473, section 3.3): the weights first move to where they repair the errors
of their inputs, then each is replaced with its error passed on to those that are not replaced yet (see
`quantize.rounding`), and the bias takes up the shift of the mean.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from smallcnn.ir import ops
from smallcnn.ir.graph import Graph, Node
from smallcnn.ir.rewrite import in_order
from smallcnn.transform.fold import Weights
from smallcnn.transform.quantize.rounding import Inputs, statistics
from smallcnn.transform.quantize.values import Operators, batches, live_bytes, own_weights, tidy, usable

Array = np.ndarray

_BUDGET = 1 << 29
"""Bytes of results that are held at once; it limits the number of images."""


class Replacement(Protocol):
    """Chooses a layer's new weights."""

    def __call__(self, weight: Array, inputs: Inputs | None) -> Array:
        """New weights of the same shape; `inputs` are the statistics of what they will see, if they are known."""


@dataclass(frozen=True)
class Change:
    """What became of a layer of `numbers` weights: `values` different ones, of which `zeros` are zero.

    `error` is the power of its result's error relative to the variance, with all layers before it changed too.
    """

    name: str
    op: str
    numbers: int
    values: int
    zeros: float
    error: float


def replaced(
    graph: Graph,
    weights: Weights,
    images: Array,
    operators: Operators,
    replacements: Mapping[str, Replacement],
    report: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[dict[str, Array], tuple[Change, ...]]:
    """The weights with those of some layers replaced, for prepared images (N, H, W, C).

    The graph is float32 with batch norm folded (`quantize.form.ready`), `replacements` are by the layer's name.
    """
    changed = dict(weights)
    changes: list[Change] = []
    exact: dict[str, Array] = {}
    rough: dict[str, Array] = {}
    for done, (node, finished) in enumerate(in_order(graph)):
        report(done, len(graph.nodes))
        own = own_weights(graph, node, weights)
        new = dict(own)
        given, seen = [exact[name] for name in node.inputs], [rough[name] for name in node.inputs]
        if not node.inputs:
            exact[node.name] = rough[node.name] = images
            continue
        if node.name in replacements:
            assert isinstance(node.op, ops.Conv | ops.Dense)
            inputs = doubtful(statistics(node.op, own["weight"], seen[0], given[0]))
            target = own["weight"] if inputs is None else inputs.repairing(own["weight"])
            new["weight"] = replacements[node.name](target, inputs).astype(np.float32)
        value = _run(operators, node, given, own)
        near = _run(operators, node, seen, new)
        if node.name in replacements:
            if "bias" in own:
                axes = tuple(range(value.ndim - 1))
                shift = (value.mean(axes, np.float64) - near.mean(axes, np.float64)).astype(np.float32)
                new["bias"] = shortened(own["bias"] + shift)
                near += new["bias"] - own["bias"]
            changed |= {f"{node.name}.{key}": one for key, one in new.items()}
            error = float(((value - near) ** 2).mean(dtype=np.float64) / max(value.var(dtype=np.float64), 1e-30))
            made = new["weight"]
            changes.append(
                Change(node.name, node.op.kind, made.size, len(np.unique(made)), float((made == 0).mean()), error)
            )
        exact[node.name], rough[node.name] = value, near
        for name in finished:
            del exact[name], rough[name]
        tidy(done)
    return changed, tuple(changes)


def as_many_as_fit(images: Array, graph: Graph) -> Array:
    """As many of the images, taken evenly, as fit 512 MiB with the results of the network and of a changed one.

    Raises DataError if there are none.
    """
    return usable(images, most=max(1, _BUDGET // (2 * live_bytes(graph))))


def doubtful(inputs: Inputs | None) -> Inputs | None:
    """The statistics, trusted as little as befits coarse values.

    With few bits the errors are large, and what makes up for them on the calibration images alone does harm on others:
    of MobileNet v1 0.25 with 5 bits, 91 % of the answers stay the same instead of 89 %.
    """
    return inputs and replace(inputs, doubt=(0.1, 1.0))


def shortened(values: Array) -> Array:
    """float32 values rounded to 11 bits of precision, as many as half a float has: two of four bytes pack to little."""
    bits = np.asarray(values, np.float32).view(np.uint32)
    return ((bits + np.uint32(1 << 12)) & np.uint32(0xFFFFE000)).view(np.float32)


def _run(operators: Operators, node: Node, inputs: list[Array], own: Mapping[str, Array]) -> Array:
    """A node's result for all images, a few at a time."""
    result = np.empty((len(inputs[0]), *node.shape), np.float32)
    for some in batches(len(result)):
        result[some] = operators(node, [one[some] for one in inputs], own)
    return result
