"""A run killed with SIGKILL at random moments and resumed ends with the weights of one that was not, bit for bit.

So does one whose disk was full meanwhile.
"""

import json
import random
import resource
import subprocess
import time
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
from safetensors import safe_open

from artifacts import artifact, colour_photos
from networks import tiny
from processes import Processes, together
from smallcnn.model import store
from smallcnn.train import loop
from smallcnn.train.recipe import Recipe
from smallcnn.train.run import train

SHALLOW = "mobilenet_v1:width=0.25,small_input=true,variant=shallow"
CHECKPOINT = "checkpoint.safetensors"


def work(model, data, out, recipe):
    loop._CHECKPOINT_SECONDS = 0.02  # instead of a minute, so that a short run is caught inside epochs too
    train(model, data, out, resolution=32 if model == SHALLOW else None, recipe=recipe, resume=True)


def work_until_killed(model, data, out, recipe, end):
    """As `work`, but does not come further than the beginning of the epoch `end`, however late the kill is."""
    step = loop.Loop._step

    def step_or_wait(self, *args):
        while self.progress.epoch >= end:
            self.ranks.sum([0.0])  # notices that another process is gone
            time.sleep(0.01)
        step(self, *args)

    loop.Loop._step = step_or_wait
    work(model, data, out, recipe)


def epochs_done(state):
    """How far the checkpoint is, in epochs; nothing is done before there is one."""
    if not state.is_file():
        return -1.0
    with safe_open(state, "numpy") as file:
        progress = json.loads(file.metadata()["progress"])
    return progress["epoch"] + progress["step"] / 100  # fewer than 100 steps an epoch: keeps the order


def same(whole, cut):
    """Two finished runs have the same models and the same log."""
    for name in ("last.safetensors", "best.safetensors"):
        first, second = (store.load(folder / name) for folder in (whole, cut))
        assert first.facts == second.facts
        assert all(np.array_equal(first.weights[name], second.weights[name]) for name in first.weights)
    logs = [(folder / "log.jsonl").read_text().splitlines() for folder in (whole, cut)]
    figures = ("epoch", "lr", "train_loss", "train_top1", "val_loss", "val_top1")
    first, second = ([[json.loads(line)[key] for key in figures] for line in lines] for lines in logs)
    assert first == second
    assert not list(cut.glob(".*.part"))  # what was half-written is gone


def killed_and_resumed(tmp_path, count, kills, epochs, seed, quantize=False):
    data = colour_photos(tmp_path / "photos", per_class=20)
    (data / "red" / "broken.png").write_bytes(b"not an image")
    recipe = Recipe(epochs=epochs, batch_size=6 if count == 3 else 4, augment="photo", ema=0.9)
    settings = {"threads": 2 if count == 1 else 1}  # sums are split between threads, as in a real run
    model = SHALLOW if count == 1 else tiny()
    if quantize:
        model, recipe = artifact(tiny()), replace(recipe, quantize=True, lr=0.01)
    together(tmp_path, count, work, model, data, tmp_path / "whole", recipe, **settings)
    rng, end = random.Random(seed), int(0.65 * epochs) + 1
    # from the first checkpoint to two thirds of the run, each later than the one before
    for target in [0.0, *sorted(rng.uniform(0, 0.65 * epochs) for _ in range(kills - 1))]:
        run = Processes(tmp_path, count, work_until_killed, model, data, tmp_path / "cut", recipe, end, **settings)
        until = time.monotonic() + 120
        while run.running() and epochs_done(tmp_path / "cut" / CHECKPOINT) < target and time.monotonic() < until:
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.03))  # any moment of a step, or of writing a file
        assert run.running(), "the run ended before it was killed"
        rng.choice(run.members).kill()
        codes, said = run.finish()  # the others end by themselves
        assert 0 not in codes
        assert "Traceback" not in "".join(said)
    said = together(tmp_path, count, work, model, data, tmp_path / "cut", recipe, **settings)
    assert "resumed at epoch" in said[0]
    same(tmp_path / "whole", tmp_path / "cut")


@pytest.mark.parametrize(("count", "kills"), [(1, 3), (2, 2), (3, 2)])
def test_killed_a_few_times(tmp_path, count, kills):
    killed_and_resumed(tmp_path, count, kills, epochs=2 * kills, seed=0)


@pytest.mark.parametrize("count", [1, 2])
def test_killed_while_learning_to_round(tmp_path, count):
    killed_and_resumed(tmp_path, count, kills=2, epochs=4, seed=0, quantize=True)


@pytest.mark.long
@pytest.mark.parametrize("count", [1, 2])
def test_killed_twenty_times(tmp_path, count):
    killed_and_resumed(tmp_path, count, kills=20, epochs=15, seed=count)


def small_files(_disk):
    """No file may grow beyond 4 kB, which the models and checkpoints of the tiny network do. Gives what undoes it."""
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, usual[1]))
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, usual)


def filled(disk):
    """Leaves no byte free. Gives what undoes it."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    return filler.unlink


@pytest.fixture(params=[small_files, filled])
def full(request, tmp_path):
    """(what makes a folder's disk full, the folder, what the system says then)."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if request.param is small_files:
        yield small_files, disk, "File too large"
        return
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "smallcnn", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False, timeout=100).returncode:
        pytest.skip("may not mount a small disk here")
    yield filled, disk, "No space left on device"
    subprocess.run(["umount", str(disk)], check=True, timeout=100)


def disk_full_within_an_epoch(data, out, recipe, fill, disk):
    save, state, seen = loop.checkpoint.save, out / CHECKPOINT, []

    def save_without_space(path, module, average, optimizer, progress, settings):
        if progress.epoch != 1 or progress.step not in (3, 4, 5):
            return save(path, module, average, optimizer, progress, settings)
        before, undo = state.read_bytes(), fill(disk)
        try:
            return save(path, module, average, optimizer, progress, settings)
        finally:
            undo()
            seen.append(progress.step)
            assert state.read_bytes() == before

    loop._CHECKPOINT_SECONDS, loop.checkpoint.save = 0, save_without_space
    train(tiny(), data, out, recipe=recipe)
    assert seen == [3, 4, 5]


def test_a_disk_full_for_a_while_loses_nothing(tmp_path, full):
    fill, disk, reason = full
    data, recipe = colour_photos(tmp_path / "photos", per_class=10), Recipe(epochs=3, batch_size=4)
    together(tmp_path, 1, work, tiny(), data, tmp_path / "whole", recipe)
    (said,) = together(tmp_path, 1, disk_full_within_an_epoch, data, disk / "cut", recipe, fill, disk)
    (line,) = [line for line in said.splitlines() if "cannot write" in line]
    assert line.startswith(f"cannot write {disk / 'cut' / CHECKPOINT}: {reason}; training continues")
    same(tmp_path / "whole", disk / "cut")


def disk_full_at_the_end_of_an_epoch(data, out, recipe, fill, disk):
    close = loop.Loop._close_epoch

    def close_without_space(self, log):
        if self.progress.epoch == 1:
            fill(disk)
        close(self, log)

    loop.Loop._close_epoch = close_without_space
    train(tiny(), data, out, recipe=recipe)


def test_a_disk_full_at_the_end_of_an_epoch_is_one_line_and_nothing_is_lost(tmp_path, full):
    fill, disk, reason = full
    data, recipe = colour_photos(tmp_path / "photos", per_class=10), Recipe(epochs=3, batch_size=4)
    together(tmp_path, 1, work, tiny(), data, tmp_path / "whole", recipe)
    run = Processes(tmp_path, 1, disk_full_at_the_end_of_an_epoch, data, disk / "cut", recipe, fill, disk)
    codes, (said,) = run.finish()
    assert codes == [2]
    assert said.splitlines()[-1] == f"smallcnn: cannot write {disk / 'cut' / 'last.safetensors'}: {reason}"
    assert "Traceback" not in said
    assert epochs_done(disk / "cut" / CHECKPOINT) >= 1
    (disk / "filler").unlink(missing_ok=True)
    together(tmp_path, 1, work, tiny(), data, disk / "cut", recipe)
    same(tmp_path / "whole", disk / "cut")
