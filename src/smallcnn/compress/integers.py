"""int8 as the last step of a compression: see `transform.quantize`."""

from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import numpy as np

from smallcnn.compress.workshop import Workshop
from smallcnn.ir import ops
from smallcnn.model.model import Model
from smallcnn.transform.fold import foldable
from smallcnn.transform.quantize import Settings, quantize, without_integer_form
from smallcnn.transform.share.sharing import SMALL_FILTER

_MOST_VALUES = 256
"""Different weights of a layer that shares them."""
_REPEATED = 0.1
"""Share of the weights that repeat others, from which a network has shared weights or zeros to keep."""


@dataclass(frozen=True, kw_only=True)
class Int8:
    """Quantizes the network, on training images as `smallcnn quantize` does; what has no integer form stays in float.

    Weights that earlier steps made equal stay equal, and zeros zero, so the packed file stays small: see `as_int8`.
    """

    kind: ClassVar[str] = "int8"
    trains: ClassVar[bool] = False

    def apply(self, model: Model, shop: Workshop) -> Model:
        """The quantized model. Raises GraphError if it is quantized already."""
        return shop.once("int8", partial(self._quantized, model, shop))

    def _quantized(self, model: Model, shop: Workshop) -> Model:
        return as_int8(model, shop.calibration(), shop.means.threads)


def as_int8(model: Model, images: np.ndarray, threads: int | None) -> Model:
    """The quantized model, calibrated on prepared images, uint8 (N, H, W, C).

    If it has shared weights or zeros, only biases are corrected, and a layer that shares its weights has one scale, or
    where a batch norm follows, the scales of that. Layers of small filters, as depthwise ones, keep the scale that is
    best for each filter: they have few weights, and filters of many sizes.
    """
    from smallcnn.engines.operators import Operators

    settings = Settings(keep_float=without_integer_form(model.graph))
    if _repeats(model):
        ratios = _ratios(model)
        settings = replace(settings, equalise=False, copy_channels=False, compensate=False, ratios=ratios)
    made, report = quantize(model, images, settings, operators=lambda graph: Operators(graph, threads))
    other = {**model.facts.other, "quantized": {"images": report.images, "kept_float": list(settings.keep_float)}}
    return replace(made, facts=replace(model.facts, scores={}, other=other))


def _layers(model: Model) -> dict[str, np.ndarray]:
    """The weights of each layer."""
    layers = [node.name for node in model.graph if isinstance(node.op, ops.Conv | ops.Dense)]
    return {name: model.weights[f"{name}.weight"] for name in layers}


def _repeats(model: Model) -> bool:
    """Whether many weights of a layer are equal."""
    weights = _layers(model).values()
    return sum(len(np.unique(one)) for one in weights) <= (1 - _REPEATED) * sum(one.size for one in weights)


def _ratios(model: Model) -> dict[str, np.ndarray]:
    """The ratios of the scales of outputs (out,) with which layers keep their shared weights shared."""
    norms = {layer: norm for norm, layer in foldable(model.graph).items()}
    found = {}
    for name, weight in _layers(model).items():
        if weight[0].size > SMALL_FILTER and len(np.unique(weight)) <= min(_MOST_VALUES, weight.size - 1):
            ratio = np.ones(len(weight))
            if norm := norms.get(name):
                op = model.graph[norm].op
                assert isinstance(op, ops.BatchNorm)
                variance = model.weights[f"{norm}.running_var"].astype(np.float64)
                ratio = np.abs(model.weights[f"{norm}.weight"]) / np.sqrt(variance + op.epsilon)
            found[name] = np.maximum(ratio, ratio.max() * 2.0**-24 + np.finfo(np.float32).tiny)
    return found
