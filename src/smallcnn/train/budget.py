"""A run's limit in minutes.

A run of N minutes has as many steps as fit at the speed so far, and its learning-rate schedule ends with the last one.
The number is updated now and then and stored in the checkpoint, so a resumed run continues with it.
"""

_FIRST = 8  # steps; before that the measured speed includes start-up


def is_due(step: int) -> bool:
    """Whether to update the number after `step` steps of the first epoch; later epochs do so when they end."""
    return step >= _FIRST and step & (step - 1) == 0


def fitting(done: int, spent: float, minutes: float, most: int) -> int:
    """Number of steps of a run that has `done` steps after `spent` seconds; `most` is the recipe's number."""
    left = 60 * minutes - spent
    return max(done, min(most, done + int(left * done / max(spent, 1e-9))))
