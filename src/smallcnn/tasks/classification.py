"""Classification: an image is one of several classes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from smallcnn.errors import DataError, FileError, GraphError
from smallcnn.image.geometry import Seen
from smallcnn.ir.types import Tensor
from smallcnn.tasks.ending import PRESENT, Ending, check_ending, probabilities
from smallcnn.tasks.labels import check_logits, checked_labels, some
from smallcnn.tasks.task import Outputs, Task


@dataclass(frozen=True)
class Prediction:
    """A network's answer to one image: the most probable label, and the top labels `ranked` by probability.

    If the network's `ending` is "none", the values are scores instead. If it is "sigmoid", the probabilities are
    independent, and `present` holds the labels with at least `ending.PRESENT`, most probable first.
    """

    label: str
    probability: float
    ranked: tuple[tuple[str, float], ...]
    ending: Ending = "softmax"
    present: tuple[tuple[str, float], ...] = ()

    @property
    def top5(self) -> tuple[tuple[str, float], ...]:
        """Up to five labels with their probabilities."""
        return self.ranked[:5]


@dataclass(frozen=True)
class Classification:
    """One output of one logit per class; `ending` turns logits into probabilities."""

    kind: ClassVar[str] = "classification"
    labels: tuple[str, ...]
    ending: Ending = "softmax"

    def __post_init__(self) -> None:
        check_ending(self.ending)

    def check(self, results: Mapping[str, Tensor]) -> None:
        """Raises GraphError unless there is one output of one real number per label."""
        check_logits(results, self.labels)

    def answer(self, outputs: Outputs, seen: Seen | None = None, *, top: int = 5) -> Prediction:  # noqa: ARG002
        """The classes of one image by probability, from its logits."""
        if top < 1:
            raise DataError(f"top must be at least 1, not {top}")
        (logits,) = outputs.values()
        answer = probabilities(logits, self.ending)
        order = np.argsort(-np.asarray(logits, np.float64), kind="stable")  # probabilities may tie where logits do not
        ranked = tuple((self.labels[i], float(answer[i])) for i in order[:top])
        likely = order[: np.count_nonzero(answer >= PRESENT)] if self.ending == "sigmoid" else ()
        present = tuple((self.labels[i], float(answer[i])) for i in likely)
        return Prediction(*ranked[0], ranked, self.ending, present)

    def to_json(self) -> dict[str, Any]:
        """Labels and ending."""
        return {"labels": list(self.labels), "ending": self.ending}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> "Classification":
        """The inverse of `to_json`. Raises FileError for missing, surplus or invalid fields."""
        if fields.keys() != {"labels", "ending"}:
            found = some([name[:50] for name in fields]) or "nothing"
            raise FileError(f"a classification has labels and an ending, not {found}")
        return cls(checked_labels(fields["labels"]), check_ending(fields["ending"]))


def classification(task: Task, what: str = "this") -> Classification:
    """`task`, if it is classification. Raises GraphError, in which `what` needs it, otherwise."""
    if not isinstance(task, Classification):
        raise GraphError(f"{what} is for classifiers, not for {task.kind}")
    return task
