"""The precision of a run: what the recipe says, or what the processor is quicker in, and the same to its end."""

import os
import signal

import pytest
import torch

from artifacts import colour_photos
from machine import PRECISIONS
from networks import tiny
from smallcnn.errors import DataError
from smallcnn.model.store import load
from smallcnn.train import loop, trial
from smallcnn.train.compute import possible
from smallcnn.train.recipe import Recipe
from smallcnn.train.run import resume, train

QUICK = Recipe(epochs=2, batch_size=8)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return colour_photos(tmp_path_factory.mktemp("data") / "photos")


@pytest.fixture
def processor(monkeypatch):
    """Makes this a processor that has bfloat16, and is quicker in a precision."""

    def prefers(precision):
        def rates(computations, *_):
            return [100.0 if one.bfloat16 is (precision == "bfloat16") else 50.0 for one in computations]

        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
        monkeypatch.setattr(trial, "rates", rates)
        monkeypatch.setattr("smallcnn.train.choice.possible", possible)  # the option --precision replaces it
        monkeypatch.setattr("smallcnn.train.choice._FEWEST", 0)  # no run is too short

    return prefers


def computed_in(result):
    return "bfloat16" if load(result.last).facts["bfloat16"] else "float32"


@pytest.mark.parametrize("prefers", PRECISIONS)
@pytest.mark.parametrize("wanted", ["auto", *PRECISIONS])
def test_the_recipe_decides_or_else_the_processor(processor, photos, tmp_path, capsys, prefers, wanted):
    processor(prefers)
    result = train(tiny(), photos, tmp_path, recipe=QUICK, precision=wanted)
    precision = prefers if wanted == "auto" else wanted
    assert computed_in(result) == precision
    assert {"bfloat16": "bfloat16 autocast", "float32": " float32"}[precision] in capsys.readouterr().err


@pytest.mark.parametrize("began", PRECISIONS)
def test_a_run_moved_to_another_processor_keeps_its_precision(processor, photos, tmp_path, monkeypatch, began):
    other = next(precision for precision in PRECISIONS if precision != began)
    processor(began)
    whole = train(tiny(), photos, tmp_path / "whole", recipe=QUICK)
    step = loop.Loop._step

    def step_and_stop(self, *args):
        step(self, *args)
        if self.progress.epoch == 1 and self.progress.step == 0:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(loop.Loop, "_step", step_and_stop)
        assert not train(tiny(), photos, tmp_path / "moved", recipe=QUICK).finished
    processor(other)
    moved = resume(tmp_path / "moved")
    assert moved.finished
    assert computed_in(moved) == began
    assert [epoch.train["loss"] for epoch in moved.history] == [epoch.train["loss"] for epoch in whole.history]


def test_our_own_kernels_compute_in_float32_on_any_processor(processor, photos, tmp_path):
    processor("bfloat16")
    result = train(tiny(), photos, tmp_path / "kernels", recipe=QUICK, compute="kernels")
    assert computed_in(result) == "float32"
    with pytest.raises(DataError, match=r"^--compute kernels is for float32 on the CPU, not bfloat16; drop one of"):
        train(tiny(), photos, tmp_path / "both", recipe=QUICK, compute="kernels", precision="bfloat16")
