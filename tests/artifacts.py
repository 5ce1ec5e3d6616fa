"""Model files and images that several tests share."""

from pathlib import Path

import numpy as np
from PIL import Image

from networks import random_weights, tiny
from smallcnn.image.fit import Preprocessing
from smallcnn.ir.graph import Graph
from smallcnn.model.facts import Facts
from smallcnn.model.model import Model
from smallcnn.tasks.classification import Classification

LABELS = ("blue", "green", "red")
COLOURS = {"blue": (40, 60, 220), "green": (50, 200, 60), "red": (220, 50, 40)}


def artifact(graph: Graph | None = None, seed: int = 0, **facts: object) -> Model:
    """A model with random weights; by default of the tiny network."""
    graph = graph or tiny()
    height, width, channels = graph.input_shape
    classes = graph.output_shape[0]
    labels = LABELS if classes == len(LABELS) else tuple(f"class {i}" for i in range(classes))
    mean, std = (0.485, 0.456, 0.406)[:channels], (0.229, 0.224, 0.225)[:channels]
    preprocessing = Preprocessing((height, width), mean, std)
    return Model(graph, random_weights(graph, seed), Classification(labels), preprocessing, Facts.from_json(facts))


def colour_photos(folder: Path, per_class: int = 8, side: int = 20, seed: int = 0) -> Path:
    """A folder of noisy one-colour images, one sub-folder per colour: learnable in seconds."""
    rng = np.random.default_rng(seed)
    for name, colour in COLOURS.items():
        (folder / name).mkdir(parents=True)
        for i in range(per_class):
            pixels = np.clip(np.array(colour) + rng.normal(0, 30, (side, side + i, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
    return folder
