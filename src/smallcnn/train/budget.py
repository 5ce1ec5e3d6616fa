"""Early end of a run: a limit in minutes, or patience without a gain.

A run of N minutes has as many steps as fit at the speed so far, and its learning-rate schedule ends with the last one.
The number is updated now and then and stored in the checkpoint, so a resumed run continues with it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

_FIRST = 8  # steps; before that the measured speed includes start-up


def is_due(step: int) -> bool:
    """Whether to update the number after `step` steps of the first epoch; later epochs do so when they end."""
    return step >= _FIRST and step & (step - 1) == 0


def fitting(done: int, spent: float, minutes: float, most: int) -> int:
    """Number of steps of a run that has `done` steps after `spent` seconds; `most` is the recipe's number."""
    left = 60 * minutes - spent
    return max(done, min(most, done + int(left * done / max(spent, 1e-9))))


def top1(record: Mapping[str, Any]) -> float:
    """Validation top-1 of an epoch: the better of plain and averaged weights."""
    return max(record["val_top1"], record.get("ema_val_top1", 0.0))


def epochs_without_gain(history: Sequence[Mapping[str, Any]]) -> int:
    """Number of epochs since the one with the highest validation top-1."""
    scores = [top1(record) for record in history]
    return len(scores) - 1 - scores.index(max(scores))
