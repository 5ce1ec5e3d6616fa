import json
import os
import shutil
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import smallcnn
from artifacts import colour_photos
from networks import every_op, tiny
from smallcnn import runtime
from smallcnn.errors import DataError, FileError
from smallcnn.evaluate import evaluate
from smallcnn.model import store
from smallcnn.module import to_module
from smallcnn.train.loop import Loop
from smallcnn.train.recipe import Recipe
from smallcnn.train.run import resume, train
from smallcnn.train.validation import Validation

MODEL = "mobilenet_v1:width=0.25,small_input=true,variant=shallow"
QUICK = Recipe(epochs=3, batch_size=8, label_smoothing=0.0)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return colour_photos(tmp_path_factory.mktemp("data") / "photos", per_class=20)


@pytest.fixture(scope="module")
def run(tmp_path_factory, photos):
    return train(MODEL, photos, tmp_path_factory.mktemp("run"), resolution=32, recipe=Recipe(epochs=10, batch_size=8))


def test_colours_are_learned(run, photos):
    assert run.finished
    assert len(run.history) == 10
    assert max(epoch.val["top1"] for epoch in run.history) >= 0.9
    assert run.history[-1].train["loss"] < run.history[0].train["loss"]


def test_the_folder_holds_what_the_docs_promise(run):
    assert {path.name for path in run.folder.iterdir()} == {
        "best.safetensors", "last.safetensors", "checkpoint.safetensors", "log.jsonl", "tensorboard",
    }  # fmt: skip
    lines = [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]
    assert lines == [epoch.to_json() for epoch in run.history]
    assert [line["epoch"] for line in lines] == list(range(1, 11))
    assert list((run.folder / "tensorboard").iterdir())


def test_the_model_scores_in_onnx_runtime_what_training_said(run, photos):
    net = runtime.open(run.last)
    result = evaluate(net, photos)
    assert result.part == "val"
    assert result.metrics.top1 == run.history[-1].val["top1"]
    assert result.metrics.loss == pytest.approx(run.history[-1].val["loss"], rel=1e-4)
    assert net.labels == ("blue", "green", "red")


def test_best_is_the_first_epoch_with_the_highest_validation_top1(run):
    stored = store.load(run.best).facts
    best = max(run.history, key=lambda epoch: epoch.val["top1"])
    assert (stored["epoch"], stored["val_top1"]) == (best.epoch, best.val["top1"])
    assert store.load(run.last).facts["epoch"] == 10


def test_facts_say_how_to_repeat_it(run):
    facts = store.load(run.last).facts
    assert facts["model"] == MODEL.replace("small_input=true,variant=shallow", "variant=shallow,small_input=true")
    assert facts["recipe"]["epochs"] == 10
    assert (facts["data"]["train_images"], facts["data"]["val_images"]) == (48, 12)
    assert facts["versions"]["torch"] == torch.__version__
    assert facts["versions"]["smallcnn"] == smallcnn.__version__


def test_the_same_seed_gives_the_same_weights_whatever_the_workers(photos, tmp_path):
    runs = [train(MODEL, photos, tmp_path / str(n), resolution=32, recipe=QUICK, workers=n) for n in (1, 3)]
    first, second = (store.load(run.last).weights for run in runs)
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_corrupt_pictures_are_skipped_and_reported(tmp_path, capfd):
    photos = colour_photos(tmp_path / "photos", per_class=10)
    (photos / "red" / "broken.png").write_bytes(b"not an image")
    (photos / "blue" / "cut.png").write_bytes((photos / "blue" / "0.png").read_bytes()[:200])
    (photos / "blue" / "notes.txt").write_text("not an image, and does not claim to be")
    result = train(MODEL, photos, tmp_path / "run", resolution=32, recipe=QUICK)
    assert result.finished
    said = capfd.readouterr().err
    assert "broken.png" in said
    assert "cut.png" in said
    assert "left out 1 file: 1 .txt" in said
    assert store.load(result.last).facts["data"]["skipped"] == 2


def test_what_cannot_be_learned_from(tmp_path):
    photos = colour_photos(tmp_path / "photos", per_class=1)
    with pytest.raises(DataError, match="too few images for a validation split"):
        train(MODEL, photos, tmp_path / "run", resolution=32, recipe=QUICK)
    for name in ("red", "green"):
        shutil.rmtree(photos / name)
    with pytest.raises(DataError, match="only one class, 'blue'; a classifier needs at least two"):
        train(MODEL, photos, tmp_path / "run", resolution=32, recipe=QUICK)


def test_nothing_decodable_is_one_error(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(4):
            (tmp_path / "photos" / name / f"{i}.jpg").write_bytes(b"x")
    with pytest.raises(DataError, match="no training image could be decoded"):
        train(MODEL, tmp_path / "photos", tmp_path / "run", resolution=32, recipe=QUICK)


def test_divergence_is_said_plainly(photos, tmp_path):
    with pytest.raises(DataError, match=r"the loss became nan|the loss became inf"):
        train(MODEL, photos, tmp_path, resolution=32, recipe=Recipe(epochs=3, batch_size=8, lr=1e30, warmup_epochs=0))


def test_a_run_is_never_overwritten_by_accident(run, photos):
    with pytest.raises(DataError, match="already holds a run; --resume"):
        train(MODEL, photos, run.folder, resolution=32, recipe=QUICK)


def test_resuming_with_other_settings_is_refused(run, photos):
    with pytest.raises(DataError, match=r"cannot resume with other settings: --epochs was 10 and is now 3"):
        train(MODEL, photos, run.folder, resolution=32, recipe=Recipe(epochs=3, batch_size=8), resume=True)


def test_resuming_a_finished_run_changes_nothing(run):
    before = {path.name: path.read_bytes() for path in run.folder.glob("*.safetensors")}
    again = resume(run.folder)
    assert again.finished
    assert again.history == run.history
    assert {path.name: path.read_bytes() for path in run.folder.glob("*.safetensors")} == before


def test_resuming_nothing_and_a_damaged_checkpoint(tmp_path):
    with pytest.raises(DataError, match="no run to resume"):
        resume(tmp_path)
    (tmp_path / "checkpoint.safetensors").write_bytes(b"half a file")
    with pytest.raises(FileError, match="not a checkpoint of a training run, or damaged"):
        resume(tmp_path)


def test_arrays_keep_their_size_and_channels(tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (40, 36, 36), np.uint8), np.arange(40) % 4
    np.savez(tmp_path / "set.npz", x=x, y=y)
    result = train(MODEL, tmp_path / "set.npz", tmp_path / "run", recipe=Recipe(epochs=1, batch_size=8))
    assert store.load(result.last).graph.input_shape == (36, 36, 1)


@pytest.mark.parametrize(
    "settings", [{"optimizer": "adamw", "lr": 0.01}, {"precision": "bfloat16"}, {"augment": "photo"}], ids=str
)
def test_other_ways_to_train_also_learn(photos, tmp_path, settings):
    recipe = Recipe(epochs=6, batch_size=8, **settings)
    history = train(MODEL, photos, tmp_path, resolution=32, recipe=recipe).history
    assert history[-1].train["top1"] > 0.6  # a guess is right once in three


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_ctrl_c_leaves_a_usable_model_and_resumes_exactly(photos, tmp_path, optimizer):
    recipe = Recipe(epochs=4, batch_size=4, label_smoothing=0.0, optimizer=optimizer)
    whole = train(MODEL, photos, tmp_path / "whole", resolution=32, recipe=recipe)

    def interrupt():
        while not (tmp_path / "cut" / "log.jsonl").is_file() or not (tmp_path / "cut" / "log.jsonl").read_text():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    cut = train(MODEL, photos, tmp_path / "cut", resolution=32, recipe=recipe)
    thread.join(60)
    assert not cut.finished
    assert 1 <= len(cut.history) < 4
    assert runtime.open(cut.last).classify([next(Path(photos).glob("*/*.png"))])
    done = resume(tmp_path / "cut")
    assert done.finished
    first, second = (store.load(result.last).weights for result in (whole, done))
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_a_stop_asked_for_in_the_last_moments_is_not_forgotten(photos, tmp_path, monkeypatch):
    measure = Validation.measure

    def interrupted(self, module):
        os.kill(os.getpid(), signal.SIGINT)
        return measure(self, module)

    monkeypatch.setattr(Validation, "measure", interrupted)
    result = train(tiny(), photos, tmp_path, recipe=Recipe(epochs=1, batch_size=8))
    assert (result.finished, result.stopped) == (True, True)
    monkeypatch.undo()
    assert (resume(tmp_path).finished, resume(tmp_path).stopped) == (True, False)


def test_a_graph_of_your_own_is_trained_and_resumed(photos, tmp_path):
    result = train(tiny(), photos, tmp_path / "run", recipe=QUICK)
    assert store.load(result.last).graph == tiny()
    assert resume(tmp_path / "run").finished
    with pytest.raises(DataError, match=r"an output of shape \(5,\) for 3 classes"):
        train(every_op(), photos, tmp_path / "other", recipe=QUICK)


def test_pictures_may_move_before_resuming(tmp_path):
    photos = colour_photos(tmp_path / "photos")
    train(tiny(), photos, tmp_path / "run", recipe=QUICK)
    photos.rename(tmp_path / "moved")
    with pytest.raises(DataError, match="no folder"):
        resume(tmp_path / "run")
    assert resume(tmp_path / "run", data=tmp_path / "moved").finished


def test_a_run_can_be_resumed_from_its_first_moment(photos, tmp_path, monkeypatch):
    def killed(*_):
        raise ZeroDivisionError

    whole = train(MODEL, photos, tmp_path / "whole", resolution=32, recipe=QUICK)
    with monkeypatch.context() as patch:
        patch.setattr(Loop, "_step", killed)
        with pytest.raises(ZeroDivisionError):
            train(MODEL, photos, tmp_path / "cut", resolution=32, recipe=QUICK)
    first, second = (store.load(run.last).weights for run in (whole, resume(tmp_path / "cut")))
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_device_that_is_not_there(photos, tmp_path):
    with pytest.raises(DataError, match="device 'nonsense' cannot be used"):
        train(MODEL, photos, tmp_path, resolution=32, recipe=QUICK, device="nonsense")
    assert not list(tmp_path.iterdir())


def test_trained_weights_go_back_into_a_module(run):
    model = store.load(run.last)
    module = to_module(model.graph, model.weights).eval()
    assert module(torch.zeros(1, 3, 32, 32)).shape == (1, 3)


def test_models_without_a_checkpoint_are_not_overwritten(run, photos, tmp_path):
    (tmp_path / "best.safetensors").write_bytes(run.best.read_bytes())
    with pytest.raises(DataError, match=r"holds models but no checkpoint\.safetensors to resume from"):
        train(MODEL, photos, tmp_path, resolution=32, recipe=QUICK, resume=True)
    assert (tmp_path / "best.safetensors").read_bytes() == run.best.read_bytes()
