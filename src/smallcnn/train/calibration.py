"""The start of quantization-aware training: the network that post-training quantization makes of the float one."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from smallcnn.data.loader import all_prepared
from smallcnn.data.order import order
from smallcnn.data.split import Split
from smallcnn.errors import DataError
from smallcnn.ir.graph import Graph, Node
from smallcnn.torch_layers import layer
from smallcnn.train.start import Start
from smallcnn.transform.quantize import Chosen, Settings, choose, reading_pixels, ready, with_biases

_IMAGES = 128
_NEAREST = Settings(compensate=False)
"""Training rounds weights to the nearest. That keeps what was rounded so before, as the largest of a filter stays."""


def to_quantize(start: Start) -> Start:
    """The same start with batch norm folded, a bias on every layer, and the image's bytes as input where possible.

    Raises DataError unless it is a trained network that knows the labels, GraphError if it is quantized already.
    """
    if start.weights is None or start.origin is None:
        raise DataError("--quantize starts from a trained model: give its file with --from")
    if start.origin.new_last_layer:
        raise DataError(
            f"{start.origin.model} does not know the labels of the data; train it on them without --quantize first"
        )
    graph, weights, preprocessing, _ = reading_pixels(*ready(start.graph, start.weights), start.preprocessing)
    graph, weights = with_biases(graph, weights)
    return replace(start, graph=graph, weights=weights, preprocessing=preprocessing)


def calibrated(start: Start, split: Split, *, seed: int, device: torch.device, workers: int | None) -> Chosen:
    """The weights and grids that training begins with, of a start of `to_quantize`, from 128 training images.

    Channels are equalised and biases corrected, as `smallcnn quantize` does. Images are prepared as for validation.
    Raises DataError if none can be decoded, or all are of one colour.
    """
    assert start.weights is not None
    wanted = order(split, seed, 0)[:_IMAGES].tolist()
    images = all_prepared(split, start.preprocessing, wanted, workers=workers)
    return choose(
        start.graph, start.weights, start.preprocessing, images, _NEAREST,
        operators=lambda graph: _Operators(graph, device),
    )  # fmt: skip


class _Operators:
    """Computes the nodes of one float network in torch; see `transform.quantize.values.Operators`."""

    def __init__(self, graph: Graph, device: torch.device) -> None:
        self._graph, self._device = graph, device
        self._layers: dict[str, nn.Module] = {}

    @torch.inference_mode()
    def __call__(self, node: Node, inputs: list[np.ndarray], weights: Mapping[str, np.ndarray]) -> np.ndarray:
        """The result of a node, float32 (N, ...)."""
        made = self._layers.get(node.name) or self._layers.setdefault(node.name, layer(self._graph, node).eval())
        own = {key: torch.from_numpy(value).to(self._device) for key, value in weights.items()}
        result: Tensor = functional_call(made, own, tuple(map(self._tensor, inputs)))
        return np.ascontiguousarray(_channels(result, 1, -1).cpu().numpy())

    def _tensor(self, value: np.ndarray) -> Tensor:
        """A copy, which the layer may write over, with channels before height and width."""
        return _channels(torch.tensor(value, device=self._device), -1, 1)


def _channels(value: Tensor, source: int, to: int) -> Tensor:
    return value.movedim(source, to) if value.ndim == 4 else value
