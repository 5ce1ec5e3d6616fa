"""Tasks: what a network's outputs mean.

A network says what goes in and what comes out; its task says what that means. A task is data, stored in the model file
as JSON by kind, as operators are.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

import numpy as np

from smallcnn.image.geometry import Seen
from smallcnn.ir.types import Tensor

Outputs = Mapping[str, np.ndarray]
"""A network's outputs for one image by name, without the batch."""


class Task(Protocol):
    """What the outputs mean. Frozen; equal tasks compare equal."""

    kind: ClassVar[str]

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of what the network tells apart, in the order of its outputs; empty if it names nothing."""

    def check(self, results: Mapping[str, Tensor]) -> None:
        """Raises GraphError unless outputs that carry these tensors can be read as this task."""

    def answer(self, outputs: Outputs, seen: Seen | None = None) -> object:
        """What the outputs say about one image; `seen` is the part of it that the network was shown."""

    def to_json(self) -> dict[str, Any]:
        """The task's fields, without its kind."""

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> "Task":
        """The inverse of `to_json`. Raises FileError for missing, surplus or invalid fields."""
