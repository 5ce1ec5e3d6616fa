"""What the settings of a recipe do to a run: averages, the head first, rates by depth, accumulation, teachers."""

import json

import numpy as np
import pytest
import torch

from artifacts import LABELS, artifact, colour_photos
from networks import tiny
from smallcnn import onnx, zoo
from smallcnn.errors import DataError, FileError, GraphError
from smallcnn.image.fit import Preprocessing
from smallcnn.model.model import Model
from smallcnn.model.store import load, save
from smallcnn.module import to_module
from smallcnn.reference.initial import initial_weights
from smallcnn.tasks.classification import Classification
from smallcnn.train.ema import Average
from smallcnn.train.optim import depth, make_optimizer, set_rate
from smallcnn.train.recipe import Recipe
from smallcnn.train.run import train
from smallcnn.train.teacher import Teacher
from smallcnn.zoo import mobilenet_v2

CPU = torch.device("cpu")
QUICK = Recipe(epochs=2, batch_size=8, warmup_epochs=0)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return colour_photos(tmp_path_factory.mktemp("data") / "photos")


@pytest.fixture(scope="module")
def start():
    made = artifact(mobilenet_v2(width=0.1, resolution=32, classes=7))
    return Model(made.graph, made.weights, made.task, Preprocessing((32, 32), crop=1.0), made.facts)


@pytest.mark.parametrize("changes", [{"batch_size": 8, "accumulate": 8}, {"batch_size": 3, "accumulate": 3}])
def test_parts_of_one_image_are_refused(photos, tmp_path, changes):
    with pytest.raises(DataError, match="leave one to a part, and batch norm needs two"):
        train(tiny(), photos, tmp_path / "run", recipe=QUICK, **changes)


def test_a_run_is_not_resumed_on_images_that_are_prepared_differently(photos, tmp_path):
    train(tiny(), photos, tmp_path, recipe=QUICK)
    with pytest.raises(DataError, match="the images are fitted or normalised differently"):
        train(tiny(), photos, tmp_path, recipe=QUICK, fit="letterbox", resume=True)


def test_an_average_is_what_its_formula_says():
    module = to_module(tiny())
    average = Average(module, 0.5)
    name = next(iter(dict(module.named_parameters())))
    first = module.state_dict()[name].clone().double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(1.0)
    average.update(0)  # decay 1 / 10 at the first step
    torch.testing.assert_close(average.module.state_dict()[name].double(), first + 0.9)
    average.update(100)  # 101 / 110 is above 0.5
    torch.testing.assert_close(average.module.state_dict()[name].double(), first + 0.95)


def test_running_statistics_are_averaged_too():
    module = to_module(tiny())
    average = Average(module, 0.9)
    buffers = dict(module.named_buffers())
    assert buffers
    for buffer in buffers.values():
        buffer.add_(10.0)
    average.update(0)
    for name, buffer in average.module.named_buffers():
        torch.testing.assert_close(buffer, buffers[name] - 1.0, msg=name)


def test_both_kinds_of_weights_are_judged_and_written(photos, tmp_path):
    result = train(tiny(), photos, tmp_path, recipe=QUICK, ema=0.9)
    assert {"val_top1", "ema_val_top1", "ema_val_loss"} <= result.history[-1].to_json().keys()
    plain, averaged = load(result.last), load(tmp_path / "last_ema.safetensors")
    assert plain.facts["averaged"] is False
    assert averaged.facts["averaged"] is True
    assert averaged.facts["val_top1"] == result.history[-1].averaged["top1"]
    assert any(not np.array_equal(plain.weights[name], averaged.weights[name]) for name in plain.weights)
    best = max(max(epoch.val["top1"], epoch.averaged["top1"]) for epoch in result.history)
    assert load(result.best).facts["val_top1"] == best


def test_while_the_head_learns_alone_nothing_else_moves(start, photos, tmp_path):
    recipe = Recipe(epochs=4, batch_size=8, head_epochs=1)
    train(start, photos, tmp_path, recipe=recipe)
    records = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert records[0]["lr"] == pytest.approx(recipe.peak_lr / 10)  # a tenth, as from trained weights

    still = Recipe(epochs=4, batch_size=8, head_epochs=1)
    stopped = tmp_path / "stopped"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("smallcnn.train.recipe.Recipe.head_only", lambda self, epochs: self.epochs)
        end = load(train(start, photos, stopped, recipe=still).last)
    for name, value in end.weights.items():
        if name.startswith("classifier"):
            continue
        np.testing.assert_array_equal(value, start.weights[name], err_msg=name)
    assert any(name.startswith("classifier") for name in end.weights)


def test_frozen_norms_keep_their_statistics_and_learn_their_scale(start, photos, tmp_path):
    end = load(train(start, photos, tmp_path, recipe=QUICK, batch_norm="frozen", lr=0.05).last)
    moved = {
        name.rpartition(".")[2]
        for name, value in end.weights.items()
        if not name.startswith("classifier") and not np.array_equal(value, start.weights[name])
    }
    assert "weight" in moved
    assert "bias" in moved
    assert not moved & {"running_mean", "running_var"}


def test_rates_fall_from_the_last_block_to_the_first():
    graph = zoo.mobilenet_v1(width=0.25, resolution=32, classes=3)
    behind = depth(graph)
    assert behind["classifier.weight"] == 0
    assert behind["block13.pointwise.conv.weight"] == 1
    assert behind["stem.conv.weight"] == 14
    recipe = Recipe(layer_decay=0.5, weight_decay=1e-3)
    module = to_module(graph)
    optimizer = make_optimizer(recipe, graph, module)
    set_rate(optimizer, 0.8)
    rates = {id(p): (group["lr"], group["weight_decay"]) for group in optimizer.param_groups for p in group["params"]}
    named = dict(module.named_parameters())
    assert rates[id(named["classifier.weight"])] == (0.8, 1e-3)
    assert rates[id(named["classifier.bias"])] == (0.8, 0.0)
    assert rates[id(named["block12.pointwise.conv.weight"])] == (0.2, 1e-3)
    assert len(rates) == len(named)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_accumulated_parts_give_the_gradient_of_the_whole(photos, tmp_path, precision):
    graph = zoo.squeezenet_1_1(resolution=32, classes=3)  # no norm, which would see the parts
    recipe = Recipe(epochs=1, batch_size=8, lr=0.01, warmup_epochs=0, mixup=0.3, precision=precision)
    ends = [
        load(train(graph, photos, tmp_path / str(n), recipe=recipe, accumulate=n, seed=3).last).weights for n in (1, 4)
    ]
    # Two steps round weights below 1 by 2^-25 each, twice, and gradients less: measured 3e-8. bfloat16 rounds values
    # and gradients of 26 layers by 2^-9, so the steps are as uncertain as that together: measured a fifth of it.
    start = initial_weights(graph, 3)
    way = max(np.abs(value - start[name]).max() for name, value in ends[0].items())
    tolerance = 2**-22 if precision == "float32" else 2 * 26 * 2**-9 * way
    for name, value in ends[0].items():
        np.testing.assert_allclose(ends[1][name], value, rtol=0, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop"])
def test_optimizers_learn(photos, tmp_path, optimizer):
    history = train(tiny(), photos, tmp_path, recipe=Recipe(epochs=8, batch_size=8, optimizer=optimizer)).history
    assert history[-1].train["loss"] < history[0].train["loss"]


def test_training_smaller_than_running(photos, tmp_path):
    result = train("mobilenet_v1:width=0.25", photos, tmp_path / "run", resolution=64, recipe=QUICK, train_scale=0.5)
    assert load(result.last).graph.input_shape == (64, 64, 3)
    with pytest.raises(GraphError, match="vgg16"):
        train("vgg16", photos, tmp_path / "vgg", resolution=64, recipe=QUICK, train_scale=0.5)


def test_a_name_for_a_recipe_and_changes_to_it(photos, tmp_path):
    facts = load(train(tiny(), photos, tmp_path, recipe="effnet", epochs=1, batch_size=8).last).facts["recipe"]
    assert (facts["optimizer"], facts["momentum"], facts["augment"], facts["epochs"]) == ("adam", 0.75, "none", 1)
    with pytest.raises(DataError, match=r"a recipe has no epoch; closest: epochs"):
        train(tiny(), photos, tmp_path / "other", epoch=1)


@pytest.fixture(scope="module")
def teacher():
    """Knows the three colours and one more, in another order, at another size, with another normalisation."""
    made = artifact(mobilenet_v2(width=0.1, resolution=48, classes=4), seed=5)
    prepared = Preprocessing((48, 48), (0.4, 0.5, 0.6), (0.2, 0.3, 0.4), 1.0)
    return Model(made.graph, made.weights, Classification(("red", "green", "other", "blue")), prepared)


def test_a_teachers_logits_are_its_own_in_the_students_order(teacher, tmp_path):
    save(teacher, tmp_path / "teacher.safetensors")
    onnx.export(teacher, tmp_path / "teacher.onnx")
    images = torch.rand(2, 3, 48, 48)
    module = to_module(teacher.graph, teacher.weights).eval()
    mean, std = (torch.tensor(v).reshape(1, 3, 1, 1) for v in ((0.4, 0.5, 0.6), (0.2, 0.3, 0.4)))
    with torch.no_grad():
        wanted = module((images - mean) / std)[:, [3, 1, 0]]
    for file in ("teacher.safetensors", "teacher.onnx"):
        seen = Teacher(tmp_path / file, LABELS, 3, CPU)
        torch.testing.assert_close(seen.logits(images), wanted, atol=1e-4, rtol=1e-4)
        assert seen.logits(torch.rand(2, 3, 32, 32)).shape == (2, 3)


def test_a_teacher_that_does_not_fit(teacher, tmp_path):
    save(teacher, tmp_path / "teacher.safetensors")
    with pytest.raises(DataError, match="the network does not know dog"):
        Teacher(tmp_path / "teacher.safetensors", ("dog", "red"), 3, CPU)
    with pytest.raises(DataError, match="the teacher takes images of 3 channels, the student 1"):
        Teacher(tmp_path / "teacher.safetensors", LABELS, 1, CPU)
    with pytest.raises(FileError, match="no such file"):
        Teacher(tmp_path / "none.safetensors", LABELS, 3, CPU)


def test_a_student_learns_its_teachers_answers(photos, teacher, tmp_path):
    """The teacher calls every red thing green and the reverse; labels have no say."""
    file = tmp_path / "sure.safetensors"
    taught = train(tiny(), photos, tmp_path / "sure", recipe=Recipe(epochs=12, batch_size=8, label_smoothing=0.0))
    model = load(taught.last)
    swapped = tuple({"red": "green", "green": "red"}.get(label, label) for label in model.labels)
    save(Model(model.graph, model.weights, Classification(swapped), model.preprocessing), file)
    recipe = Recipe(epochs=12, batch_size=8, distil_weight=1.0)
    run = train(tiny(), photos, tmp_path / "student", recipe=recipe, teacher=file)
    assert run.history[-1].val["top1"] <= 0.5  # right for blue alone
    assert load(run.last).facts["teacher"]["file"] == str(file)


def test_the_commands(smallcnn, refused, photos, tmp_path):
    code, out, _ = smallcnn("recipes", "--json")
    recipes = json.loads(out)
    assert code == 0
    assert {"photos", "small-images", "finetune", "mobilenet_v1", "effnet"} <= recipes.keys()
    assert recipes["effnet"]["recipe"]["momentum"] == 0.75
    code, out, _ = smallcnn("recipes", "effnet")
    assert code == 0
    assert "0.75" in out
    assert "closest: effnet" in refused("recipes", "efnet")
    line = refused("train", "squeezenet_1_1", "--data", photos, "--out", tmp_path / "a", "--recipe", "efnet")
    assert line.startswith("no recipe 'efnet'; closest: effnet")
