"""Attributes: an image has any number of independent labels, some of which answer one question.

A label stands alone ("smiling": yes or no), or is one of the choices of a question ("colour: red" of "colour").
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from smallcnn.errors import DataError, FileError
from smallcnn.image.geometry import Seen
from smallcnn.ir.types import Tensor
from smallcnn.tasks.ending import PRESENT, probabilities
from smallcnn.tasks.labels import check_logits, checked_labels, some
from smallcnn.tasks.task import Outputs


@dataclass(frozen=True)
class AttributesAnswer:
    """A network's answer to one image: labels with their probabilities, most probable first.

    `present` holds the most probable label of each question, and every other label with at least `ending.PRESENT`.
    `chosen` holds the most probable label of each question by the question's name, and `ranked` all labels.
    """

    present: tuple[tuple[str, float], ...]
    chosen: Mapping[str, tuple[str, float]]
    ranked: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Attributes:
    """One output of one logit per label, each with its own sigmoid.

    `choices` maps the name of a question to the labels that answer it, of which exactly one is true. Every other label
    is a yes/no question. Raises FileError if a label occurs twice, or a choice is none of the labels.
    """

    kind: ClassVar[str] = "attributes"
    labels: tuple[str, ...]
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        answers = [label for question in self.choices.values() for label in question]
        for what, names in (("label", self.labels), ("choice", answers)):
            if twice := sorted(name for name, count in Counter(names).items() if count > 1):
                raise FileError(f"the same {what} twice: {some(twice)}")
        known = set(self.labels)
        if strangers := [label for label in answers if label not in known]:
            raise FileError(f"choices that are no labels: {some(strangers)}")
        if empty := [question for question, labels in self.choices.items() if not labels]:
            raise FileError(f"questions without choices: {some(empty)}")

    def check(self, results: Mapping[str, Tensor]) -> None:
        """Raises GraphError unless there is one output of one real number per label."""
        check_logits(results, self.labels)

    def answer(self, outputs: Outputs, seen: Seen | None = None) -> AttributesAnswer:  # noqa: ARG002
        """The labels of one image by probability, from its logits."""
        (logits,) = outputs.values()
        answer = dict(zip(self.labels, probabilities(logits, "sigmoid").tolist(), strict=True))
        ranked = tuple(sorted(answer.items(), key=lambda item: -item[1]))
        chosen = {
            question: max(((label, answer[label]) for label in labels), key=lambda item: item[1])
            for question, labels in self.choices.items()
        }
        best, answers = {label for label, _ in chosen.values()}, self._question_of
        present = (
            (label, value) for label, value in ranked if label in best or (label not in answers and value >= PRESENT)
        )
        return AttributesAnswer(tuple(present), chosen, ranked)

    @property
    def questions(self) -> tuple[str, ...]:
        """Yes/no labels and the names of the questions with choices, in the order of the labels."""
        return tuple(dict.fromkeys(self._question_of.get(label, label) for label in self.labels))

    def present(self, known: "Attributes", present: np.ndarray) -> np.ndarray:
        """Targets (N, A) for these labels, from targets (N, B) for those of a data set; NaN is unknown.

        The data set may have more questions, or fewer. Raises DataError if none is the same, or one of the same name
        has a choice that is not among these labels.
        """
        self._check_matches(known)
        place = {label: index for index, label in enumerate(known.labels)}
        found = np.full((len(present), len(self.labels)), np.nan, np.float32)
        for column, label in enumerate(self.labels):
            if label in place:
                found[:, column] = present[:, place[label]]
            elif others := known.choices.get(self._question_of.get(label, "")):  # absent wherever the answer is known
                found[:, column] = present[:, place[others[0]]] * 0
        return found

    @cached_property
    def _question_of(self) -> dict[str, str]:
        return {label: question for question, labels in self.choices.items() for label in labels}

    def _check_matches(self, known: "Attributes") -> None:
        problem = ""
        if not set(self.questions) & set(known.questions):
            problem = f"the network knows {some(self.labels)}; the data has {some(known.labels)}"
        for question in (name for name in self.questions if name in known.questions):
            mine, theirs = self.choices.get(question), known.choices.get(question)
            if (mine is None) != (theirs is None):
                here, there = ("a choice", "a yes/no question") if mine is None else ("a yes/no question", "a choice")
                problem = f"{question!r} is {here} in the data, and {there} for the network"
            elif strangers := [label for label in theirs or () if label not in (mine or ())]:
                problem = f"the network does not know {some(strangers)}; it knows {some(mine or ())}"
        if problem:
            raise DataError(f"labels do not match: {problem}")

    def to_json(self) -> dict[str, Any]:
        """Labels and choices."""
        return {"labels": list(self.labels), "choices": {name: list(labels) for name, labels in self.choices.items()}}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> "Attributes":
        """The inverse of `to_json`. Raises FileError for missing, surplus or invalid fields."""
        if fields.keys() != {"labels", "choices"} or not isinstance(fields["choices"], dict):
            found = some([name[:50] for name in fields]) or "nothing"
            raise FileError(f"attributes have labels and choices, not {found}")
        choices = {str(name): checked_labels(labels) for name, labels in fields["choices"].items()}
        return cls(checked_labels(fields["labels"]), choices)
