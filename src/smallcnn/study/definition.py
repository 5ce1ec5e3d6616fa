"""What a study is, as data."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from smallcnn import zoo
from smallcnn.cost import Profile, profile
from smallcnn.graph import Graph
from smallcnn.train.recipe import Distil, Recipe
from smallcnn.train.recipes import named

PICTURES = 50_000
"""Training images that the stated hours are for: CIFAR-10's."""

SMALL = replace(named("small-images"), epochs=10, val_fraction=0.02)
"""The recipe for small images, cut short to afford several seeds."""


@dataclass(frozen=True)
class Row:
    """One network of a study.

    `model` is a registry name with options, or builds a graph from the common keywords (resolution, classes, channels).
    `published` is the paper's accuracy in percent as printed, empty if it has none. `images_per_second` is the measured
    training speed (docs/studies.md says where), from which the stated hours follow. `distil` is how the row learns from
    a teacher, if it has one.
    """

    label: str
    model: str | Callable[..., Graph]
    images_per_second: float
    published: str = ""
    resolution: int = 32
    distil: Distil | None = None

    @property
    def name(self) -> str:
        """The label in lower case without blanks: the row's folder, and what --row takes."""
        return re.sub(r"[^a-z0-9.]+", "-", self.label.lower()).strip("-")

    def build(self, *, classes: int = 10, channels: int = 3) -> Graph:
        """The network at the row's resolution."""
        build = zoo.parse(self.model).build if isinstance(self.model, str) else self.model
        return build(resolution=self.resolution, classes=classes, channels=channels)

    def cost(self) -> Profile:
        """What the network costs with ten classes and colour images."""
        return profile(self.build())


@dataclass(frozen=True)
class Study:
    """A comparison: `rows` trained by one recipe, with `seeds` seeds each.

    `source` says where the published figures are from and what is not as in the paper; `published` heads their column.
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
        """Hours that `rows` take with all seeds, one run after the other, on CIFAR-10's images."""
        pictures = self.recipe.epochs * PICTURES * (1 - self.recipe.val_fraction)
        return self.seeds * sum(pictures / row.images_per_second for row in rows or self.rows) / 3600
