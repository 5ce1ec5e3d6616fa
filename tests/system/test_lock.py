"""One process at a time in a run's folder: whoever comes second is told who is there, and changes nothing."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from safetensors import safe_open

from artifacts import colour_photos
from networks import tiny
from processes import Processes, together
from smallcnn.errors import DataError, FileError
from smallcnn.model import store
from smallcnn.system import lock
from smallcnn.train import loop
from smallcnn.train import run as module
from smallcnn.train.recipe import Recipe
from smallcnn.train.run import resume, train

CHECKPOINT = "checkpoint.safetensors"
RECIPE = Recipe(epochs=3, batch_size=4)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return colour_photos(tmp_path_factory.mktemp("data") / "photos", per_class=6)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def in_there(folder):
    """Another process that holds the folder until it is told to leave."""
    code = (
        "import sys; from pathlib import Path; from smallcnn.system import lock\n"
        "with lock.run_folder(Path(sys.argv[1])): print('in', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout.readline() == "in\n"
    return other


def test_the_second_is_told_who_is_there_and_touches_nothing(tmp_path, photos):
    out = tmp_path / "run"
    train(tiny(), photos, out, recipe=RECIPE, compute="torch")
    with in_there(out) as other:
        (out / ".last.safetensors.1.part").write_bytes(b"what the other is just writing")
        before = contents(out)
        for start in (
            lambda: resume(out),
            lambda: train(tiny(), photos, out, recipe=RECIPE, compute="torch", resume=True),
        ):
            with pytest.raises(DataError) as caught:
                start()
            assert re.match(
                rf"{out}: in use by process {other.pid} on \S+ since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d; ",
                str(caught.value),
            )
        assert contents(out) == before
        other.stdin.close()
    assert resume(out).finished
    assert not (out / ".last.safetensors.1.part").exists()
    assert not (out / lock.RUN).exists()


def test_a_new_run_is_refused_while_another_begins(tmp_path, photos):
    out = tmp_path / "run"
    with in_there(out) as other:
        with pytest.raises(DataError, match=f"in use by process {other.pid}"):
            train(tiny(), photos, out, recipe=RECIPE)
        assert [path.name for path in out.iterdir()] == [lock.RUN]
        other.stdin.close()
    assert not out.exists()  # the other made it, and left nothing in it


def test_a_killed_process_holds_nothing(tmp_path, photos):
    out = tmp_path / "run"
    with in_there(out) as other:
        other.kill()
    assert (out / lock.RUN).exists()
    assert train(tiny(), photos, out, recipe=RECIPE, compute="torch").finished


def test_a_refused_start_leaves_no_trace(tmp_path, photos, monkeypatch):
    def refuse(*_, **__):
        raise DataError("something does not fit")

    monkeypatch.setattr(module, "Loop", refuse)
    with pytest.raises(DataError, match="does not fit"):
        train(tiny(), photos, tmp_path / "run", recipe=RECIPE)
    assert not (tmp_path / "run").exists()


def test_a_folder_that_holds_a_run_is_left_as_it_is(tmp_path, photos):
    out = tmp_path / "run"
    train(tiny(), photos, out, recipe=RECIPE, compute="torch")
    (out / ".last.safetensors.1.part").write_bytes(b"half")
    before = contents(out)
    with pytest.raises(DataError, match="already holds a run"):
        train(tiny(), photos, out, recipe=RECIPE)
    with pytest.raises(DataError, match="--epochs was 3 and is now 4"):
        train(tiny(), photos, out, recipe=RECIPE, epochs=4, resume=True)
    assert contents(out) == before


def test_file_systems_without_locks_are_trained_on(tmp_path, photos, monkeypatch, capsys):
    def unable(*_, **__):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(lock, "_lock", unable)
    assert train(tiny(), photos, tmp_path / "run", recipe=RECIPE, compute="torch").finished
    assert "files cannot be locked" in capsys.readouterr().err


def test_places_that_cannot_be_a_run_folder(tmp_path, photos):
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(FileError, match="cannot write into the run folder"):
            train(tiny(), photos, place, recipe=RECIPE)


def test_a_strangers_link_is_not_followed(tmp_path, photos):
    """What is locked is written to: a link in a folder from elsewhere would empty the file it points to."""
    out, mine = tmp_path / "run", tmp_path / "mine"
    train(tiny(), photos, out, recipe=RECIPE, compute="torch")
    mine.write_text("of the user's")
    (out / lock.RUN).symlink_to(mine)
    with pytest.raises(FileError, match="cannot write into the run folder"):
        resume(out)
    assert mine.read_text() == "of the user's"
    (out / lock.RUN).unlink()
    os.mkfifo(out / lock.RUN)
    with pytest.raises(FileError, match="not a regular file"):
        resume(out)


def ranked(data, out):
    train(tiny(), data, out, recipe=Recipe(epochs=2, batch_size=4))


def test_processes_of_one_run_share_the_lock(tmp_path, photos):
    said = together(tmp_path, 2, ranked, photos, tmp_path / "run")
    assert "in use" not in "".join(said)
    assert not (tmp_path / "run" / lock.RUN).exists()


def fight(data, out, recipe):
    step = loop.Loop._step

    def slower(*args):
        step(*args)
        time.sleep(0.05)

    loop.Loop._step, loop._CHECKPOINT_SECONDS = slower, 0.02
    lock._PATIENCE = 0.3  # instead of two seconds, in which the short run would be over
    train(tiny(), data, out, recipe=recipe, resume=True)


def position(state):
    """How far the checkpoint is, in epochs."""
    if not state.is_file():
        return -1.0
    with safe_open(state, "numpy") as file:
        progress = json.loads(file.metadata()["progress"])
    return progress["epoch"] + progress["step"] / 100


def one_kill(tmp_path, photos, out, recipe, early, goal, rng):
    """Two fight for the folder and one is killed, `early` before it is settled who trains. Says what the other did."""
    state = out / CHECKPOINT
    before = position(state)
    pair = [Processes(tmp_path / name, 1, fight, photos, out, recipe) for name in "ab"]
    if early:
        time.sleep(rng.uniform(0.1, 1.0))
        victim = rng.choice(pair)
    else:
        assert waited(lambda: sum(run.running() for run in pair) == 1)
        victim = next(run for run in pair if run.running())
        assert waited(lambda: position(state) > max(before, goal))
        time.sleep(rng.uniform(0, 0.05))
    other = pair[1 - pair.index(victim)]
    victim.members[0].kill()
    victim.members[0].join(60)
    left = position(state)
    assert left >= before
    if early and waited(lambda: not other.running() or position(state) > left) and other.running():
        other.members[0].kill()
    codes, (said,) = other.finish()
    assert position(state) >= left
    if codes == [-signal.SIGKILL]:
        return "trained"
    assert codes == [2], said
    (line,) = [line for line in said.splitlines() if line.startswith("smallcnn: ")]
    assert f"in use by process {victim.members[0].pid} on " in line
    return "refused"


@pytest.mark.long
def test_fifteen_kills_while_two_fight_for_one_folder(tmp_path, photos):
    """One trains, the other is refused or takes over from a killed one; nothing that was done is done again or lost."""
    recipe, rng, out = Recipe(epochs=150, batch_size=4, ema=0.9), random.Random(0), tmp_path / "fought"
    train(tiny(), photos, tmp_path / "whole", recipe=recipe, compute="torch")
    others = [
        one_kill(tmp_path / str(kill), photos, out, recipe, kill % 2 == 1, 100 * kill / 15, rng) for kill in range(15)
    ]
    print(f"the other was refused {others.count('refused')} times, trained {others.count('trained')} times")
    print(f"the last kill was at epoch {position(out / CHECKPOINT):.2f}")
    (said,) = together(tmp_path / "end", 1, fight, photos, out, recipe)
    assert "resumed at epoch" in said
    whole, cut = (store.load(folder / "last.safetensors") for folder in (tmp_path / "whole", out))
    assert all(np.array_equal(whole.weights[name], cut.weights[name]) for name in whole.weights)
    logged = [json.loads(line)["epoch"] for line in (out / "log.jsonl").read_text().splitlines()]
    assert logged == list(range(1, 151))
    assert list(out.glob(".*")) == []


def waited(ready, seconds=60):
    """Whether it became so in time."""
    until = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > until:
            return False
        time.sleep(0.005)
    return True
