"""Objectives: the loss of attributes against its formula, training on a table of them, and resuming it exactly."""

import csv
import re

import numpy as np
import pytest
import torch
from PIL import Image

from artifacts import COLOURS, colour_photos
from interrupted import killed_at
from networks import tiny
from smallcnn.cli.main import main
from smallcnn.data.sources import open_source
from smallcnn.errors import DataError
from smallcnn.model import store
from smallcnn.tasks.attributes import Attributes
from smallcnn.train.objective import AttributeObjective
from smallcnn.train.recipe import Recipe
from smallcnn.train.run import resume, train
from smallcnn.transform.adapt import with_classes

COLOURED = ("colour: blue", "colour: green", "colour: red")
TASK = Attributes((*COLOURED, "bright"), {"colour": COLOURED})
NETWORK = with_classes(tiny(), 4)
RECIPE = Recipe(epochs=6, batch_size=6, ema=0.8, mixup=0.2, augment="photo", precision="float32")


@pytest.fixture
def table(tmp_path):
    """Images of three colours, half of them bright, with a table; two answers are missing."""
    folder = tmp_path / "things"
    folder.mkdir()
    rng = np.random.default_rng(0)
    rows = []
    for i in range(36):
        name, bright = list(COLOURS)[i % 3], i % 2 == 0
        pixels = np.array(COLOURS[name]) * (1.0 if bright else 0.3) + rng.normal(0, 10, (20, 20, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{i}.png")
        rows.append([f"{i}.png", "" if i == 5 else name, "" if i == 7 else "yes" if bright else "no"])
    with (folder / "attributes.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["file", "colour", "bright"], *rows])
    return folder


def parts():
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 2, (5, 4)).astype(np.float32)
    present = rng.integers(0, 2, (5, 4)).astype(np.float32)
    present[0, 1] = present[3, 0] = np.nan
    present[4] = np.nan
    return logits, present


def by_formula(logits, present, smoothing):
    """Each image's mean over its known labels of -t log s(z) - (1 - t) log(1 - s(z)), with t moved towards 1/2."""
    each = []
    for row, truth in zip(logits.astype(np.float64), present, strict=True):
        probability = 1 / (1 + np.exp(-row))
        target = truth * (1 - smoothing) + smoothing / 2
        terms = -target * np.log(probability) - (1 - target) * np.log(1 - probability)
        each.append(terms[~np.isnan(truth)].mean() if (~np.isnan(truth)).any() else 0.0)
    return np.array(each)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("mixed", [False, True])
def test_loss_of_attributes_by_formula(smoothing, mixed):
    logits, present = parts()
    want = by_formula(logits, present, smoothing)
    own = None
    if mixed:
        own = np.array([0.7, 0.7, 0.4, 0.4, 1.0], np.float32)
        want = own * want + (1 - own) * by_formula(logits, present[[1, 0, 3, 2, 4]], smoothing)
    given = torch.from_numpy(logits).requires_grad_()
    shares = None if own is None else torch.from_numpy(own)
    loss = AttributeObjective(TASK, smoothing).loss({"logits": given}, torch.from_numpy(present), shares)
    assert loss.item() == pytest.approx(4 * want.mean(), rel=1e-5)  # four labels
    loss.backward()
    assert bool(given.grad.isfinite().all())
    if not mixed:
        assert not given.grad[np.isnan(present)].any()


def test_trained_on_a_table(table, tmp_path):
    run = train(NETWORK, table, tmp_path / "run", recipe=Recipe(epochs=12, batch_size=6, lr=0.5), compute="torch")
    assert run.goal == "mean_average_precision"
    scores = [epoch.val[run.goal] for epoch in run.history]
    assert max(scores) >= 0.8  # by chance about 0.4
    assert run.history[-1].train["loss"] < run.history[0].train["loss"]
    best, last = store.load(run.best), store.load(run.last)
    assert best.task == open_source(table).task
    assert set(best.labels) == set(TASK.labels)
    assert best.facts["val_mean_average_precision"] == max(scores)
    assert best.facts["epoch"] == 1 + scores.index(max(scores))
    assert last.facts["val_mean_average_precision"] == scores[-1]
    assert "val_top1" not in last.facts


def test_resumed_exactly(table, tmp_path, monkeypatch):
    def run(name):
        return train(NETWORK, table, tmp_path / name, recipe=RECIPE, compute="torch")

    whole = run("whole")
    killed_at(7, monkeypatch, lambda: run("cut"))
    cut = resume(tmp_path / "cut")
    for ours, theirs in zip(cut.history, whole.history, strict=True):  # the first that differs says where it began
        assert (ours.train, ours.val, ours.averaged) == (theirs.train, theirs.val, theirs.averaged), ours.epoch
    first, second = (store.load(result.last).weights for result in (whole, cut))
    for name, value in first.items():
        np.testing.assert_array_equal(second[name], value, err_msg=name)


@pytest.mark.parametrize(("columns", "labels"), [(["colour"], COLOURED), (["bright", "colour"], ("bright", *COLOURED))])
def test_chosen_questions_are_those_of_a_resumed_run_too(table, tmp_path, columns, labels):
    out = tmp_path / "run"
    graph = with_classes(tiny(), len(labels))
    run = train(graph, table, out, recipe=RECIPE, epochs=1, columns=columns, compute="torch")
    assert store.load(run.last).labels == labels
    assert resume(out).finished


def test_from_a_classifier_the_last_layer_is_new_and_from_attributes_it_is_kept(table, tmp_path):
    photos = colour_photos(tmp_path / "photos")
    classifier = train(tiny(), photos, tmp_path / "classes", recipe=RECIPE, epochs=1, compute="torch")
    first = train(store.load(classifier.last), table, tmp_path / "first", recipe=RECIPE, epochs=1, compute="torch")
    assert store.load(first.last).facts["start"]["new_last_layer"] is True
    again = train(store.load(first.last), table, tmp_path / "again", recipe=RECIPE, epochs=1, compute="torch")
    start = store.load(again.last).facts["start"]
    assert start["new_last_layer"] is False
    assert start["val_mean_average_precision"] == first.history[-1].val["mean_average_precision"]


def test_settings_for_another_task_are_refused(table, tmp_path):
    for options, said in (
        ({"task": "classification"}, "labelled for attributes, not for classification"),
        ({"balance": True}, "--balance is for classes"),
    ):
        with pytest.raises(DataError, match=said):
            train(NETWORK, table, tmp_path / "run", recipe=RECIPE, compute="torch", **options)


def test_the_command(table, tmp_path, capsys):
    arguments = ["--task", "attributes", "--columns", "colour,bright", "--epochs", "1", "--batch-size", "6"]
    model = "mobilenet_v1:width=0.25,small_input=true,variant=shallow"
    with pytest.raises(SystemExit) as ended:
        main(["train", model, "--data", str(table), "--out", str(tmp_path / "run"), "--resolution", "32", *arguments])
    said = capsys.readouterr().err
    assert ended.value.code == 0, said
    assert re.search(r"val loss [\d.]+ mean average precision [\d.]+%", said)
    assert "best validation mean average precision" in said
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "<h2>Labels</h2>" in page
    assert "colour: blue" in page


def test_resuming_with_other_columns_is_refused(table, tmp_path, capsys):
    model = ["mobilenet_v1:width=0.25,small_input=true", "--resolution", "8", "--epochs", "1", "--out"]
    command = ["train", *model, str(tmp_path / "run"), "--data", str(table)]
    for options, code in (["--columns", "colour"], 0), (["--columns", "bright", "--resume"], 2), (["--resume"], 2):
        with pytest.raises(SystemExit) as ended:
            main([*command, *options])
        assert ended.value.code == code
    assert "or it is another data set, or other columns)" in capsys.readouterr().err
