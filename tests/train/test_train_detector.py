"""Detectors trained on squares: what a run writes, where it may start, and that it resumes exactly."""

import csv
import io
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import machine
import processes
from artifacts import colour_photos
from interrupted import killed_at
from networks import tiny
from smallcnn import zoo
from smallcnn.data.sources import open_source
from smallcnn.errors import DataError
from smallcnn.image.fit import Preprocessing
from smallcnn.model import store
from smallcnn.model.model import Model
from smallcnn.reference.initial import initial_weights
from smallcnn.tasks.classification import Classification
from smallcnn.tasks.detection import Detection
from smallcnn.train.optim import depth, head
from smallcnn.train.recipe import Recipe
from smallcnn.train.run import train
from smallcnn.train.start import start
from smallcnn.transform.adapt import with_resolution
from smallcnn.transform.undecided import undecided
from squares import SIDE, detector, squares

NETWORK = detector(2)
RECIPE = Recipe(epochs=3, batch_size=8, lr=0.02, ema=0.8, label_smoothing=0.0, precision="float32")


@pytest.fixture(scope="module")
def source():
    return squares()


@pytest.fixture(scope="module")
def run(source, tmp_path_factory):
    recipe = Recipe(epochs=25, batch_size=8, lr=0.05, ema=0.9, label_smoothing=0.0, zoom_out=1.0, precision="float32")
    return train(NETWORK, source, tmp_path_factory.mktemp("run") / "run", recipe=recipe, compute="torch")


def test_squares_are_found(run, source):
    assert run.goal == "map"
    assert run.history[-1].train["loss"] < 0.6 * run.history[0].train["loss"]
    assert max(epoch.best("map") for epoch in run.history) > 0.25
    assert max(epoch.val["map50"] for epoch in run.history) > 0.5


@pytest.mark.skipif(sys.platform == "win32", reason="a C program uses a .dll in another way")
def test_the_example_finds_squares_in_c(run, tmp_path):
    """Images and boxes in files, one more epoch, and a program that finds what ONNX Runtime does, where it should."""
    pytest.importorskip("halide")
    pytest.importorskip("ziglang")
    split, labels = squares(30, 1, seed=1).splits["train"], ("red", "green")
    boxes = {f"{number}.png": rows.tolist() for number, rows in enumerate(split.targets.each())}
    for name, image in zip(boxes, split.images, strict=True):
        Image.fromarray(image).save(tmp_path / name)
    table = [(name, labels[int(label)], *sides) for name, rows in boxes.items() for *sides, label, _, _ in rows]
    with (tmp_path / "boxes.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file", "class", "xmin", "ymin", "xmax", "ymax"), *table])
    example = Path(__file__).parents[2] / "examples" / "detector_in_c.py"
    done = subprocess.run(
        [sys.executable, "-c", machine.program(example), str(tmp_path), str(run.best), "1"],
        capture_output=True, text=True, check=False, timeout=250,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    *found, last = done.stdout.splitlines()
    images = int(re.search(r"as ONNX Runtime in (\d+) of \1 images", last).group(1))
    right = 0
    for line in found:
        name, label, *sides = re.fullmatch(r"(.*): (\w+) \d+% at (\d+),(\d+) to (\d+),(\d+)", line).groups()
        true = [row[:4] for row in boxes[name] if labels[int(row[4])] == label]
        right += any(np.abs(np.array(sides, float) - box).max() < 6 for box in true)
    assert right > 0.5 * len(found) > 0.25 * images


def test_a_run_stores_the_whole_detector(run, source):
    best = store.load(run.best)
    assert best.task == source.task
    assert best.graph == NETWORK
    assert best.preprocessing.fit == "stretch"
    assert best.facts["val_map"] == max(epoch.best("map") for epoch in run.history)
    assert best.facts["recipe"]["augment"] == "detection"


@pytest.mark.parametrize(
    "change",
    [{}, {"batch_norm": "frozen", "augment": "small"}, {"negatives": "focal", "box_loss": "giou", "mosaic": 0.7}],
)
def test_resumed_exactly(source, tmp_path, monkeypatch, change):
    def trained(name, **how):
        return train(NETWORK, source, tmp_path / name, recipe=RECIPE, compute="torch", **change, **how)

    whole = trained("whole")
    killed_at(7, monkeypatch, lambda: trained("cut"))
    cut = trained("cut", resume=True)
    for one, other in (
        (whole.last, cut.last),
        (whole.folder / "last_ema.safetensors", cut.folder / "last_ema.safetensors"),
    ):
        first, second = store.load(one).weights, store.load(other).weights
        assert all(np.array_equal(first[name], second[name]) for name in first)
    assert [(e.train, e.val, e.averaged) for e in cut.history] == [(e.train, e.val, e.averaged) for e in whole.history]


def test_accumulated_parts_have_the_gradient_of_the_whole(source, tmp_path):
    def weights(name, parts):
        recipe = Recipe(
            epochs=1,
            batch_size=8,
            lr=0.02,
            batch_norm="frozen",
            label_smoothing=0.0,
            accumulate=parts,
            precision="float32",
        )
        return store.load(train(NETWORK, source, tmp_path / name, recipe=recipe, compute="torch").last).weights

    whole, parts = weights("whole", 1), weights("parts", 4)
    for name, value in whole.items():
        np.testing.assert_allclose(parts[name], value, atol=2e-6, err_msg=name)


def model(graph, task, preprocessing=None):
    return Model(
        graph, initial_weights(graph, 5), task, preprocessing or Preprocessing(graph.input_shape[:2], fit="stretch")
    )


def test_the_classes_of_another_detector_are_found_by_name(source):
    graph = detector(3)
    other = model(graph, Detection(("green", "blue", "red")))
    begun = start(other, source, None, 0)  # which has red and green
    assert begun.origin.new_last_layer is False
    assert begun.graph == detector(2, most=100)  # theirs finds 20, of which COCO's figures would lack the others
    name = "score0.conv.weight"
    theirs, ours = (weights[name].reshape(2, n, -1) for weights, n in ((other.weights, 4), (begun.weights, 3)))
    np.testing.assert_array_equal(ours, theirs[:, [0, 3, 1]])
    np.testing.assert_array_equal(begun.weights["code0.conv.weight"], other.weights["code0.conv.weight"])


def test_unknown_classes_are_learned_anew(source):
    other = model(detector(1), Detection(("green",)))
    begun = start(other, source, None, 0)
    assert begun.origin.new_last_layer is True
    assert begun.graph == detector(2, most=100)
    np.testing.assert_array_equal(
        begun.weights["score1.conv.weight"], initial_weights(NETWORK, 0)["score1.conv.weight"]
    )
    np.testing.assert_array_equal(begun.weights["extra.conv.weight"], other.weights["extra.conv.weight"])


def classifier():
    """A classifier with the detector's backbone."""
    from smallcnn.ir.builder import Builder

    g = Builder(input=(SIDE, SIDE, 3))
    x = g.conv_bn(g.input, 8, kernel=3, stride=2, name="stem")
    x = g.conv_bn(x, 16, kernel=3, stride=2, name="block1")
    x = g.conv_bn(x, 24, kernel=3, stride=2, name="block2")
    return g.graph(g.dense(g.global_pool(x, name="pool"), 5, name="last"), features=x, name="classes")


def test_a_detector_starts_with_the_backbone_of_a_classifier(source):
    mean = (0.485, 0.456, 0.406)
    trained = model(classifier(), Classification(tuple("abcde")), Preprocessing((SIDE, SIDE), mean, mean))
    begun = start(NETWORK, source, None, 0, trained)
    assert begun.preprocessing == Preprocessing((SIDE, SIDE), mean, mean, fit="stretch")
    assert begun.origin.new_last_layer is True
    for name, value in begun.weights.items():
        from_backbone = name.split(".")[0] in ("stem", "block1", "block2")
        expected = trained.weights[name] if from_backbone else initial_weights(NETWORK, 0)[name]
        np.testing.assert_array_equal(value, expected, err_msg=name)


def test_another_backbone_is_refused(source):
    other = model(tiny(), Classification(tuple("abc")))
    with pytest.raises(DataError, match="the backbone of small_detector is not that of"):
        start(NETWORK, source, None, 0, model(with_resolution(other.graph, (SIDE, SIDE)), other.task))


@pytest.mark.parametrize(
    ("graph", "said"),
    [
        (tiny(), "is not a detector, the data is for detection"),
        (detector(3), "finds 3 classes of objects; the data has 2"),
    ],
)
def test_networks_that_do_not_fit_are_refused(source, tmp_path, graph, said):
    with pytest.raises(DataError, match=said):
        train(graph, source, tmp_path / "run", recipe=RECIPE)


def test_a_detector_is_no_start_for_classes(tmp_path):
    photos = open_source(colour_photos(tmp_path / "photos"))
    with pytest.raises(DataError, match="is a detector, the data is for classification"):
        start(model(NETWORK, Detection(("red", "green"))), photos, None, 0)
    with pytest.raises(DataError, match="give MODEL or --from, not both"):
        start(tiny(), photos, None, 0, model(tiny(), Classification(tuple("abc"))))


def test_a_classifier_for_objects_becomes_a_backbone():
    """MobileNetV2 as imported from Gluon: the detector has its options, and all of its weights but the classifier's."""
    options = "width=0.35,first_expansion=true,padding=symmetric,epsilon=1e-05"
    graph = zoo.parse(f"mobilenet_v2:{options}").build(resolution=96, classes=7)
    source = squares(count=3, val=2)
    trained = model(graph, Classification(tuple("abcdefg")))
    begun = start(trained, replace_images(source), None, 0)
    assert begun.graph.name == f"anchor_free:backbone=mobilenet_v2,{options}"
    taken = [name for name, value in trained.weights.items() if np.array_equal(begun.weights.get(name), value)]
    assert set(trained.weights) - set(taken) == {"classifier.weight", "classifier.bias"}


def replace_images(source):
    """The same source with files in place of an array, whose size would choose the network's."""
    splits = {
        name: replace(split, images=[png(image) for image in split.images]) for name, split in source.splits.items()
    }
    return replace(source, splits=splits)


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def test_the_command(smallcnn, tmp_path):
    folder = tmp_path / "squares"
    folder.mkdir()
    with (folder / "boxes.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file", "width", "height", "xmin", "ymin", "xmax", "ymax", "class"])
        split = squares(count=24).splits["train"]
        for pixels, name, rows in zip(split.images, split.names, split.targets.each(), strict=True):
            Image.fromarray(pixels).save(folder / f"{name}.png")
            for row in rows:
                table.writerow([f"{name}.png", SIDE, SIDE, *row[:4], ("red", "green")[int(row[4])]])
    model = ["ssdlite:backbone=mobilenet_v1,width=0.25", "--resolution", 96, "--compute", "torch", "--epochs", 1]
    code, out, err = smallcnn("train", *model, "--data", folder, "--out", tmp_path / "run", "--json")
    assert code == 0, err
    assert re.search(r"val loss [\d.]+ AP [\d.]+%", err), err
    said = json.loads(out)
    assert said["best_val_map"] == max(said["history"][0][f"{which}val_map"] for which in ("", "ema_"))
    assert "val_map50" in said["history"][0]
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "crops around objects, of images up to 2 times smaller" in page
    assert "green, red" in page or "red, green" in page
    code, out, err = smallcnn("evaluate", said["best"], "--data", folder, "--json")
    assert code == 0, err
    assert json.loads(out)["map"] == pytest.approx(said["best_val_map"], abs=1e-3)


@pytest.mark.parametrize(
    "option", [{"balance": True}, {"quantize": True}, {"mixup": 0.2}, {"cutmix": 1.0}, {"train_scale": 0.5}]
)
def test_settings_that_are_not_for_detectors_are_refused(source, tmp_path, option):
    with pytest.raises(DataError, match=f"--{next(iter(option)).replace('_', '-')} is not for detectors"):
        train(NETWORK, source, tmp_path / "run", recipe=Recipe(**option))


def in_one_of_several(folder, compute):
    recipe = Recipe(
        epochs=2, batch_size=8, lr=0.02, ema=0.8, batch_norm="frozen", label_smoothing=0.0, precision="float32"
    )
    train(NETWORK, squares(), folder, recipe=recipe, compute=compute)


def test_two_processes_end_where_one_does(tmp_path):
    for count in (1, 2):
        processes.together(tmp_path / f"{count} processes", count, in_one_of_several, tmp_path / str(count), "torch")
    one, two = (store.load(tmp_path / str(count) / "last.safetensors") for count in (1, 2))
    for name, value in one.weights.items():
        np.testing.assert_allclose(two.weights[name], value, atol=5e-6, err_msg=name)
    assert two.facts["val_map"] == pytest.approx(one.facts["val_map"], abs=1e-3)


def test_all_layers_after_the_backbone_are_the_head():
    """They learn first, and at the full rate; the backbone's blocks at lower ones, the earliest at the lowest."""
    learns = undecided(NETWORK)
    new = {name for name in NETWORK.weights if name.split(".")[0] in ("extra", "code0", "score0", "code1", "score1")}
    assert head(learns) == new
    behind = depth(learns)
    assert {behind[name] for name in new} == {0}
    assert [behind[f"{block}.conv.weight"] for block in ("block2", "block1", "stem")] == [1, 2, 3]
