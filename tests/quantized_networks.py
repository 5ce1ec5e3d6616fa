"""Networks of the zoo as whole numbers, without data: their ranges are those of noise."""

import numpy as np

from compiled_networks import AnyTask, model_of
from smallcnn.model.model import Model
from smallcnn.reference.initial import initial_weights
from smallcnn.transform.quantize import Settings, quantize
from zoo_models import build

_FAST = Settings(equalise=False, copy_channels=False, correct_bias=False)


def on_noise(text: str, resolution: int) -> Model:
    """A network of the zoo, quantized on two images of noise."""
    graph = build(text, resolution=resolution)
    model = Model(graph, initial_weights(graph, 3), AnyTask(), model_of(graph).preprocessing)
    noise = np.random.default_rng(0).integers(0, 256, (2, *graph.input_shape), np.uint8)
    return quantize(model, noise, _FAST)[0]
