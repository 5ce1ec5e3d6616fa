"""How a sum over channels finds them: evenly spaced lanes in place, or a table."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from smallcnn.compiler.storage import Storage, View

_ENTRY = 4
"""Finding a run and converting its bytes, in products of as many lanes."""


@dataclass(frozen=True)
class Runs:
    """The channels of each group as runs of `length` neighbouring lanes, which a sum of bytes reads at once.

    `starts` are the channels that runs start with, equally many of each group. Each channel is a row of `rows` among
    the lanes of its group's runs; weights of other lanes are zero.
    """

    length: int
    starts: View
    rows: list[list[int]]

    @property
    def lanes(self) -> int:
        """Lanes of a group's runs."""
        return self.starts.channels // len(self.rows) * self.length


def runs(view: View, groups: int, lengths: Sequence[int]) -> Runs:
    """The channels as runs of the length that takes the least work."""
    found = [_runs(view, groups, length) for length in lengths]
    return min(found, key=lambda one: one.starts.channels * (one.length + _ENTRY))


def _runs(view: View, groups: int, length: int) -> Runs:
    starts: list[list[int]] = []  # channels
    rows: list[list[int]] = []
    per_group = view.channels // groups
    order = {storage: i for i, storage in enumerate(dict.fromkeys(view.storages))}
    for group in range(groups):
        channels = range(group * per_group, (group + 1) * per_group)
        own: list[int] = []
        place = dict.fromkeys(channels, 0)
        last: tuple[Storage, int] | None = None  # the lane that the last run starts with, and its channels so far
        taken: set[int] = set()
        for channel in sorted(channels, key=lambda c: (order[view.storages[c]], view.slots[c])):
            storage, slot = view.storages[channel], view.slots[channel]
            if last is None or last[0] is not storage or slot - last[1] >= length or slot in taken:
                last, taken = (storage, slot), set()
                own.append(channel)
            taken.add(slot)
            place[channel] = length * (len(own) - 1) + slot - last[1]
        starts.append(own)
        rows.append([place[channel] for channel in channels])
    most = max(map(len, starts))
    filled = [channel for own in starts for channel in (own + own[:1] * most)[:most]]
    return Runs(length, view.pick(filled), rows)


def even_step(view: View, groups: int) -> int | None:
    """The lane step between groups, if contiguous and evenly spaced; None if they need a table."""
    if not view.single:
        return None
    slots = np.array(view.slots).reshape(groups, -1)
    steps = np.diff(slots[:, 0])
    if (np.diff(slots, axis=1) != 1).any() or (steps != steps[:1]).any() or (steps < 0).any():
        return None
    return int(steps[0]) if len(steps) else 0
