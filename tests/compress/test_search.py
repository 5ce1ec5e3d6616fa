"""`smallcnn compress` given only a size or a time: which combinations are tried, what is chosen, resuming, the gate."""

import json
import shutil
from dataclasses import replace

import pytest

from artifacts import artifact, colour_photos
from smallcnn.compress import clock as clock_module
from smallcnn.compress import plans
from smallcnn.compress.budget import Budget, Limits, parse_size
from smallcnn.compress.clock import Clock, structure
from smallcnn.compress.integers import Int8
from smallcnn.compress.pipeline import compress
from smallcnn.compress.pruning import Prune
from smallcnn.compress.search import search
from smallcnn.compress.workshop import Workshop
from smallcnn.cost.profile import profile
from smallcnn.errors import AccuracyError, DataError, GraphError
from smallcnn.evaluate import evaluate
from smallcnn.ir.builder import Builder
from smallcnn.model.store import content, load, save

MS = Budget("latency", 3.0, relative=False)
QUICK = Prune(budget=MS, criterion="l2", step=2, rounds=1, epochs=0)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return colour_photos(tmp_path_factory.mktemp("search") / "photos", per_class=20)


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(plans, "SHARES", (0.5,))


@pytest.fixture
def clock(monkeypatch):
    """A machine on which a network takes 0.1 ms and 1 ms for each 100,000 Mult-Adds, a third of it with bytes."""

    def milliseconds(clock, model, form="float32"):
        took = 0.1 + profile(model.graph).mult_adds / 1e5
        return took / 3 if form == "int8" or model.graph.integer else took

    monkeypatch.setattr(Clock, "milliseconds", milliseconds)
    return lambda model: milliseconds(None, model)


def test_the_clock(photos, tmp_path, monkeypatch):
    """A quarter of the runs is at most as slow as what counts; the unit is the original's least time at first."""
    pytest.importorskip("halide")
    first = [[[9.0] * 5], [[8.0, 4.0, 4.0, 4.0, 9.0]], [[7.0] * 5]]
    runs = iter([*first, [[8.0] * 5, [4.0, 4.0, 7.0, 4.0, 1.0]]])

    def turns(calls, seconds, progress):
        for call in calls:
            call()
        return next(runs)

    monkeypatch.setattr(clock_module, "take_turns", turns)
    g = Builder(input=(8, 8, 3))
    x = g.conv_bn(g.input, 8, kernel=3, stride=2, name="stem")
    model = artifact(g.graph(g.dense(g.global_pool(x, name="pool"), 3, name="classifier"), features=x, name="one"))
    watch = Clock(model, tmp_path)
    assert watch.milliseconds(model, "int8") == 4.0 * 4.0 / 8.0
    int8 = compress(model, photos, tmp_path / "out.safetensors", [Int8()], max_drop=100, threads=1).model
    assert watch.milliseconds(int8) == watch.known(structure(int8.graph)) == 2.0  # of the same shapes: not timed again
    assert watch.milliseconds(model) == 4.0
    assert Clock(model, tmp_path).milliseconds(int8) == 2.0  # kept
    for text in ("{", "[]", '{"cpu": 1}'):  # damaged, or of another version
        (tmp_path / clock_module.FILE).write_text(text)
        assert Clock(model, tmp_path).known(structure(int8.graph)) is None


def network(width=16):
    g = Builder(input=(8, 8, 3))
    x = g.conv_bn(g.input, width, kernel=3, stride=2, name="stem")
    x = g.conv_bn(x, 2 * width, kernel=1, name="block1")
    x = g.conv_bn(x, 4 * width, kernel=1, name="block2")
    return g.graph(g.dense(g.global_pool(x, name="pool"), 3, name="classifier"), features=x, name="small")


def test_a_budget_of_time_is_kept_by_measuring(photos, tmp_path, clock):
    """The estimate, in microseconds here, only guides the choice."""
    model = artifact(network(64))
    limit = 0.5 * clock(model)
    step = Prune(budget=Budget("latency", limit, relative=False), criterion="l2", step=2, rounds=2, epochs=0)
    found = compress(model, photos, tmp_path / "out.safetensors", [step], max_drop=100, threads=1)
    assert 0.9 * limit <= clock(found.model) <= limit


def test_channels_go_in_steps_and_time_follows(photos, tmp_path, monkeypatch):
    """The first network is just too slow, and a corrected aim gives the same; the next is fast enough."""
    times, timed = {8: 2.0, 6: 1.602, 4: 0.9}, []

    def width(graph):
        return graph["stem.conv"].shape[-1]

    def milliseconds(clock, model, form):
        timed.append(width(model.graph))
        return times[timed[-1]]

    def smaller(most):
        if most < 1:
            raise GraphError("nothing is left")
        return artifact(network(max(one for one in times if one / 4 <= most)))

    monkeypatch.setattr(Clock, "milliseconds", milliseconds)
    model = artifact(network(8))
    watch, how = Clock(model, tmp_path), (model, lambda graph: width(graph) / 4, "float32")
    assert width(watch.within(smaller, 1.6, *how).graph) == 4
    assert timed == [8, 6, 4, 8]  # each but the original once
    with pytest.raises(GraphError, match=r"^0\.2 ms cannot be reached: nothing is left"):
        watch.within(smaller, 0.2, *how)


def test_both_limits_hold(photos, tmp_path, clock):
    model, out = artifact(network()), tmp_path / "out.safetensors"
    half, size = clock(model) / 2, len(content(model, packed=True)) // 5
    found = search(
        model, photos, out, size=size, latency=Budget("latency", 0.5, relative=True), prune=QUICK, max_drop=100,
        threads=1,
    )  # fmt: skip
    assert found.limits == Limits(size, half)
    tried = [trial.plan for trial in found.trials]
    assert tried[0] == f"pruned to {half:.3g} ms, shared"
    assert tried[1] == "shared, int8"  # fast enough with all channels
    assert out.stat().st_size <= size
    assert clock(load(out)) <= half


def test_what_is_not_good_enough_is_not_written(photos, tmp_path, clock, monkeypatch):
    model, out = artifact(network()), tmp_path / "out.safetensors"
    latency = Budget("latency", clock(model) / 2, relative=False)
    trained, made = Workshop.fine_tuned, []

    def counted(shop, model, epochs, **how):
        made.append(epochs)
        return trained(shop, model, epochs, **how)

    monkeypatch.setattr(Workshop, "fine_tuned", counted)
    how = {"latency": latency, "prune": replace(QUICK, epochs=1), "max_drop": -100, "threads": 1}
    with pytest.raises(AccuracyError, match=r"^no combination of \d+ within .* ms is accurate enough; the best"):
        search(model, photos, out, **how)
    assert not out.exists()
    first = len(made)
    assert first
    shutil.copytree(out.with_name("out_steps"), tmp_path / "kept")
    with pytest.raises(DataError, match=r"another run \(search differ"):
        search(model, photos, out, **how | {"size": 10**4})
    found = search(model, photos, out, **how, anyway=True)
    assert len(made) == first  # everything was kept
    assert clock(load(out)) <= latency.amount
    assert {trial.epochs for trial in found.trials} == {0, 1}
    assert load(out).facts["compressed"]["from"] == "small"
    for text in ("{", "[]", '{"a": 1}', '{"a": {"row": {}}}'):  # damaged, or of another version: made again
        shutil.copytree(tmp_path / "kept", out.with_name("out_steps"), dirs_exist_ok=True)
        for name in ("trials.json", "rows.json"):
            (out.with_name("out_steps") / name).write_text(text)
        assert search(model, photos, out, **how, anyway=True).trials == found.trials


def test_bad_input_is_one_line(photos, tmp_path, clock):
    model, out = artifact(network()), tmp_path / "out.safetensors"
    with pytest.raises(DataError, match=r"small is within 1,000,000 bytes and 10 ms; there is nothing to do"):
        search(model, photos, out, size=10**6, latency=Budget("latency", 10.0, relative=False))
    assert not out.with_name("out_steps").exists()
    with pytest.raises(DataError, match=r"no combination is within 500 bytes: .*500 bytes are too few"):
        search(model, photos, out, size=500, prune=QUICK)
    assert (parse_size("0.25x", 1000), parse_size("1.5 kB", 1), parse_size("2MB", 1)) == (250, 1500, 2_000_000)
    for text in ("half", "1x", "0kB", "500"):
        with pytest.raises(DataError, match=r"a size is|a budget must"):
            parse_size(text, 1000)


def test_packing_alone(photos, tmp_path, smallcnn):
    model, out = artifact(network()), tmp_path / "out.safetensors"
    save(model, tmp_path / "m.safetensors")
    size = (tmp_path / "m.safetensors").stat().st_size
    packed = len(content(model, packed=True))
    code, text, _ = smallcnn(
        "compress", tmp_path / "m.safetensors", "--data", photos, "--out", out, "--size", f"{(size + packed) // 2}B",
        "--threads", 1, "--json",
    )  # fmt: skip
    record = json.loads(text)
    assert (code, record["search"]["chosen"], record["search"]["trials"]) == (0, "packed", [])
    assert [(step["name"], step["bytes"]) for step in record["steps"]] == [
        ("original", size), ("packed", out.stat().st_size)
    ]  # fmt: skip
    assert all((load(out).weights[name] == value).all() for name, value in model.weights.items())


def test_a_plan_that_cannot_be_made_leaves_the_next(photos, tmp_path, clock, monkeypatch):
    """The trial is within the limits; the network in two rounds cannot be made."""
    model, rounds = artifact(network()), Prune._pruned

    def pruned(step, model, limit, shop):
        if step.rounds > 1:
            raise GraphError("too slow in this round")
        return rounds(step, model, limit, shop)

    monkeypatch.setattr(Prune, "_pruned", pruned)
    said = []
    found = search(
        model, photos, tmp_path / "out.safetensors", latency=Budget("latency", 0.5, relative=True),
        prune=replace(QUICK, rounds=2, epochs=1), max_drop=-100, anyway=True, threads=1, say=said.append,
    )  # fmt: skip
    assert found.chosen == "int8"
    assert any(line.endswith("too slow in this round") for line in said)


def test_the_command(photos, tmp_path, smallcnn, refused):
    save(artifact(network()), tmp_path / "m.safetensors")
    call = ["compress", tmp_path / "m.safetensors", "--data", photos, "--out", tmp_path / "o.safetensors"]
    rest = ["--criterion", "l2", "--step", 2, "--rounds", 1, "--fine-tune", 0, "--max-drop", 100, "--threads", 1]
    code, text, err = smallcnn(*call, "--size", "0.5x", *rest, "--json")
    assert code == 0, err
    record = json.loads(text)
    half = (tmp_path / "m.safetensors").stat().st_size // 2
    assert record["search"]["limits"] == {"bytes": half, "milliseconds": None}
    assert (record["search"]["split"], record["search"]["images"]) == ("val", 12)
    assert (tmp_path / "o.safetensors").stat().st_size <= half
    tried = record["search"]["trials"]
    assert {"shared", "low rank 0.6, shared", "pruned to 0.5x parameters"} <= {trial["plan"] for trial in tried}
    best = max((trial for trial in tried if not trial["problem"]), key=lambda trial: (trial["score"], -trial["bytes"]))
    assert record["search"]["chosen"] == best["plan"]
    assert evaluate(tmp_path / "o.safetensors", photos, part="val").scores["top1"] == record["top1_after"]
    assert not (tmp_path / "o_steps").exists()
    assert "trial 1 of" in err
    code, text, err = smallcnn(*call, "--prune", "0.5x", "--size", "5kB", "--int8", *rest, "--json")
    assert code == 0, err
    names = [step["name"] for step in json.loads(text)["steps"]]
    assert names == ["original", "pruned", "shared for 5,000 bytes", "int8"]
    assert (tmp_path / "o.safetensors").stat().st_size <= 5000
    assert "give one of them" in refused(*call, "--size", "5kB", "--share", "5bit")
    assert "give one of them" in refused(*call, "--prune", "3ms", "--latency", "3ms")
