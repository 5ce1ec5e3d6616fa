"""A task for any outputs, so that networks made for a test become models."""

from dataclasses import dataclass
from typing import ClassVar

from networks import random_weights
from smallcnn.image.fit import Preprocessing
from smallcnn.model.model import Model


@dataclass(frozen=True)
class Anything:
    """A task whose answer is all that it was told; a test registers it in `tasks.kinds.TASKS`."""

    kind: ClassVar[str] = "anything"
    labels: ClassVar[tuple[str, ...]] = ()

    def check(self, results):
        pass

    def answer(self, outputs, seen=None):
        return outputs, seen

    def to_json(self):
        return {}

    @classmethod
    def from_json(cls, _fields):
        return cls()


def any_task(graph):
    """A model with random weights and a usual normalisation."""
    height, width, _ = graph.input_shape
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    return Model(graph, random_weights(graph), Anything(), Preprocessing((height, width), mean, std))
