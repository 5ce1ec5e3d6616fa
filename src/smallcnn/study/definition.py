"""Definition of a study, as data."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from smallcnn import zoo
from smallcnn.cost.profile import Profile, profile
from smallcnn.ir.graph import Graph
from smallcnn.train.recipe import Distil, Recipe
from smallcnn.train.recipes import named

_TRAINING_IMAGES = 50_000
"""Number of training images that the stated hours assume: CIFAR-10's."""

SMALL = replace(named("small-images"), epochs=10, val_fraction=0.02)
"""The recipe for small images, shortened to afford several seeds."""


@dataclass(frozen=True)
class Row:
    """One network of a study.

    `model` is a registry name with options, or a function that builds a graph from the common keywords (resolution,
    classes, channels). `published` is the paper's accuracy in percent as printed, or empty. `images_per_second` is the
    training speed measured as docs/studies.md describes; the stated hours follow from it. `distil` is the kind of
    distillation, if the row has a teacher.
    """

    label: str
    model: str | Callable[..., Graph]
    images_per_second: float
    published: str = ""
    resolution: int = 32
    distil: Distil | None = None

    @property
    def name(self) -> str:
        """The label in lower case with hyphens for spaces: the row's folder, and its name for --row."""
        return re.sub(r"[^a-z0-9.]+", "-", self.label.lower()).strip("-")

    def build(self, *, classes: int = 10, channels: int = 3) -> Graph:
        """The network at the row's resolution."""
        build = zoo.parse(self.model).build if isinstance(self.model, str) else self.model
        return build(resolution=self.resolution, classes=classes, channels=channels)

    def cost(self) -> Profile:
        """Cost of the network with ten classes and colour images."""
        return profile(self.build())


@dataclass(frozen=True)
class Study:
    """A comparison: `rows` trained with one recipe and `seeds` seeds each.

    `source` cites the published figures and lists differences from the paper; `published` is the title of their column.
    """

    name: str
    title: str
    question: str
    source: str
    published: str
    recipe: Recipe
    rows: tuple[Row, ...]
    seeds: int = 3

    def hours(self, rows: tuple[Row, ...] | None = None) -> float:
        """Hours to train `rows` with all seeds, one run at a time, on CIFAR-10."""
        images = self.recipe.epochs * _TRAINING_IMAGES * (1 - self.recipe.val_fraction)
        return self.seeds * sum(images / row.images_per_second for row in rows or self.rows) / 3600
