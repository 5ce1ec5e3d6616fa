"""Records of finished epochs: what log.jsonl, the checkpoint, the progress line, plots and reports read.

Scores go by name: "top1" and "top5" for classes, "mean_average_precision" for attributes; "loss" is always there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

Scores = Mapping[str, float]

_MOST = 1e15
_SETS = {"train_": "train", "ema_val_": "averaged", "val_": "val"}  # longer prefixes before those they contain
_TIMES = {
    "images_per_second": "images_per_second",
    "seconds": "seconds",
    "seconds_waiting_for_pictures": "seconds_waiting",
}


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """One finished epoch, counted from 1. `lr` is the learning rate of its last step.

    `train` is measured on augmented images while the weights change, `val` on validation images afterwards, and
    `averaged` too, with the averaged weights; it is empty without them. `seconds_waiting` were spent waiting for
    images.
    """

    epoch: int
    lr: float = 0.0
    train: Scores
    val: Scores
    averaged: Scores
    images_per_second: float
    seconds: float
    seconds_waiting: float = 0.0

    def best(self, goal: str) -> float:
        """The validation score `goal`: the better of plain and averaged weights."""
        return max(scores[goal] for scores in (self.val, self.averaged) if goal in scores)

    def to_json(self) -> dict[str, Any]:
        """A flat object; the names of scores are prefixed: train_top1, val_top1, ema_val_top1."""
        return {
            "epoch": self.epoch,
            "lr": self.lr,
            **{f"train_{name}": score for name, score in self.train.items()},
            **{f"val_{name}": score for name, score in self.val.items()},
            **{f"ema_val_{name}": score for name, score in self.averaged.items()},
            **{key: getattr(self, name) for key, name in _TIMES.items()},
        }

    @classmethod
    def from_json(cls, record: object) -> "Epoch":
        """The inverse of `to_json`. Raises ValueError for anything else; only a loss may be infinite or NaN."""
        if not isinstance(record, dict):
            raise ValueError("the record of an epoch is not a JSON object")
        for key, value in record.items():
            bounded = key.endswith("loss") or (type(value) in (int, float) and abs(value) < _MOST and isfinite(value))
            if type(value) not in (int, float) or not bounded:
                raise ValueError(f"the record of an epoch has {key} {ascii(value)[:50]}")
        values: dict[str, Any] = {"train": {}, "val": {}, "averaged": {}}
        for key, value in record.items():
            for prefix, name in _SETS.items():
                if key.startswith(prefix):
                    values[name][key.removeprefix(prefix)] = value
                    break
            else:
                values[_TIMES.get(str(key), str(key))] = value
        try:
            made = cls(**values)
        except TypeError as error:
            raise ValueError(f"not the record of an epoch ({error})") from error
        if "loss" not in made.train or "loss" not in made.val or type(made.epoch) is not int:
            raise ValueError("not the record of an epoch: no loss, or no number")
        return made


def epochs_without_gain(history: Sequence[Epoch], goal: str) -> int:
    """Number of epochs since the one with the highest validation score."""
    scores = [epoch.best(goal) for epoch in history]
    return len(scores) - 1 - scores.index(max(scores))
