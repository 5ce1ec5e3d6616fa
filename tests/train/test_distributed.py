"""Several processes on one run: they end where one process ends, and go on when one of them is lost."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from artifacts import colour_photos
from networks import tiny
from processes import Processes, together
from smallcnn.errors import CompileError, DataError
from smallcnn.model import store
from smallcnn.reference.initial import initial_weights
from smallcnn.train import loop
from smallcnn.train.distributed import joined
from smallcnn.train.fast.native import library
from smallcnn.train.ranks import Ranks
from smallcnn.train.recipe import Recipe
from smallcnn.train.run import train
from smallcnn.train.sync_norm import SynchronisedNorm


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = colour_photos(tmp_path_factory.mktemp("data") / "photos", per_class=20)
    for name in ("broken", "also_broken", "broken_too"):
        (folder / "red" / f"{name}.png").write_bytes(b"not an image")
    return folder


@pytest.fixture(scope="module")
def kernels():
    try:
        library()
    except CompileError as error:
        pytest.skip(str(error))


def work(data, out, recipe, resume=False, compute="auto"):
    train(tiny(), data, out, recipe=recipe, resume=resume, compute=compute)


def near(first, second, recipe):
    """Two runs end with the same weights, losses and accuracies, but for rounding.

    In float32 a step rounds weights and statistics, which are near 1, by 2^-24 a few times, and the next of at most 40
    steps carry it on: measured 5e-7. In bfloat16 the values of each layer are rounded by 2^-9, and their gradients; how
    far weights or statistics have come is uncertain by 2^-8 for each of both: measured a quarter of that. An answer may
    change, for one of 12 images to judge and two of 48 to learn from.
    """
    exact = recipe.precision == "float32"
    start = initial_weights(tiny(), recipe.seed)
    one, two = (store.load(folder / "last.safetensors") for folder in (first, second))
    for kind in (True, False):
        names = [name for name in one.weights if ("running" in name) is kind]
        way = max(np.abs(one.weights[name] - start[name]).max() for name in names)
        for name in names:
            atol = 4 * 40 * 2**-24 if exact else 2 * 2**-8 * way
            np.testing.assert_allclose(two.weights[name], one.weights[name], rtol=0, atol=atol, err_msg=name)
    assert one.facts["data"] == two.facts["data"]
    logs = [
        [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()] for folder in (first, second)
    ]
    assert len(logs[0]) == len(logs[1])
    for a, b in zip(*logs, strict=True):
        for key in ("train_loss", "val_loss"):
            assert a[key] == pytest.approx(b[key], rel=1e-6 if exact else 2**-8)
        for key in ("train_top1", "val_top1", "val_top5"):
            assert a[key] == pytest.approx(b[key], abs=0 if exact else 0.1)
        assert a["lr"] == b["lr"]


# the images that cannot be decoded are found at once (augmentation "small") or when it is their turn ("photo")
RECIPES = {
    "small": (2, {}),
    "photo, parts, mixed, averaged": (
        3, {"augment": "photo", "accumulate": 2, "mixup": 0.2, "cutmix": 1.0, "ema": 0.9, "batch_size": 12}
    ),
    "head first": (2, {"augment": "photo", "head_epochs": 1, "epochs": 4}),
    "frozen norms": (2, {"batch_norm": "frozen"}),
}  # fmt: skip


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", RECIPES)
def test_several_processes_end_where_one_does(photos, tmp_path, name, precision):
    count, changes = RECIPES[name]
    recipe = Recipe(**{"epochs": 3, "batch_size": 8, "precision": precision} | changes)
    together(tmp_path, 1, work, photos, tmp_path / "one", recipe)
    said = together(tmp_path, count, work, photos, tmp_path / "several", recipe)
    near(tmp_path / "one", tmp_path / "several", recipe)
    assert "epoch   3" in said[0]
    assert ("bfloat16 autocast" if precision == "bfloat16" else "float32") in said[0]
    assert f"{count} processes" in said[0]
    assert sum(line.startswith("skipped") for line in said[0].splitlines()) == 3  # those of all processes
    assert said[1:] == [""] * (count - 1)


@pytest.mark.parametrize("name", ["photo, parts, mixed, averaged", "head first"])
def test_our_kernels_in_several_processes_end_where_one_does(photos, tmp_path, kernels, name):
    """With the same bits as before if they are stopped in between."""
    count, changes = RECIPES[name]
    recipe = Recipe(**{"epochs": 3, "batch_size": 8, "precision": "float32"} | changes)
    together(tmp_path, 1, work, photos, tmp_path / "one", recipe, False, "kernels")
    said = together(tmp_path, count, work, photos, tmp_path / "several", recipe, False, "kernels")
    near(tmp_path / "one", tmp_path / "several", recipe)
    assert "computed by kernels" in said[0]
    for end in (1, 2, None):
        together(tmp_path, count, until, photos, tmp_path / "cut", recipe, end, "kernels")
    whole, cut = (store.load(tmp_path / name / "last.safetensors") for name in ("several", "cut"))
    assert all(np.array_equal(whole.weights[tensor], cut.weights[tensor]) for tensor in whole.weights)


def test_another_number_of_processes_goes_on(photos, tmp_path):
    recipe = Recipe(epochs=4, batch_size=12, augment="photo", precision="float32")
    together(tmp_path, 1, work, photos, tmp_path / "one", recipe)
    for count, end in [(2, 1), (3, 2), (1, 3), (2, None)]:
        together(tmp_path, count, until, photos, tmp_path / "cut", recipe, end)
    near(tmp_path / "one", tmp_path / "cut", recipe)


def until(data, out, recipe, end, compute="auto"):
    """Trains until a few steps into the epoch `end`, and is then asked to stop in one of the processes."""
    step = loop.Loop._step

    def step_and_ask(self, *args):
        if (self.progress.epoch, self.progress.step) == (end, 2) and self.ranks.number == self.ranks.count - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        step(self, *args)

    loop.Loop._step = step_and_ask
    result = train(tiny(), data, out, recipe=recipe, resume=True, compute=compute)
    assert result.finished == (end is None)


def test_batches_that_cannot_be_shared(photos, tmp_path):
    run = Processes(tmp_path, 2, work, photos, tmp_path / "run", Recipe(epochs=1, batch_size=9))
    codes, said = run.finish()
    assert codes == [2, 2]
    assert said == [
        "smallcnn: a batch of 9 images cannot be shared evenly (2 processes); "
        "it must be a multiple of 2, such as 8 or 10\n",
        "",
    ]


def test_shares_of_a_batch():
    shares = [Ranks(number, 3).share(24, 2, pairs=True) for number in range(3)]
    assert [[part.tolist() for part in share] for share in shares] == [
        [[0, 1, 2, 3], [12, 13, 14, 15]],
        [[4, 5, 6, 7], [16, 17, 18, 19]],
        [[8, 9, 10, 11], [20, 21, 22, 23]],
    ]
    assert [part.tolist() for part in Ranks().share(7, 2, pairs=False)] == [[0, 1, 2, 3], [4, 5, 6]]
    with pytest.raises(
        DataError, match=r"3 processes, 2 micro-batches, mixed pairs.* a multiple of 12, such as 12 or 24"
    ):
        Ranks(1, 3).share(18, 2, pairs=True)
    with pytest.raises(DataError, match=r"a multiple of 16, such as 16$"):
        Ranks(1, 16).share(8, 1, pairs=False)


def only_some_have_data(data, out):
    train(tiny(), data if os.environ["RANK"] == "0" else data / "red", out, recipe=Recipe(epochs=1, batch_size=8))


def test_what_is_wrong_in_one_process_is_said_by_the_first(photos, tmp_path):
    codes, said = Processes(tmp_path, 2, only_some_have_data, photos, tmp_path / "run").finish()
    assert codes == [2, 2]
    assert said[0].startswith("smallcnn: process 1: ")
    assert len(said[0].splitlines()) == 1
    assert said[1] == ""


def test_divergence_is_said_once(photos, tmp_path):
    recipe = Recipe(epochs=3, batch_size=8, lr=1e30, warmup_epochs=0)
    codes, said = Processes(tmp_path, 2, work, photos, tmp_path / "run", recipe).finish()
    assert codes == [2, 2]
    assert "the loss became" in said[0].splitlines()[-1]
    assert said[1] == ""


def norms(out):
    """The third process has no images; the values are far from zero, where float32 squares lose their digits."""
    with joined("cpu") as (ranks, _):
        torch.manual_seed(0)
        x = torch.randn(5, 4, 3, 2) * torch.tensor([1, 10, 0.1, 1])[:, None, None] + 1000
        wanted = torch.randn(5, 4, 3, 2)
        mine = slice(*[(0, 2), (2, 5), (5, 5)][ranks.number])
        norm = nn.BatchNorm2d(4)
        nn.init.normal_(norm.weight)
        synchronised = SynchronisedNorm(norm)
        part = x[mine].clone().requires_grad_()
        y = synchronised(part)
        (y * wanted[mine]).sum().backward()
        found = [y.detach(), part.grad, norm.weight.grad, norm.bias.grad, norm.running_mean, norm.running_var]
        if not mine.stop - mine.start:
            assert y.shape == (0, 4, 3, 2)
        parts = ranks.gather(found)
        ys, xs, weights, biases, means, variances = zip(*parts, strict=True)
        assert all(torch.equal(mean, means[0]) for mean in means)
        if ranks.first:
            torch.save([torch.cat(ys), torch.cat(xs), sum(weights), sum(biases), means[0], variances[0]], out)
            torch.save([x, wanted, norm.weight.detach()], f"{out}.given")


def test_norms_are_those_of_all_pictures_together(tmp_path):
    together(tmp_path, 3, norms, tmp_path / "found")
    x, wanted, weight = (tensor.double() for tensor in torch.load(tmp_path / "found.given"))
    norm = nn.BatchNorm2d(4).double()
    norm.weight.data.copy_(weight)
    x.requires_grad_()
    y = norm(x)
    (y * wanted).sum().backward()
    expected = [y.detach(), x.grad, norm.weight.grad, norm.bias.grad, norm.running_mean, norm.running_var]
    for got, want in zip(torch.load(tmp_path / "found"), expected, strict=True):
        # values near 1000 have 6e-5 of float32 rounding, divided by a deviation of 0.1 and added over 30 pixels
        torch.testing.assert_close(got.double(), want, rtol=1e-4, atol=2e-2)


# ---- under torchrun itself

MODEL = "mobilenet_v1:width=0.25,small_input=true,variant=shallow"

LOST = """
import os, signal, sys
sys.path.insert(0, TESTS)
import machine
machine.follow()
from smallcnn.cli.main import main
from smallcnn.train import loop
loop._CHECKPOINT_SECONDS = 0.02
step = loop.Loop._step
def step_and_die(self, *args):
    step(self, *args)
    at = (os.environ["TORCHELASTIC_RESTART_COUNT"], self.progress.epoch, self.progress.step, self.ranks.number)
    if " ".join(map(str, at)) in LOST:
        os.kill(os.getpid(), signal.SIGKILL)
loop.Loop._step = step_and_die
main(sys.argv[1:])
"""


# restart, epoch, step, process
@pytest.mark.parametrize(
    "lost", [["0 0 3 1"], pytest.param(["0 0 3 1", "1 0 5 0", "2 1 2 0"], marks=pytest.mark.long)], ids=str
)
def test_a_lost_process_is_started_again_and_the_run_goes_on(photos, tmp_path, lost):
    (tmp_path / "lost.py").write_text(f"TESTS, LOST = {str(Path(__file__).parents[1])!r}, {lost}\n{LOST}")
    options = ["--data", photos, "--out", tmp_path / "lost", "--resolution", 32, "--epochs", 2, "--batch-size", 8]
    options += ["--compute", "torch", "--precision", "float32"]  # not what the cache and the processor happen to have
    run = torchrun(tmp_path / "lost.py", "train", MODEL, *options)
    assert run.returncode == 0, run.stderr
    assert run.stdout == f"{tmp_path / 'lost' / 'best.safetensors'}\n"
    assert run.stderr.count("resumed at epoch") == len(lost)
    assert run.stderr.count("epoch   2") == 1
    assert "Warning" not in run.stderr
    together(tmp_path, 2, undisturbed, photos, tmp_path / "whole")
    first, second = (store.load(tmp_path / name / "last.safetensors") for name in ("whole", "lost"))
    assert first.facts == second.facts
    assert all(np.array_equal(first.weights[name], second.weights[name]) for name in first.weights)


def undisturbed(data, out):
    train(MODEL, data, out, resolution=32, epochs=2, batch_size=8, compute="torch", precision="float32")


def torchrun(*args):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["--max-restarts", "3", *map(str, args)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)
