import itertools
import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from artifacts import COLOURS
from smallcnn import zoo
from smallcnn.data.preprocessing import Preprocessing
from smallcnn.errors import DataError
from smallcnn.train.augment import batch_augmentation, order, prepare, random_box, seed_step
from smallcnn.train.optim import decayed
from smallcnn.train.recipe import Recipe


def test_learning_rate_warms_up_and_falls_as_half_a_cosine():
    recipe = Recipe(epochs=30, warmup_epochs=2, lr=0.5)
    steps = 10
    rates = [recipe.lr_at(step, steps) for step in range(300)]
    assert all(a < b for a, b in itertools.pairwise(rates[:20]))
    assert rates[20] == 0.5
    for step in (20, 100, 299):
        assert rates[step] == pytest.approx(0.5 * (1 + math.cos(math.pi * (step - 20) / 280)) / 2)
    assert recipe.lr_at(300, steps) == pytest.approx(0, abs=1e-12)


def test_a_short_run_warms_up_for_a_tenth_of_it():
    rates = [Recipe(epochs=10, lr=1).lr_at(step, 10) for step in range(100)]
    assert max(range(100), key=rates.__getitem__) == 10


def test_peak_rate_follows_the_batch():
    assert Recipe(batch_size=128).peak_lr == 2 * Recipe(batch_size=64).peak_lr
    assert Recipe(lr=0.3, batch_size=128).peak_lr == 0.3


@pytest.mark.parametrize(("settings", "message"), [
    ({"epochs": 0}, "epochs must be at least 1, not 0"),
    ({"batch_size": 1}, "batch_size must be at least 2"),
    ({"lr": -0.1}, "lr must be above 0"),
    ({"lr": math.nan}, "lr must be above 0"),
    ({"label_smoothing": 1.0}, "label_smoothing must be"),
    ({"min_area": 0.0}, "min_area must be"),
    ({"optimizer": "adam"}, "optimizer must be sgd or adamw, not adam"),
    ({"augment": "heavy"}, "augment must be"),
    ({"val_fraction": 1.0}, "val_fraction must be"),
])  # fmt: skip
def test_a_value_out_of_range_is_named(settings, message):
    with pytest.raises(DataError, match=message):
        Recipe(**settings)


def test_stored_settings_with_an_unknown_word():
    with pytest.raises(DataError, match="a recipe has no momentun"):
        Recipe.from_dict({"momentun": 0.9})


def test_weight_decay_spares_depthwise_norms_and_biases():
    names = decayed(zoo.mobilenet_v1(width=0.25, resolution=32))
    pointwise = {f"block{i}.pointwise.conv.weight" for i in range(1, 14)}
    assert names == pointwise | {"stem.conv.weight", "classifier.weight"}


def test_each_epoch_has_its_own_order_and_keeps_it():
    recipe = Recipe(seed=7)
    first, again, second = order(recipe, 0, 100), order(recipe, 0, 100), order(recipe, 1, 100)
    assert sorted(first.tolist()) == list(range(100))
    assert first.tolist() == again.tolist() != second.tolist()
    assert first.tolist() != order(Recipe(seed=8), 0, 100).tolist()


def test_random_boxes_keep_their_promises():
    rng = np.random.default_rng(0)
    for _ in range(300):
        left, top, right, bottom = random_box(rng, (200, 100), (64, 64), 0.25)
        assert 0 <= left < right <= 200
        assert 0 <= top < bottom <= 100
        assert (right - left) * (bottom - top) >= 0.25 * 200 * 100 - 1e-6
        assert 3 / 4 - 1e-9 <= (right - left) / (bottom - top) <= 4 / 3 + 1e-9


def test_a_picture_too_long_for_any_box_is_cut_in_the_middle():
    assert random_box(np.random.default_rng(0), (1000, 10), (10, 10), 0.9) == (495, 0, 505, 10)


def test_pictures_depend_on_seed_epoch_and_index_alone():
    picture = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    recipe, preprocessing = Recipe(augment="photo", mirror=True), Preprocessing((16, 16))
    first = prepare(recipe, preprocessing, 2, 5, picture)
    np.testing.assert_array_equal(first, prepare(recipe, preprocessing, 2, 5, picture))
    for epoch, index in ((3, 5), (2, 6)):
        assert (prepare(recipe, preprocessing, epoch, index, picture) != first).any()


def test_without_augmentation_training_sees_what_evaluation_sees():
    picture = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    preprocessing = Preprocessing((16, 16))
    seen = prepare(Recipe(augment="none", mirror=True), preprocessing, 0, 0, picture)
    np.testing.assert_array_equal(seen, preprocessing.prepare(picture))


def test_half_of_the_pictures_are_mirrored_unless_forbidden():
    picture = np.zeros((8, 8, 3), np.uint8)
    picture[:, 0] = 255
    preprocessing = Preprocessing((8, 8), crop=1.0)
    for mirror, least, most in ((True, 70, 130), (False, 0, 0)):
        recipe = Recipe(augment="small", mirror=mirror)
        mirrored = sum(prepare(recipe, preprocessing, 0, i, picture)[0, 7, 0] == 255 for i in range(200))
        assert least <= mirrored <= most  # 200 throws of a coin: outside 70 to 130 once in 50,000 seeds


@pytest.mark.parametrize("augment", ["small", "photo", "none"])
@pytest.mark.parametrize("channels", [1, 3])
def test_batch_augmentation_keeps_shape_and_range_and_repeats_by_step(augment, channels):
    recipe = Recipe(augment=augment)
    preprocessing = Preprocessing((16, 16), (0.5,) * channels, (0.5,) * channels)
    change = batch_augmentation(recipe, preprocessing)
    images = torch.rand(6, channels, 16, 16)
    results = []
    for step in (3, 3, 4):
        seed_step(recipe, step)
        results.append(change(images.clone()))
    assert results[0].shape == images.shape
    assert results[0].min() >= 0
    assert results[0].max() <= 1
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2]) == (augment == "none")


def test_dropout_repeats_by_step():
    dropout, recipe = nn.Dropout(0.5), Recipe()
    masks = []
    for step in (0, 0, 1):
        seed_step(recipe, step)
        masks.append(dropout(torch.ones(64)))
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])


def test_large_photographs_are_cropped_at_full_quality_however_they_are_decoded(tmp_path):
    Image.new("RGB", (2000, 1500), COLOURS["green"]).save(tmp_path / "big.jpg", quality=95)
    pixels = prepare(Recipe(augment="photo"), Preprocessing((32, 32)), 0, 0, tmp_path / "big.jpg")
    assert np.abs(pixels.astype(int) - COLOURS["green"]).max() <= 3  # JPEG rounds
