"""Losses weighted by how rare a class is."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from artifacts import artifact as made
from artifacts import colour_photos
from interrupted import killed_at
from networks import tiny
from smallcnn import zoo
from smallcnn.model import store
from smallcnn.train.loss import class_weights, cross_entropy, distillation, shared
from smallcnn.train.recipe import Recipe
from smallcnn.train.run import resume, train


@pytest.fixture(scope="module")
def uneven(tmp_path_factory):
    """Fifteen images of one class, nine of another, three of the last, before some are kept for validation."""
    photos = colour_photos(tmp_path_factory.mktemp("data") / "photos", per_class=15)
    for name, left in (("green", 9), ("red", 3)):
        for path in sorted((photos / name).iterdir())[left:]:
            path.unlink()
    return photos


def test_weights_are_inverse_to_the_counts_and_one_on_average():
    labels = np.array([0] * 6 + [1] * 3 + [3] * 3)
    weights = class_weights(labels, 4)
    assert weights.tolist() == pytest.approx([12 / (3 * 6), 12 / (3 * 3), 0, 12 / (3 * 3)])
    assert weights[labels].mean() == pytest.approx(1)


def parts():
    rng = torch.Generator().manual_seed(0)
    logits, teacher = torch.randn(5, 3, generator=rng), torch.randn(5, 3, generator=rng)
    return logits, teacher, torch.tensor([0, 2, 1, 1, 0]), torch.tensor([0.5, 1.0, 2.5])


def test_cross_entropy_by_hand():
    logits, _, labels, weights = parts()
    log = torch.log_softmax(logits, 1)
    smooth = [0.9 * -log[i, labels[i]] + 0.1 * -log[i].mean() for i in range(5)]
    wanted = sum(weights[labels[i]] * smooth[i] for i in range(5)) / 5
    assert torch.allclose(cross_entropy(logits, labels, None, 0.1, weights), wanted)


def test_of_mixed_images_by_hand():
    logits, _, labels, weights = parts()
    own, partner = torch.tensor([0.3, 0.6, 0.8, 0.9, 1.0]), [1, 0, 3, 2, 4]
    log = torch.log_softmax(logits, 1)
    wanted = 0.0
    for i, other in enumerate(partner):
        wanted -= own[i] * weights[labels[i]] * log[i, labels[i]] / 5
        wanted -= (1 - own[i]) * weights[labels[other]] * log[i, labels[other]] / 5
    assert torch.allclose(cross_entropy(logits, labels, own, 0.0, weights), wanted)


@pytest.mark.parametrize("distil", ["soft", "hard"])
def test_of_a_teacher_by_hand(distil):
    logits, teacher, labels, weights = parts()
    recipe = Recipe(distil=distil, temperature=2.0)
    each = shared(weights[labels], torch.full((5,), 0.75))
    one_by_one = [distillation(logits[i : i + 1], teacher[i : i + 1], recipe) for i in range(5)]
    partner = [1, 0, 3, 2, 4]
    of_pair = [0.75 * weights[labels[i]] + 0.25 * weights[labels[partner[i]]] for i in range(5)]
    wanted = sum(weight * loss for weight, loss in zip(of_pair, one_by_one, strict=True)) / 5
    assert torch.allclose(distillation(logits, teacher, recipe, each), wanted)


def test_equal_classes_are_trained_as_without():
    logits, _, labels, _ = parts()
    plain = F.cross_entropy(logits, labels, label_smoothing=0.1)
    assert torch.allclose(cross_entropy(logits, labels, None, 0.1, torch.ones(3)), plain)


def test_accumulated_parts_have_the_gradient_of_the_whole(uneven, tmp_path):
    """Per image, not per part, or small parts full of a rare class would count for less."""
    graph = zoo.squeezenet_1_1(resolution=32, classes=3)  # no norm, which would see the parts
    recipe = Recipe(epochs=1, batch_size=8, lr=0.01, warmup_epochs=0, mixup=0.3, balance=True, precision="float32")
    ends = [
        store.load(
            train(graph, uneven, tmp_path / str(n), recipe=recipe, accumulate=n, seed=3, compute="torch").last
        ).weights
        for n in (1, 4)
    ]
    for name, value in ends[0].items():
        if "conv10" in name or "fire2" in name:
            np.testing.assert_allclose(ends[1][name], value, atol=2e-5, err_msg=name)  # float32 sums in another order


def test_resumed_exactly_with_everything_at_once(uneven, tmp_path, monkeypatch):
    store.save(made(tiny()), tmp_path / "teacher.safetensors")
    recipe = Recipe(
        epochs=4, batch_size=4, accumulate=2, balance=True, mixup=0.2, cutmix=1.0, ema=0.9, minutes=60, patience=9
    )

    def run(name):
        return train(
            tiny(), uneven, tmp_path / name, recipe=recipe, teacher=tmp_path / "teacher.safetensors", compute="torch"
        )

    whole = run("whole")
    killed_at(7, monkeypatch, lambda: run("cut"))
    first, second = (store.load(result.last).weights for result in (whole, resume(tmp_path / "cut")))
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_training_uses_them(uneven, tmp_path):
    """The loss of a network that hardly moves: by class as without, by image as the weights say."""
    losses = []
    for balance in (False, True):
        recipe = Recipe(epochs=1, batch_size=21, lr=1e-12, augment="none", label_smoothing=0.0, precision="float32")
        result = train(tiny(), uneven, tmp_path / str(balance), recipe=recipe, balance=balance, compute="torch")
        losses.append(result.history[0].train["loss"])
    assert abs(losses[0] - losses[1]) > 1e-4
