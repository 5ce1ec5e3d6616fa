"""When a run ends that has fewer steps than its recipe: because its minutes are over, or its patience.

A run of N minutes has as many steps as fit, by the speed so far, and its schedule ends with the last of them. That
number is looked at again now and then and is part of the checkpoint, so a resumed run goes on with the same one.
"""

from collections.abc import Mapping, Sequence
from typing import Any

_FIRST = 8  # steps: before, a speed is that of starting up


def is_due(step: int) -> bool:
    """Whether to look again after so many steps of the first epoch: later ones are looked at when they end."""
    return step >= _FIRST and step & (step - 1) == 0


def fitting(done: int, spent: float, minutes: float, most: int) -> int:
    """The steps of a run that has `done` some in `spent` seconds; `most` is what its recipe has."""
    left = 60 * minutes - spent
    return max(done, min(most, done + int(left * done / max(spent, 1e-9))))


def top1(record: Mapping[str, Any]) -> float:
    """The better validation top-1 of an epoch, of the plain and of the averaged weights."""
    return max(record["val_top1"], record.get("ema_val_top1", 0.0))


def epochs_without_gain(history: Sequence[Mapping[str, Any]]) -> int:
    """How many epochs have passed since the one with the highest validation top-1."""
    scores = [top1(record) for record in history]
    return len(scores) - 1 - scores.index(max(scores))
