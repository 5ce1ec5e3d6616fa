"""The position of a run, as its checkpoint stores it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from smallcnn.train.epochs import Epoch

_MOST = 1e15
_OLDER = {"loss_sum": "loss", "correct": "top1"}
"""Fields of runs of an older smallcnn, by their names in `sums`."""


@dataclass
class Progress:
    """Position in a run. `step`, the sums, the seconds and the seconds waited for images count within the epoch.

    `sums` are the loss and the scores, summed over the `seen` images. `failed` maps images that could not be decoded to
    the reason. `total` is the number of steps of the whole run if its minutes or patience allow fewer than the recipe,
    else 0; `spent` is its seconds so far. `start` has the validation scores before the first step, if the network could
    be the best; `best` is the best score.
    """

    epoch: int = 0
    step: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    seen: int = 0
    seconds: float = 0.0
    waited: float = 0.0
    total: int = 0
    spent: float = 0.0
    best: float = -1.0
    start: dict[str, float] = field(default_factory=dict)
    history: list[Epoch] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)

    def add(self, sums: Mapping[str, float], count: int) -> None:
        """Adds the sums of a step over `count` images."""
        for name, value in sums.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.seen += count

    def means(self) -> dict[str, float]:
        """Loss and scores of the epoch so far."""
        return {name: value / max(self.seen, 1) for name, value in self.sums.items()}

    def fail(self, failed: Mapping[str, str]) -> list[str]:
        """Adds images that could not be decoded; returns a line for each reason that was not known yet."""
        lines, known = [], set(self.failed.values())
        for name, problem in failed.items():
            if name not in self.failed:
                self.failed[name] = problem
                if problem not in known:  # all images of a lost shard share one message
                    lines.append(f"skipped ({len(self.failed)} so far): {problem}")
                    known.add(problem)
        return lines

    def close(self, epoch: Epoch) -> None:
        """Moves to the beginning of the next epoch."""
        self.history.append(epoch)
        self.epoch, self.step = self.epoch + 1, 0
        self.sums, self.seen = {}, 0
        self.seconds = self.waited = 0.0

    def to_json(self) -> dict[str, Any]:
        """The fields, as a JSON object."""
        return asdict(self) | {"history": [epoch.to_json() for epoch in self.history]}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Progress":
        """The inverse of `to_json`. Raises TypeError or ValueError if a field is not one that a run writes."""
        given = dict(values)
        if "best_top1" in given:
            given["best"] = given.pop("best_top1")
        if older := {name: given.pop(key) for key, name in _OLDER.items() if key in given}:
            given["sums"] = older
        history = given.get("history", [])
        if not isinstance(history, list):
            raise TypeError("its history is no list")
        progress, plain = cls(**given | {"history": [Epoch.from_json(record) for record in history]}), cls()
        for entry in fields(cls):
            value, default = getattr(progress, entry.name), getattr(plain, entry.name)
            if not isinstance(value, int | float if isinstance(default, float) else type(default)):
                raise TypeError(f"{entry.name} is {ascii(value)[:50]}")
        counts = progress.epoch, progress.step, progress.seen, progress.total, progress.spent, progress.seconds
        if not all(0 <= value < _MOST for value in (*counts, progress.waited, progress.best + 1)):
            raise ValueError("a position before the start or beyond any end")
        if not all(isinstance(value, int | float) for value in (*progress.sums.values(), *progress.start.values())):
            raise TypeError("a sum or a score is not a number")
        if [epoch.epoch for epoch in progress.history] != list(range(1, progress.epoch + 1)):
            raise ValueError(f"its history is not one of {progress.epoch} epochs")
        if not all(isinstance(problem, str) for problem in progress.failed.values()):
            raise TypeError("an image that could not be decoded has no reason")
        return progress
