"""Gradients of a trained network's loss, for Taylor's criterion."""

from collections.abc import Iterator

import numpy as np
import torch

from smallcnn.data.loader import prepared_batches
from smallcnn.data.order import order
from smallcnn.data.split import Split
from smallcnn.ir.predictors import detector
from smallcnn.model.model import Model
from smallcnn.module import named, to_module
from smallcnn.train.device import pick_device
from smallcnn.train.objective import objective
from smallcnn.train.pixels import Pixels
from smallcnn.train.recipe import Recipe
from smallcnn.transform.undecided import undecided

IMAGES = 512
_BATCH = 16


def gradients(
    model: Model, split: Split, *, images: int = IMAGES, seed: int = 0, device: str = "auto", workers: int | None = None
) -> Iterator[dict[str, np.ndarray]]:
    """Gradients of the mean loss of each batch of 16 images, by the names of the weights.

    The images are `images` of `split`, chosen by `seed` and not augmented. The network is as it is used: batch norm has
    its stored statistics.
    """
    on = pick_device(device)
    graph = undecided(model.graph) if detector(model.graph) else model.graph
    module = to_module(graph, model.weights).to(on).eval()
    pixels = Pixels(model.preprocessing, on)
    aim = objective(model.task, model.graph, Recipe(label_smoothing=0.0), split, None, on)
    chosen = order(split, seed, 0)[:images].tolist()
    for batch in prepared_batches(split, model.preprocessing, chosen, batch_size=_BATCH, workers=workers):
        if not len(batch.indices):
            continue
        module.zero_grad()
        loaded = pixels.load(batch.images)
        outputs = named(graph, module(pixels.normalise(loaded)))
        loss = aim.loss(outputs, torch.from_numpy(batch.labels_shown).to(on), None, loaded)
        loss.backward()  # type: ignore[no-untyped-call]
        yield {
            name: parameter.grad.cpu().numpy()
            for name, parameter in module.named_parameters()
            if parameter.grad is not None
        }
