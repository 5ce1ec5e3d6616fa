"""The model: a network with everything needed to use it. `store` reads and writes its file."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from smallcnn.errors import FileError, GraphError
from smallcnn.image.fit import Preprocessing
from smallcnn.ir.graph import Graph
from smallcnn.model.facts import Facts
from smallcnn.reference.initial import check_weights
from smallcnn.tasks.task import Task
from smallcnn.transform.adapt import with_input_turned


@dataclass(frozen=True)
class Model:
    """A network, its weights, and what goes in and comes out. Raises FileError if the parts do not fit each other."""

    graph: Graph
    weights: Mapping[str, np.ndarray]
    task: Task
    preprocessing: Preprocessing
    facts: Facts = field(default_factory=Facts)

    def __post_init__(self) -> None:
        check_weights(self.graph, self.weights, FileError)
        try:
            self.task.check(self.graph.results)
        except GraphError as error:
            raise FileError(str(error)) from error
        height, width, channels = self.graph.input_shape
        if self.preprocessing.size != (height, width) or self.preprocessing.channels != channels:
            raise FileError(
                f"preprocessing to {(*self.preprocessing.size, self.preprocessing.channels)} "
                f"for an input of shape {self.graph.input_shape}"
            )

    def __repr__(self) -> str:
        return f"<Model {self.graph.name}: {self.task.kind}, {len(self.labels)} labels, {len(self.weights)} tensors>"

    @property
    def labels(self) -> tuple[str, ...]:
        """The task's labels."""
        return self.task.labels

    def in_rgb(self) -> "Model":
        """The same network with RGB input, for files that take images as decoded."""
        if self.preprocessing.order == "rgb":
            return self
        graph, weights = with_input_turned(self.graph, self.weights)
        mean, std = self.preprocessing.mean[::-1], self.preprocessing.std[::-1]
        preprocessing = replace(self.preprocessing, mean=mean, std=std, order="rgb")
        return replace(self, graph=graph, weights=weights, preprocessing=preprocessing)
