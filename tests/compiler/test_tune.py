"""The search for the fastest forms, with invented times and a clock that the test moves."""

import json
import math
from dataclasses import asdict, replace

import numpy as np
import pytest

import planned_networks
from compiled_networks import compiled_for
from smallcnn.compiler import tune
from smallcnn.compiler.choice import Choice
from smallcnn.compiler.space import choices
from smallcnn.compiler.specs import Tile
from smallcnn.compiler.timings import Timings
from smallcnn.errors import FileError, SmallcnnError
from smallcnn.ir.builder import Builder
from smallcnn.model.tuning import Tuning

pytest.importorskip("halide")

COMPILING, RUN = 1.0, 0.01  # seconds of the stand's clock


def network():
    """A convolution, a block of a depthwise and a pointwise one, twice, and a classifier."""
    g = Builder(input=(24, 24, 3))
    x = g.conv(g.input, 32, kernel=3, stride=2)
    for _ in range(2):
        x = g.conv(g.depthwise(x, kernel=3), 32)
    y = g.global_pool(x)
    return g.graph(g.dense(y, 10), features=y, name="small")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SMALLCNN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def planned():
    graph = network()
    context = planned_networks.context_of(graph)
    return planned_networks.planned(graph, context), context


class FakeStand:
    """Kernels take `COMPILING` seconds each to compile; `nanoseconds` of a call are what the test says."""

    def __init__(self, nanoseconds, killed_after=math.inf):
        self.nanoseconds, self.now, self.compiled, self.timed = nanoseconds, 0.0, set(), []
        self.killed_after = killed_after

    def compile(self, calls, enough=lambda: False):
        for spec in dict.fromkeys(call.spec for call in calls):
            if spec not in self.compiled and not enough():
                self.now += COMPILING
                self.compiled.add(spec)

    def has(self, call):
        return call.spec in self.compiled

    def time(self, networks, runs):
        assert all(self.has(call) for one in networks for call in one)
        if len(self.timed) >= self.killed_after:
            raise KeyboardInterrupt
        self.now += RUN * runs * len(networks)
        self.timed.append((runs, [[(call.label, call.choice) for call in one] for one in networks]))
        return [np.array([self.nanoseconds(call) for call in one], np.int64) for one in networks]

    def search(self, planned, threads=1, **options):
        return tune.search(*planned, threads, self, clock=lambda: self.now, **options)


def secret(planned, place=3):
    """Times by which each kernel's choice number `place` takes half of what all others take, and its layers."""
    calls, context = planned
    best = {call.label: choices(call.layers, context, 1) for call in calls if call.choice.tiles}
    best = {label: found[min(place, len(found) - 1)] for label, found in best.items()}

    def nanoseconds(call):
        if not call.choice.tiles:
            return 1_000
        return 50_000 if best.get(call.label) == call.choice else 100_000

    return nanoseconds, best


def chosen(made, best):
    return {call.label: call.choice for call in made.plan if call.label in best}


def test_the_fastest_form_of_every_kernel_is_found(planned):
    nanoseconds, best = secret(planned)
    made = FakeStand(nanoseconds).search(planned, seconds=10_000, most=8)
    assert chosen(made, best) == best
    assert made.complete
    assert len(made.tuning.kernels) == made.tuning.of == len([call for call in planned[0] if call.choice.tiles])
    assert len(best) * 4 < made.tuning.forms <= made.tuning.space
    labels = [layer.label for call in made.plan for layer in call.layers]
    assert labels == [layer.label for call in planned[0] for layer in call.layers]


def test_the_gain_is_the_times_share(planned):
    nanoseconds, _ = secret(planned)
    before = sum(nanoseconds(call) for call in planned[0] if call.choice.tiles)
    made = FakeStand(nanoseconds).search(planned, seconds=10_000, most=8)
    after = sum(nanoseconds(call) for call in made.plan if call.choice.tiles)
    assert made.tuning.gain == pytest.approx(before / after - 1, abs=1e-3)
    assert made.tuning.gain > 0.5


def test_the_budget_is_respected(planned):
    stand = FakeStand(secret(planned)[0])
    told = []
    made = stand.search(planned, seconds=12.0, tell=lambda spent, gain: told.append(spent))
    own = len({call.spec for call in planned[0]}) * COMPILING  # before the budget begins
    assert 6.0 < stand.now - own <= 12.0 + 2 * COMPILING
    assert not made.complete
    assert told == sorted(told)
    assert max(told) <= 12.0


def test_a_budget_too_short_to_try_anything_keeps_the_plan(planned):
    made = FakeStand(secret(planned)[0]).search(planned, seconds=0.01)
    assert [call.spec for call in made.plan] == [call.spec for call in planned[0]]
    assert not made.complete


def test_each_heat_keeps_the_better_half_and_runs_twice_as_often(planned):
    nanoseconds, best = secret(planned, place=2)
    stand = FakeStand(nanoseconds)
    stand.search(planned, seconds=10_000, most=7)
    (_, first), *heats = stand.timed
    assert len(first) == 1
    runs = [runs for runs, _ in heats]
    copies = [len(networks) - 1 for _, networks in heats]  # the plan's own forms run along
    assert runs[:3] == [4, 8, 16]
    assert copies[1] == math.ceil(copies[0] / 2)
    assert copies[2] == math.ceil(copies[1] / 2)
    last = [dict(one) for one in heats[2][1]]
    for label, choice in best.items():
        if any(one.get(label) != last[0].get(label) for one in last):
            assert choice in [one.get(label) for one in last]
    assert tune.better_half({"a": 3.0, "b": 1.0, "c": 2.0}) == ["b", "c"]


def test_a_difference_within_noise_changes_nothing(planned):
    def nanoseconds(call):
        return 100_000 if call.choice in [one.choice for one in planned[0]] else 99_500 * len(call.layers)

    made = FakeStand(nanoseconds).search(planned, seconds=10_000, most=3)
    assert [call.spec for call in made.plan] == [call.spec for call in planned[0]]


def test_two_kernels_where_they_are_faster_than_one(planned):
    fused = [call.label for call in planned[0] if len(call.layers) > 1]
    assert fused

    def nanoseconds(call):
        return 100_000 * len(call.layers) ** 2 if call.choice.tiles else 1_000

    made = FakeStand(nanoseconds).search(planned, seconds=10_000, most=2)
    assert all(len(call.layers) <= 1 for call in made.plan)
    again = tune.remembered(*planned, 1)
    assert [call.label for call in again.plan] == [call.label for call in made.plan]


def test_a_way_is_best_with_a_kernel_that_another_network_measured(planned):
    """It was not compiled when the search began: alone it completed no way."""
    calls, context = planned
    first = calls[0].layers[:1]
    timings, choice = Timings(context, 1), choices(first, context, 1)[-1]
    timings.put(timings.key(first), {choice: 10.0})

    def nanoseconds(call):
        return 100_000 * len(call.layers) ** 2 if call.choice.tiles else 1_000

    stand = FakeStand(nanoseconds)  # fails if it has to time what is not compiled
    stand.search(planned, seconds=10_000, most=12)
    assert choice in {form[1] for _, networks in stand.timed for one in networks for form in one}


def test_a_killed_search_resumes(planned):
    nanoseconds, best = secret(planned)
    stand = FakeStand(nanoseconds, killed_after=4)
    with pytest.raises(KeyboardInterrupt):
        stand.search(planned, seconds=10_000, most=8)
    timed = {form for _, networks in stand.timed for one in networks[1:] for form in one}
    kept = tune.remembered(*planned, 1).tuning.forms
    assert kept > len(best)
    second = FakeStand(nanoseconds)
    made = second.search(planned, seconds=10_000, most=8)
    assert chosen(made, best) == best
    assert made.complete
    for _, networks in second.timed[1:2]:  # the first heat times what is new, and the best so far
        again = {form for one in networks[1:] for form in one if form[1] != dict(networks[0]).get(form[0])}
        assert all(nanoseconds_of(form, best) == 50_000 for form in again & timed)
    third = FakeStand(nanoseconds)
    assert third.search(planned, seconds=10_000, most=8).complete
    assert not third.timed


def nanoseconds_of(form, best):
    label, choice = form
    return 50_000 if best.get(label) == choice else 100_000


@pytest.mark.parametrize(
    "damage",
    [b"", b"{", b"[" * 10_000, b"3", b'[{"tiles": []}]', b"\xff", "rows", "ns"],
    ids=lambda value: repr(value)[:12],
)
def test_a_damaged_record_is_measured_again(planned, cache, damage):
    nanoseconds, best = secret(planned)
    FakeStand(nanoseconds).search(planned, seconds=10_000, most=8)
    for path in (cache / "tuned").rglob("*.json"):
        rows = json.loads(path.read_text())
        bad = {"rows": -1, "ns": "fast"}
        content = json.dumps([row | {damage: bad[damage]} for row in rows]).encode() if damage in bad else damage
        path.write_bytes(content)
    assert tune.remembered(*planned, 1).tuning is None
    stand = FakeStand(nanoseconds)
    assert chosen(stand.search(planned, seconds=10_000, most=8), best) == best
    assert stand.timed


def test_thread_counts_are_kept_apart(planned):
    FakeStand(secret(planned)[0]).search(planned, seconds=10_000, most=8)
    assert tune.remembered(*planned, 1).tuning.threads == 1
    assert tune.remembered(*planned, 2).tuning is None


def test_a_time_is_kept_with_its_choice(planned):
    calls, context = planned
    layers = next(call.layers for call in calls if call.choice.tiles)
    timings = Timings(context, 3)
    choice = Choice((Tile(3, 2, 1, across=True),) * len(layers), rows=4)
    timings.put(timings.key(layers), {choice: 1234.4})  # to the nanosecond
    assert Timings(context, 3).of(timings.key(layers)) == {choice: 1234.0}
    assert Timings(context, 2).of(timings.key(layers)) == {}


TUNING = Tuning(
    kernels=("stem", "block"),
    of=3,
    forms=20,
    space=90,
    gain=0.07,
    threads=2,
    processor="a CPU",
    model="Zen",
    seconds=60.0,
)


def test_the_tuning_is_part_of_the_metadata():
    stored = json.loads(json.dumps(TUNING.to_json()))
    assert Tuning.from_json(stored) == TUNING
    assert Tuning.from_json(stored | {"of a later version": 1}) == TUNING
    assert replace(TUNING, seconds=None) == Tuning.from_json(stored | {"seconds": None})
    for damaged in (None, [], {}, {**stored, "kernels": "stem"}, {**stored, "of": -1}, {**stored, "gain": "much"}):
        with pytest.raises(FileError, match="its tuning is"):
            Tuning.from_json(damaged)


def test_seconds_that_are_none():
    with pytest.raises(SmallcnnError, match="seconds of tuning must be above 0, not -1"):
        compiled_for("host", network(), tune=-1.0)


def test_a_file_says_how_it_was_tuned():
    made = compiled_for("host", network(), threads=1, tune=3.0)
    stored = json.loads(made.program.metadata["smallcnn.tuning"])
    assert stored == asdict(made.tuning) | {"kernels": list(made.tuning.kernels)}
    assert (stored["seconds"], stored["threads"]) == (3.0, 1)
    assert 0 < len(stored["kernels"]) <= stored["of"]
    again = compiled_for("host", network(), threads=1)
    assert again.tuning == replace(made.tuning, seconds=None)
    assert [call.spec for call in again.plan] == [call.spec for call in made.plan]
    assert "smallcnn.tuning" not in compiled_for("host", network(), threads=2).program.metadata
