"""The start of quantization-aware training: a folded network, and grids measured on training images."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from smallcnn.data.loader import prepared_batches
from smallcnn.data.order import order
from smallcnn.data.split import Split
from smallcnn.errors import DataError
from smallcnn.image.fit import Preprocessing
from smallcnn.ir.graph import Graph
from smallcnn.ir.types import Grid
from smallcnn.module import to_module
from smallcnn.train.pixels import Pixels
from smallcnn.train.start import Start
from smallcnn.transform.quantize import edges, groups, ready
from smallcnn.transform.quantize.pixels import reading_pixels
from smallcnn.transform.quantize.ranges import Seen, choose_grid, look, together

_IMAGES = 128
_BATCH = 32


def to_quantize(start: Start) -> Start:
    """The same start with batch norm folded, and with the image's bytes as the network's input where possible.

    Raises DataError unless it is a trained network that knows the labels, GraphError if it is quantized already.
    """
    if start.weights is None or start.origin is None:
        raise DataError("--quantize starts from a trained model: give its file with --from")
    if start.origin.new_last_layer:
        raise DataError(
            f"{start.origin.model} does not know the labels of the data; train it on them without --quantize first"
        )
    graph, weights, preprocessing, _ = reading_pixels(*ready(start.graph, start.weights), start.preprocessing)
    return replace(start, graph=graph, weights=weights, preprocessing=preprocessing)


@torch.inference_mode()
def calibrated(
    graph: Graph,
    weights: Mapping[str, np.ndarray],
    preprocessing: Preprocessing,
    split: Split,
    *,
    seed: int,
    device: torch.device,
    workers: int | None,
) -> dict[str, Grid]:
    """The grid of each edge that has the least error on 128 training images, prepared as for validation.

    The graph is one of `to_quantize`. Raises DataError if no image can be decoded.
    """
    pixels = Pixels(preprocessing, device)
    module = to_module(graph, weights).to(device).eval()
    module.to(memory_format=pixels.memory_format)  # type: ignore[call-overload]
    image, seen = graph.nodes[0].name, dict[str, list[Seen]]()

    def watch(name: str) -> None:
        def add(_module: nn.Module, _inputs: object, result: Tensor) -> None:
            seen.setdefault(name, []).append(look(result.cpu().numpy()))

        module.get_submodule(name).register_forward_hook(add)

    for name in edges(graph):
        if name != image:
            watch(name)
    chosen = order(split, seed, 0)[:_IMAGES].tolist()
    failed: dict[str, str] = {}
    for batch in prepared_batches(split, preprocessing, chosen, batch_size=_BATCH, workers=workers):
        failed |= batch.failed
        if len(batch.labels):
            module(pixels.normalise(pixels.load(batch.images)))
    if len(failed) == len(chosen):
        raise DataError(f"no image to calibrate with could be decoded; the first: {next(iter(failed.values()))}")
    grids: dict[str, Grid] = {}
    for group in groups(graph):
        if image in group:
            grid = reading_pixels(graph, weights, preprocessing)[-1]
        else:
            grid = choose_grid(together([one for name in group for one in seen[name]]))
        grids |= dict.fromkeys(group, grid)
    return grids
