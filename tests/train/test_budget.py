"""Runs that end by the clock or for want of progress: how long, how well, and exactly the same when resumed."""

import numpy as np
import pytest

from artifacts import colour_photos
from interrupted import killed_at
from networks import tiny
from processes import together
from smallcnn.model import store
from smallcnn.train import budget
from smallcnn.train.epochs import Epoch, epochs_without_gain
from smallcnn.train.loop import Loop
from smallcnn.train.recipe import Recipe
from smallcnn.train.run import resume, train

RECIPE = Recipe(epochs=10, batch_size=4, warmup_epochs=0.0)  # 15 images to train on: 3 steps an epoch


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return colour_photos(tmp_path_factory.mktemp("data") / "photos", per_class=6)


@pytest.fixture
def clock(monkeypatch):
    """A clock by which every step takes six seconds, and nothing else takes any."""
    monkeypatch.setattr(Loop, "_spent", lambda self: 6.0 * self._done())
    monkeypatch.setattr(budget, "_FIRST", 2)
    return monkeypatch


def weights(result):
    return store.load(result.last).weights


def same(first, second):
    first, second = weights(first), weights(second)
    return all(np.array_equal(first[name], second[name]) for name in first)


def test_what_fits():
    assert budget.fitting(done=10, spent=60, minutes=2, most=1000) == 20
    assert budget.fitting(done=10, spent=60, minutes=2, most=15) == 15
    assert budget.fitting(done=10, spent=200, minutes=2, most=1000) == 10
    assert [step for step in range(100) if budget.is_due(step)] == [8, 16, 32, 64]


@pytest.mark.parametrize("minutes", [1.3, 0.9, 0.6, 0.2, 0.05])
def test_the_steps_and_the_schedule_end_with_the_time(photos, tmp_path, clock, minutes):
    learned = []
    rate = Loop._rate

    def seen(self, step):
        learned.append(step)
        return rate(self, step)

    clock.setattr(Loop, "_rate", seen)
    result = train(tiny(), photos, tmp_path, recipe=RECIPE, minutes=minutes, compute="torch")
    steps = max(learned) + 1
    assert result.finished
    assert steps == max(1, int(minutes * 10))
    assert len(result.history) == -(-steps // 3)
    if steps > 3:  # the last step of a cosine over N steps has the rate (1 + cos(pi (N - 1) / N)) / 2 of the highest
        assert result.history[-1].lr == pytest.approx(
            0.1 * 4 / 64 * (1 + np.cos(np.pi * (steps - 1) / steps)) / 2, rel=1e-9
        )
    assert resume(tmp_path).finished


def test_time_enough_changes_nothing(photos, tmp_path):
    whole = train(tiny(), photos, tmp_path / "whole", recipe=RECIPE, compute="torch")
    timed = train(tiny(), photos, tmp_path / "timed", recipe=RECIPE, minutes=60, compute="torch")
    assert len(timed.history) == 10
    assert same(whole, timed)


@pytest.mark.parametrize("step", [1, 2, 3, 7, 12])
def test_a_timed_run_resumes_exactly(photos, tmp_path, clock, step):
    def run(name):
        return train(
            tiny(), photos, tmp_path / name, recipe=RECIPE, minutes=1.3, head_epochs=1, ema=0.9, compute="torch"
        )

    whole = run("whole")
    killed_at(step, clock, lambda: run("cut"))
    cut = resume(tmp_path / "cut")
    assert [epoch.lr for epoch in cut.history] == [epoch.lr for epoch in whole.history]
    assert same(whole, cut)


def test_time_spent_before_counts(photos, tmp_path, monkeypatch):
    killed_at(7, monkeypatch, lambda: train(tiny(), photos, tmp_path, recipe=RECIPE, minutes=60, compute="torch"))
    monkeypatch.setattr(Loop, "_spent", lambda self: self.spent_before + 3600)
    result = resume(tmp_path)
    assert result.finished
    assert len(result.history) == 3  # the third epoch is closed where it is
    assert [epoch.epoch for epoch in result.history] == [1, 2, 3]


def timed(data, out):
    Loop._spent = lambda self: 6.0 * self._done() * (1 if self.ranks.first else 7)  # each has a clock of its own
    budget._FIRST = 2
    train(tiny(), data, out, recipe=RECIPE, minutes=0.8)


def test_processes_end_together(photos, tmp_path):
    together(tmp_path, 2, timed, photos, tmp_path / "run")
    assert len((tmp_path / "run" / "log.jsonl").read_text().splitlines()) == 3  # 8 steps


def test_patience(photos, tmp_path, monkeypatch):
    scores = [0.2, 0.4, 0.3, 0.4, 0.5, 0.5, 0.1, 0.2, 0.9, 0.9]
    # the fifth is the best for three epochs
    monkeypatch.setattr(Epoch, "best", lambda self, goal: scores[self.epoch - 1])
    recipe = Recipe(epochs=10, batch_size=4, patience=3)
    whole = train(tiny(), photos, tmp_path / "whole", recipe=recipe, compute="torch")
    assert whole.finished
    assert len(whole.history) == 8
    assert len(resume(tmp_path / "whole").history) == 8
    killed_at(13, monkeypatch, lambda: train(tiny(), photos, tmp_path / "cut", recipe=recipe, compute="torch"))
    cut = resume(tmp_path / "cut")
    assert len(cut.history) == 8
    assert same(whole, cut)


def epoch(val, averaged=None):
    scores = {} if averaged is None else {"loss": 1.0, "top1": averaged}
    val = {"loss": 1.0, "top1": val}
    return Epoch(epoch=1, train=val, val=val, averaged=scores, images_per_second=1.0, seconds=1.0)


def test_the_better_of_both_weights_counts():
    assert epochs_without_gain([epoch(0.5, 0.3), epoch(0.4, 0.6), epoch(0.6)], "top1") == 1


def test_no_patience_by_default(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(Epoch, "best", lambda self, goal: -self.epoch)
    assert len(train(tiny(), photos, tmp_path, recipe=Recipe(epochs=4, batch_size=4)).history) == 4
