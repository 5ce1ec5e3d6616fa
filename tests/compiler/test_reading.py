"""Runs of lanes: every channel is found where it lies, whatever the order, also one that is read twice."""

import numpy as np
import pytest

from smallcnn.compiler.reading import even_step, runs
from smallcnn.compiler.storage import Storage, View


def shuffled(channels: int, groups: int) -> View:
    """Channels after a shuffle: channel o is lane (o % groups) * channels / groups + o // groups."""
    order = np.arange(channels).reshape(groups, -1).T.ravel()
    return View.of(Storage(4, 4, channels, "uint8"), order.tolist())


def found(view, groups, lengths):
    """The runs, once it is shown that each channel's row is its lane, and that no two channels share a row."""
    made = runs(view, groups, lengths)
    per_group, starts = view.channels // groups, np.array(made.starts.slots).reshape(groups, -1)
    for group, rows in enumerate(made.rows):
        for i, row in enumerate(rows):
            channel, start = group * per_group + i, starts[group][row // made.length]
            assert start + row % made.length == view.slots[channel]
        assert len(set(rows)) == len(rows)
    return made


@pytest.mark.parametrize(("channels", "groups"), [(60, 3), (120, 3), (240, 3), (272, 8), (24, 2)])
@pytest.mark.parametrize("lengths", [(8, 2), (2,), (4,)])
def test_channels_behind_a_shuffle(channels, groups, lengths):
    view = shuffled(channels, groups)
    made = found(view, groups, lengths)
    assert made.lanes >= channels // groups
    assert even_step(view, groups) is None


@pytest.mark.parametrize("seed", range(20))
def test_channels_at_random(seed):
    rng = np.random.default_rng(seed)
    groups, per_group = int(rng.integers(1, 4)), int(rng.integers(1, 30))
    view = View.of(Storage(2, 2, 128, "uint8"), rng.integers(0, 128, groups * per_group).tolist())
    found(view, groups, (8, 2))


def test_the_length_with_the_least_work():
    """Three runs of six or seven lanes for each group of 20 channels; of scattered ones, eight lanes for each."""
    assert found(shuffled(60, 3), 3, (8, 2)).length == 8
    assert found(View.of(Storage(2, 2, 128, "uint8"), range(0, 128, 16)), 1, (8, 2)).length == 2
