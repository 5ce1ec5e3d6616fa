"""Detection: where in the image objects of several classes are.

The network decides by itself what it has found: decoding and non-maximum suppression are its last operator
(`ir.ops.Detect`). So every engine and every file gives the same four outputs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from smallcnn.errors import FileError, GraphError
from smallcnn.image.geometry import Seen
from smallcnn.ir.types import Tensor
from smallcnn.tasks.labels import checked_labels, some
from smallcnn.tasks.task import Outputs, Task

BOXES, SCORES, CLASSES, COUNT = OUTPUTS = ("boxes", "scores", "classes", "count")
"""Names of the outputs: (K, 4) left, top, right, bottom in fractions of the network's input, (K,), (K,) and (1,).

The first `count` rows are objects, by falling score; the others are zero.
"""


def first(outputs: Outputs, most: int) -> dict[str, np.ndarray]:
    """The outputs of a batch, (N, ...) each, with only the `most` best objects; the other rows are zero."""
    cut = {name: np.array(value) for name, value in outputs.items()}
    for name in (BOXES, SCORES, CLASSES):
        cut[name][:, most:] = 0
    return cut | {COUNT: np.minimum(cut[COUNT], most)}


@dataclass(frozen=True)
class Found:
    """One object: its label, its score from 0 to 1, and its box (left, top, right, bottom) in pixels of the image."""

    label: str
    score: float
    box: tuple[float, float, float, float]


@dataclass(frozen=True, eq=False)
class DetectionAnswer:
    """A network's answer to one image, by falling score.

    `boxes` (n, 4) are in pixels of the image, clipped to it; `scores` (n,); `classes` (n,) count among the `labels`.
    """

    labels: tuple[str, ...]
    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray

    @property
    def found(self) -> tuple[Found, ...]:
        """The objects one by one."""
        rows = zip(self.classes.tolist(), self.scores.tolist(), self.boxes.tolist(), strict=True)
        return tuple(Found(self.labels[number], score, tuple(box)) for number, score, box in rows)

    def above(self, score: float) -> "DetectionAnswer":
        """The objects with a score above this one, as the detector's own threshold has it."""
        return self.take(self.scores > score)

    def take(self, chosen: np.ndarray | Sequence[int]) -> "DetectionAnswer":
        """The objects at these places, or those where a mask is true."""
        chosen = np.asarray(chosen, None if len(chosen) else np.int64)
        return DetectionAnswer(self.labels, self.boxes[chosen], self.scores[chosen], self.classes[chosen])


@dataclass(frozen=True)
class Detection:
    """Boxes, scores and classes of the objects found; `labels` names the classes."""

    kind: ClassVar[str] = "detection"
    labels: tuple[str, ...]

    def check(self, results: Mapping[str, Tensor]) -> None:
        """Raises GraphError unless the outputs are those of a detector."""
        if tuple(results) != OUTPUTS:
            raise GraphError(f"a detector has the outputs {', '.join(OUTPUTS)}, not {', '.join(results) or 'none'}")
        most = results[SCORES].shape[0]
        wanted = {BOXES: (most, 4), SCORES: (most,), CLASSES: (most,), COUNT: (1,)}
        for name, shape in wanted.items():
            if results[name] != Tensor(shape):
                raise GraphError(
                    f"a detector's {name} are float32 {shape}, not {results[name].number} {results[name].shape}"
                )

    def answer(self, outputs: Outputs, seen: Seen | None = None) -> DetectionAnswer:
        """The objects of one image; without `seen`, boxes are in fractions of the network's input."""
        count = int(outputs[COUNT][0])
        boxes = np.asarray(outputs[BOXES][:count], np.float64)
        classes = np.asarray(outputs[CLASSES][:count]).astype(np.int64)
        if len(classes) and not 0 <= classes.min() <= classes.max() < len(self.labels):
            raise GraphError(f"a class outside of the {len(self.labels)} labels: {classes.min()} to {classes.max()}")
        if seen is not None:
            boxes = seen.boxes_to_image(boxes)
        return DetectionAnswer(self.labels, boxes, np.asarray(outputs[SCORES][:count], np.float64), classes)

    def to_json(self) -> dict[str, Any]:
        """Labels."""
        return {"labels": list(self.labels)}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> "Detection":
        """The inverse of `to_json`. Raises FileError for missing, surplus or invalid fields."""
        if fields.keys() != {"labels"}:
            raise FileError(f"a detection has labels, not {some([name[:50] for name in fields]) or 'nothing'}")
        return cls(checked_labels(fields["labels"]))


def answers_of(task: Detection, outputs: Outputs, seen: Sequence[Seen]) -> list[DetectionAnswer]:
    """The answers to N images from outputs (N, ...); the network has `seen` a part of each."""
    images = zip(range(len(outputs[COUNT])), seen, strict=True)
    return [task.answer({name: value[i] for name, value in outputs.items()}, part) for i, part in images]


def detection(task: Task, what: str = "this") -> Detection:
    """`task`, if it is detection. Raises GraphError, in which `what` needs it, otherwise."""
    if not isinstance(task, Detection):
        raise GraphError(f"{what} is for detectors, not for {task.kind}")
    return task
