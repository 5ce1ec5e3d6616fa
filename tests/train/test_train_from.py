"""Starting from trained weights: what stays, what is new, and that a run so started resumes like any other."""

import json

import numpy as np
import pytest

from artifacts import LABELS, artifact, colour_photos
from smallcnn.checkpoints import catalogue, importing
from smallcnn.checkpoints.catalogue import Checkpoint
from smallcnn.errors import DataError, GraphError
from smallcnn.image.fit import Preprocessing
from smallcnn.model.model import Model
from smallcnn.model.store import load, save
from smallcnn.tasks.classification import Classification
from smallcnn.train.recipe import Recipe
from smallcnn.train.recipes import NAMED
from smallcnn.train.run import resume, train
from smallcnn.zoo import mobilenet_v2, vgg16

STILL = Recipe(epochs=1, batch_size=8, lr=1e-12, weight_decay=0.0)  # a step that changes nothing visible


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return colour_photos(tmp_path_factory.mktemp("data") / "photos")


@pytest.fixture(scope="module")
def trained():
    """A network with 7 classes and a preparation of its own."""
    made = artifact(mobilenet_v2(width=0.1, resolution=32, classes=7), val_top1=0.5)
    prepared = Preprocessing((32, 32), (0.4, 0.5, 0.6), (0.2, 0.3, 0.4), 0.9, "bicubic")
    return Model(made.graph, made.weights, made.task, prepared, made.facts)


def learned(weights):
    return {name: value for name, value in weights.items() if "running" not in name}


def test_everything_but_the_last_layer_stays(trained, photos, tmp_path):
    end = load(train(trained, photos, tmp_path, recipe=STILL).last)
    assert end.labels == LABELS
    assert end.graph.output_shape == (3,)
    assert end.preprocessing == trained.preprocessing
    for name, value in learned(end.weights).items():
        if name.startswith("classifier"):
            assert value.shape[0] == 3
        else:
            np.testing.assert_allclose(value, trained.weights[name], atol=1e-6, err_msg=name)
    assert end.facts["start"]["model"] == trained.graph.name
    assert end.facts["start"]["val_top1"] == 0.5


def test_the_last_layer_stays_if_the_classes_are_the_same(photos, tmp_path):
    start = artifact(mobilenet_v2(width=0.1, resolution=32, classes=3))
    assert start.labels == LABELS
    end = load(train(start, photos, tmp_path, recipe=STILL).last)
    np.testing.assert_allclose(end.weights["classifier.weight"], start.weights["classifier.weight"], atol=1e-6)


def test_the_network_before_training_is_the_best_if_no_epoch_is_better(photos, tmp_path, smallcnn):
    learned = train(
        mobilenet_v2(width=0.1, resolution=32, classes=3),
        photos,
        tmp_path / "first",
        recipe=Recipe(epochs=16, batch_size=8, lr=0.02),
    )
    out = tmp_path / "second"
    code, said, err = smallcnn(
        "train", "--from", learned.best, "--data", photos, "--out", out, "--lr", 3.0, "--epochs", 1, "--json",
    )  # fmt: skip
    assert code == 0, err
    said, start, best = json.loads(said), load(learned.best), load(out / "best.safetensors")
    assert said["best_epoch"] == best.facts["epoch"] == 0
    assert said["best_val_top1"] == said["start"]["top1"] == best.facts["val_top1"] == start.facts["val_top1"]
    assert said["history"][0]["val_top1"] < said["start"]["top1"]
    assert all(np.array_equal(best.weights[name], start.weights[name]) for name in start.weights)
    assert "before training" in err
    assert "no epoch is better than the network before training" in err


def test_a_new_last_layer_is_not_judged_before_training(trained, photos, tmp_path):
    assert train(trained, photos, tmp_path, recipe=STILL).start == {}


def test_as_many_classes_with_other_names_get_a_new_last_layer(photos, tmp_path):
    made = artifact(mobilenet_v2(width=0.1, resolution=32, classes=3))
    start = Model(made.graph, made.weights, Classification(("red", "green", "blue")), made.preprocessing)
    end = load(train(start, photos, tmp_path, recipe=STILL).last)
    assert np.abs(end.weights["classifier.weight"] - start.weights["classifier.weight"]).max() > 0.1


def test_another_resolution(trained, photos, tmp_path):
    end = load(train(trained, photos, tmp_path, resolution=48, recipe=STILL).last)
    assert end.graph.input_shape == (48, 48, 3)
    assert end.preprocessing.size == (48, 48)
    assert (end.preprocessing.mean, end.preprocessing.crop) == (trained.preprocessing.mean, 0.9)


def test_a_network_that_cannot_follow_says_so(photos, tmp_path):
    start = artifact(vgg16(resolution=32, classes=3))
    with pytest.raises(GraphError, match="window does not fit"):
        train(start, photos, tmp_path, resolution=16, recipe=STILL)


def test_the_usual_rate_is_a_tenth(trained, photos, tmp_path):
    recipe = Recipe(epochs=1, batch_size=8)
    history = train(trained, photos, tmp_path / "from", recipe=recipe).history
    assert load(tmp_path / "from" / "last.safetensors").facts["recipe"]["lr"] == pytest.approx(0.1 * 8 / 64 / 10)
    assert len(history) == 1
    train(trained, photos, tmp_path / "given", recipe=Recipe(epochs=1, batch_size=8, lr=0.02))
    assert load(tmp_path / "given" / "last.safetensors").facts["recipe"]["lr"] == 0.02


def test_a_run_so_started_resumes_without_the_file(trained, photos, tmp_path):
    recipe = Recipe(epochs=2, batch_size=8)
    train(trained, photos, tmp_path / "run", recipe=recipe)
    again = resume(tmp_path / "run")  # finished already: nothing changes, nothing is asked for
    assert again.finished
    assert load(again.last).preprocessing == trained.preprocessing
    assert train(trained, photos, tmp_path / "run", recipe=recipe, resume=True).finished
    other = artifact(mobilenet_v2(width=0.1, resolution=32, classes=7), seed=1)
    with pytest.raises(DataError, match="cannot resume with other settings: the initial weights are different"):
        train(other, photos, tmp_path / "run", recipe=recipe, resume=True)


def test_the_command(smallcnn, refused, trained, photos, tmp_path):
    save(trained, tmp_path / "start.safetensors")
    out = tmp_path / "run"
    flags = ["--data", photos, "--epochs", 1, "--batch-size", 8]
    code, printed, err = smallcnn("train", "--from", tmp_path / "start.safetensors", "--out", out, *flags)
    assert (code, printed.strip()) == (0, str(out / "best.safetensors")), err
    line = refused("train", "mobilenet_v2", "--from", tmp_path / "start.safetensors", "--out", out, *flags)
    assert line == "give MODEL or --from, not both: the file contains its network"
    assert "no such file" in refused("train", "--from", tmp_path / "none.safetensors", "--out", out, *flags)


def test_public_weights_by_name_are_fetched(smallcnn, photos, tmp_path, monkeypatch):
    made = artifact(mobilenet_v2(width=0.1, resolution=32, classes=7))
    here = Checkpoint("here", "mobilenet_v2", "https://host/x.pth", "MIT", "a test", made.preprocessing)
    monkeypatch.setitem(catalogue.CATALOGUE, "here", here)
    monkeypatch.setattr("smallcnn.system.fetch.fetch", lambda url, **_: tmp_path / "x.pth")
    monkeypatch.setattr(importing, "import_known", lambda known, path: made)
    code, out, err = smallcnn("train", "--from", "here", "--data", photos, "--out", tmp_path / "run", "--epochs", "1",
                              "--batch-size", "8")  # fmt: skip
    assert (code, out.strip()) == (0, str(tmp_path / "run" / "best.safetensors")), err
    assert "a test; MIT" in err
    assert "starts from trained weights; its last layer is new" in err


def test_a_name_that_nobody_knows(refused, photos, tmp_path):
    said = refused("train", "--from", "mobilenetv2_100.ra_in2k", "--data", photos, "--out", tmp_path / "run")
    assert "closest: mobilenetv2_100.ra_in1k" in said


def test_a_file_goes_before_a_name(refused, photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = next(iter(catalogue.CATALOGUE))
    (tmp_path / name).write_bytes(b"no model")
    assert "--from takes a .safetensors" in refused("train", "--from", name, "--data", photos, "--out", "run")


def test_help_has_the_defaults_of_every_recipe(smallcnn):
    text = " ".join(smallcnn("train", "--help")[1].split())
    usual = "60; 90 in photos; 30 in small-images; 12 in finetune; 40 in detect; 3 in quantize; 10 in effnet"
    assert f"[default: {usual}]" in text
    for name, entry in NAMED.items():
        if entry.recipe.epochs != 60:
            assert f"{entry.recipe.epochs} in {name}" in text
