"""A run killed with SIGKILL at random moments and resumed ends with the weights of one that was not, bit for bit."""

import json
import os
import random
import subprocess
import sys
import time

import numpy as np
import pytest
from safetensors import safe_open

from artifacts import colour_photos
from smallcnn import artifact

# a checkpoint every 0.02 s instead of every minute, so that a short run is caught inside epochs too
DRIVER = """
import sys
from smallcnn.train import loop
from smallcnn.train.recipe import Recipe
from smallcnn.train.run import train
loop._CHECKPOINT_SECONDS = 0.02
recipe = Recipe(epochs=int(sys.argv[3]), batch_size=4, augment="photo")
train("mobilenet_v1:width=0.25,small_input=true,variant=shallow", sys.argv[1], sys.argv[2], resolution=32,
           recipe=recipe, resume=True)
"""


def start(data, out, epochs):
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(data), str(out), str(epochs)],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "2"},  # sums are split between threads, as in a real run
    )


def finish(data, out, epochs):
    process = start(data, out, epochs)
    _, said = process.communicate()
    assert process.returncode == 0, said
    return said


def epochs_done(state):
    """How far the checkpoint is, in epochs; nothing is done before there is one."""
    if not state.is_file():
        return -1.0
    with safe_open(state, "numpy") as file:
        progress = json.loads(file.metadata()["progress"])
    return progress["epoch"] + progress["step"] / 100  # fewer than 100 steps an epoch: keeps the order


def killed_and_resumed(tmp_path, kills, epochs, seed):
    data = colour_photos(tmp_path / "photos", per_class=20)
    (data / "red" / "broken.png").write_bytes(b"not a picture")
    finish(data, tmp_path / "whole", epochs)
    rng = random.Random(seed)
    # from the first checkpoint to two thirds of the run, each later than the one before: no kill finds it finished
    for target in [0.0, *sorted(rng.uniform(0, 0.65 * epochs) for _ in range(kills - 1))]:
        process = start(data, tmp_path / "cut", epochs)
        while process.poll() is None and epochs_done(tmp_path / "cut" / "checkpoint.safetensors") < target:
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.03))  # any moment of a step, or of writing a file
        assert process.poll() is None, "the run ended before it was killed"
        process.kill()
        process.communicate()
    said = finish(data, tmp_path / "cut", epochs)
    assert "resumed at epoch" in said
    facts = [artifact.load(tmp_path / name / "last.safetensors").facts for name in ("whole", "cut")]
    assert facts[0] == facts[1]
    first, second = (artifact.load(tmp_path / name / "last.safetensors").weights for name in ("whole", "cut"))
    assert all(np.array_equal(first[name], second[name]) for name in first)
    logs = [(tmp_path / name / "log.jsonl").read_text().splitlines() for name in ("whole", "cut")]
    figures = ("epoch", "lr", "train_loss", "train_top1", "val_loss", "val_top1")
    whole, cut = ([[json.loads(line)[key] for key in figures] for line in lines] for lines in logs)
    assert whole == cut
    assert not list((tmp_path / "cut").glob(".*.part"))  # what a kill left half-written is gone


def test_killed_three_times(tmp_path):
    killed_and_resumed(tmp_path, kills=3, epochs=12, seed=0)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(3))
def test_killed_many_times(tmp_path, seed):
    killed_and_resumed(tmp_path, kills=10, epochs=40, seed=seed)
