"""Running a study: what is done stays done, a kill costs nothing, processes share, and mistakes are one clear line."""

import dataclasses
import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from smallcnn import Builder
from smallcnn.errors import DataError, FileError, SmallcnnError
from smallcnn.model import store
from smallcnn.study import results, running
from smallcnn.study.definition import Row, Study
from smallcnn.system import lock
from smallcnn.train.recipe import Recipe


def tiny(*, resolution, classes, channels):
    g = Builder(input=(resolution, resolution, channels))
    x = g.conv_bn(g.input, 8, kernel=3, stride=2, name="stem")
    return g.graph(g.dense(g.global_pool(x), classes), features=x, name="tiny")


STUDY = Study(
    name="tiny", title="Tiny networks", question="Which?", source="nobody", published="top-1, %",
    recipe=Recipe(epochs=2, batch_size=32, lr=0.05, ema=0.9, val_fraction=0.1, augment="none"),
    rows=(
        Row("Own graph", tiny, 1000, "12.3", 8),
        Row("By name", "effnet_cifar:block=shufflenet", 1000, "45.6", 8),
    ),
    seeds=2,
)  # fmt: skip

# killed at the second checkpoint of the second run, after its first epoch
DRIVER = """
import os, pathlib, signal, sys
sys.path[:0] = [sys.argv[1], str(pathlib.Path(sys.argv[1], "study"))]
import machine
machine.follow()
from smallcnn.train import checkpoint
from test_study_running import STUDY
from smallcnn.study import running

save, saved = checkpoint.save, []

def save_and_die(path, *rest):
    save(path, *rest)
    saved.append(path.parent.parent.name)
    if saved.count("by-name") == 2:
        os.kill(os.getpid(), signal.SIGKILL)

checkpoint.save = save_and_die
running.run(STUDY, sys.argv[2], pathlib.Path(sys.argv[3]), compute="torch")
"""


def figures(lines):
    """Everything that must not depend on when a run was killed."""
    return [dataclasses.asdict(run) | {"seconds": 0} for line in lines for run in line.outcomes]


def write_bars(path):
    """160 + 40 grey images of 8x8 in ten classes: a bar at one of ten places, and noise."""
    rng, y = np.random.default_rng(0), np.arange(200) % 10
    x = rng.integers(0, 100, (200, 8, 8), np.uint8)
    for i, label in enumerate(y):
        x[i, label % 5 + 1 if label < 5 else slice(None), label % 5 + 1 if label >= 5 else slice(None)] += 150
    np.savez(path, x_train=x[:160], y_train=y[:160], x_test=x[160:], y_test=y[160:])
    return path


@pytest.fixture(scope="module")
def bars(tmp_path_factory):
    return write_bars(tmp_path_factory.mktemp("bars") / "bars.npz")


@pytest.fixture(scope="module")
def whole(bars, tmp_path_factory):
    """The study run in one go, and what it said."""
    out, said = tmp_path_factory.mktemp("study"), []
    assert running.run(STUDY, bars, out, compute="torch", say=said.append)
    return out, said


def test_trains_every_row_with_every_seed(whole):
    out, said = whole
    lines = results.read(STUDY, out)
    assert [[run.seed for run in line.outcomes] for line in lines] == [[0, 1], [0, 1]]
    assert len({run.top1 for line in lines for run in line.outcomes}) > 1
    for line in lines:
        for run in line.outcomes:
            assert run.test_images == 40
            assert run.recipe["seed"] == run.seed
            assert 0 < run.top1 <= 1
            assert run.ema_top1 is not None
    # 3x3 convolution of a grey image to 8 channels with batch norm, and a dense layer of 8 x 10
    assert {(run.mult_adds, run.parameters) for run in lines[0].outcomes} == {(4 * 4 * 72 + 80, 72 + 16 + 90)}
    starts = [line.partition(";")[0] for line in said if line.startswith("run ")]
    assert starts == ["run 1 of 4: Own graph, seed 0", "run 2 of 4: By name, seed 0",
                      "run 3 of 4: Own graph, seed 1", "run 4 of 4: By name, seed 1"]  # fmt: skip


def test_accuracy_is_that_of_the_last_epoch_on_the_test_part(whole, bars, smallcnn):
    out, _ = whole
    for row, seed in (("own-graph", 1), ("by-name", 0)):
        folder = out / row / f"seed-{seed}"
        stored = json.loads((folder / "result.json").read_text())
        for key, file in (("top1", "last"), ("best_top1", "best"), ("ema_top1", "last_ema")):
            model = folder / f"{file}.safetensors"
            code, printed, _ = smallcnn("evaluate", model, "--data", bars, "--part", "test", "--json")
            assert code == 0
            assert stored[key] == json.loads(printed)["top1"]


def test_killed_and_resumed(whole, bars, tmp_path, capsys):
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, Path(__file__).parents[1], bars, tmp_path],
        capture_output=True, text=True, check=False,
        timeout=100,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr
    said = []
    assert running.run(STUDY, bars, tmp_path, compute="torch", say=said.append)
    assert said[0].startswith("run 2 of 4")
    assert "resumed at epoch 2, step 0" in capsys.readouterr().err
    assert figures(results.read(STUDY, tmp_path)) == figures(results.read(STUDY, whole[0]))


def test_what_is_done_is_not_done_again(whole, bars):
    out, _ = whole
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.*")}
    said = []
    assert running.run(STUDY, bars, out, compute="torch", say=said.append)
    assert said == []
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.*") if path.suffix != ".lock"} == {
        path: when for path, when in before.items() if path.suffix != ".lock"
    }


def test_a_run_of_another_process_is_left_to_it(bars, tmp_path):
    study = dataclasses.replace(STUDY, recipe=dataclasses.replace(STUDY.recipe, epochs=1), seeds=1)
    (tmp_path / "own-graph").mkdir()
    said = []
    with lock.held(tmp_path / "own-graph" / "seed-0.lock", wait=False):
        assert not running.run(study, bars, tmp_path, compute="torch", say=said.append)
    assert said[-1] == "another process has 1 run: Own graph, seed 0"
    assert [len(line.outcomes) for line in results.read(study, tmp_path)] == [0, 1]
    assert running.run(study, bars, tmp_path, compute="torch", rows=["own-graph"])
    assert [len(line.outcomes) for line in results.read(study, tmp_path)] == [1, 1]


def test_a_folder_is_of_one_recipe_and_one_data_set(whole, bars, tmp_path):
    out, _ = whole
    with pytest.raises(DataError, match="runs of two recipes, with epochs 2 and 3; use another --out"):
        running.run(STUDY, bars, out, epochs=3)
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 255, (40, 8, 8), np.uint8), np.arange(40) % 10
    np.savez(tmp_path / "other.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    with pytest.raises(DataError, match=r"holds runs on bars\.npz, not the images of .*other\.npz; use another --out"):
        running.run(STUDY, tmp_path / "other.npz", out)
    np.savez(tmp_path / "no_test.npz", x_train=x, y_train=y)
    with pytest.raises(DataError, match=r"no_test\.npz has no test split, which a study needs; it has train, val"):
        running.run(STUDY, tmp_path / "no_test.npz", tmp_path / "out")


def test_a_row_that_is_not_there(bars, tmp_path):
    with pytest.raises(SmallcnnError, match="tiny has no row 'own-grap'; closest: own-graph"):
        running.run(STUDY, bars, tmp_path, rows=["own-grap"])


@pytest.mark.parametrize("text", ['{"row": "own', "[]", "[" * 100_000, '{"row": 3}', "\x00", '{"more": 1}'], ids=ascii)
def test_a_damaged_result(tmp_path, text):
    folder = tmp_path / "own-graph" / "seed-0"
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(text)
    with pytest.raises(DataError, match=r"result\.json: not the result of a study run"):
        results.read(STUDY, tmp_path)


def test_rows_with_a_teacher_need_one_and_learn_from_it(whole, bars, tmp_path):
    taught = dataclasses.replace(
        STUDY, rows=(dataclasses.replace(STUDY.rows[0], label="Taught", distil="soft"),), seeds=1
    )
    with pytest.raises(SmallcnnError, match="tiny has rows that learn from a teacher; give its file with --teacher"):
        running.run(taught, bars, tmp_path)
    teacher = whole[0] / "own-graph" / "seed-0" / "last.safetensors"
    assert running.run(taught, bars, tmp_path, teacher=teacher, compute="torch")
    stored = store.load(tmp_path / "taught" / "seed-0" / "last.safetensors").facts
    assert stored["teacher"]["file"] == str(teacher)
    assert stored["recipe"]["distil"] == "soft"
    other = whole[0] / "own-graph" / "seed-1" / "last.safetensors"
    with pytest.raises(DataError, match="holds runs that learned from another teacher; use another --out"):
        running.run(taught, bars, tmp_path, teacher=other, seeds=2)
    with pytest.raises(SmallcnnError, match="tiny has no chosen row that learns from a teacher; drop --teacher"):
        running.run(STUDY, bars, tmp_path / "x", teacher=other)


def test_a_run_that_fails_does_not_stop_the_others(bars, tmp_path):
    def wrong(*, resolution, classes, channels):
        return tiny(resolution=resolution, classes=classes + 1, channels=channels)

    rows = (Row("Wrong", wrong, 1000, "", 8), STUDY.rows[0])
    study = dataclasses.replace(STUDY, rows=rows, seeds=1, recipe=dataclasses.replace(STUDY.recipe, epochs=1))
    said = []
    with pytest.raises(DataError, match=r"^1 run of 2 failed; Wrong, seed 0: tiny has an output of shape"):
        running.run(study, bars, tmp_path, compute="torch", say=said.append)
    assert said[1].startswith("failed: Wrong, seed 0: ")
    assert [len(line.outcomes) for line in results.read(study, tmp_path)] == [0, 1]


@pytest.mark.parametrize("inside", ["", "below"])
def test_a_place_that_is_no_folder(bars, tmp_path, inside):
    (tmp_path / "file").touch()
    with pytest.raises(FileError, match=r"cannot write into .*own-graph: Not a directory"):
        running.run(STUDY, bars, tmp_path / "file" / inside)
