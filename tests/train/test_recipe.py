import itertools
import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from artifacts import COLOURS
from smallcnn import zoo
from smallcnn.data.split import Split
from smallcnn.data.targets import Classes
from smallcnn.errors import DataError
from smallcnn.image.decode import decode
from smallcnn.image.fit import Preprocessing
from smallcnn.train.augment import Draws, decoded_side, random_box, random_crop, recoloured, seed_step
from smallcnn.train.feed import Feed
from smallcnn.train.loss import cross_entropy, distillation, draw_mix, mixed
from smallcnn.train.optim import decayed
from smallcnn.train.recipe import Recipe
from smallcnn.train.recipes import NAMED, named


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
    ({"optimizer": "lion"}, "optimizer must be sgd or adam or adamw or rmsprop, not lion"),
    ({"accumulate": 3}, "accumulate must be a divisor of the batch size"),
    ({"ema": 1.0}, "ema must be"),
    ({"head_epochs": -1}, "head_epochs must be"),
    ({"train_scale": 0.1}, "train_scale must be"),
    ({"mixup": -1}, "mixup must be"),
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


def crop_of(picture, recipe, epoch, index):
    preprocessing = Preprocessing((16, 16))
    decoded = decode(picture, 3, decoded_side(recipe, preprocessing))
    return random_crop(recipe, preprocessing, epoch, index, decoded)


def test_crops_depend_on_seed_epoch_and_index_alone():
    picture = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    recipe = Recipe(augment="photo", mirror=True)
    first = crop_of(picture, recipe, 2, 5)
    np.testing.assert_array_equal(first, crop_of(picture, recipe, 2, 5))
    for epoch, index in ((3, 5), (2, 6)):
        assert (crop_of(picture, recipe, epoch, index) != first).any()


def test_without_augmentation_training_sees_what_evaluation_sees():
    pictures = np.random.default_rng(0).integers(0, 256, (3, 40, 50, 3), np.uint8)
    split, view = Split(pictures, Classes(np.arange(3)), ["a", "b", "c"]), Preprocessing((16, 16))
    recipe = Recipe(augment="none", mirror=True)
    (batch,) = Feed(split, recipe, view, 1).batches(0, np.arange(3), Draws(recipe, 0, 3), 3)
    np.testing.assert_array_equal(batch.images, np.stack([view.prepare(picture) for picture in pictures]))


def test_half_of_the_small_pictures_are_mirrored_unless_forbidden():
    for mirror, least, most in ((True, 450, 550), (False, 0, 0)):
        _, _, mirrored = Draws(Recipe(mirror=mirror), 0, 1000).shifts(np.arange(1000), (32, 32))
        assert least <= mirrored.sum() <= most  # 1000 throws of a coin: outside once in 600 seeds


def test_shifts_reach_an_eighth_of_a_side_either_way_evenly():
    down, right, _ = Draws(Recipe(mirror=True), 0, 9000).shifts(np.arange(9000), (32, 16))
    for shifts, farthest in ((down, 4), (right, 2)):
        counts = np.bincount(shifts + farthest)
        assert len(counts) == 2 * farthest + 1
        assert counts.min() > 0.8 * counts.mean()


def test_the_feed_gives_the_same_pictures_from_memory_and_from_files_and_from_any_position(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (23, 16, 16, 3), np.uint8)
    for i, picture in enumerate(pixels):
        Image.fromarray(picture).save(tmp_path / f"{i}.png")
    labels, names = np.arange(23) % 3, [str(i) for i in range(23)]
    held, files = (
        Split(pixels, Classes(labels), names),
        Split([tmp_path / f"{i}.png" for i in range(23)], Classes(labels), names),
    )
    recipe, view = Recipe(augment="small", mirror=True), Preprocessing((16, 16), crop=1.0)
    order, draws = np.random.default_rng(1).permutation(23), Draws(recipe, 4, 23)

    def seen(split, start, size):
        fed = Feed(split, recipe, view, 1).batches(4, order[start:], draws, size)
        return [(i, image.tobytes()) for batch in fed for i, image in zip(batch.indices, batch.images, strict=True)]

    whole = seen(held, 0, 5)
    assert whole == seen(files, 0, 5)
    assert whole[10:] == seen(held, 10, 4)
    assert any(image != pixels[i].tobytes() for i, image in whole)


@pytest.mark.parametrize("channels", [1, 3])
def test_colours_of_a_picture_do_not_depend_on_its_batch(channels):
    factors = torch.from_numpy(Draws(Recipe(jitter=0.4), 0, 6).colours(np.arange(6)))
    assert factors.min() >= 0.6
    assert factors.max() <= 1.4
    images = torch.rand(6, channels, 8, 8)
    together = recoloured(images, factors)
    assert together.min() >= 0
    assert together.max() <= 1
    alone = torch.cat([recoloured(images[i : i + 1], factors[i : i + 1]) for i in range(6)])
    torch.testing.assert_close(together, alone)
    assert not torch.equal(together, images)


def test_factors_of_one_change_no_colour():
    images = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(recoloured(images, torch.ones(2, 3)), images, atol=1e-6, rtol=0)


def test_mixup_blends_neighbours_and_their_labels():
    mix = draw_mix(Recipe(mixup=0.4), step=3, count=5)
    images = torch.rand(5, 3, 4, 4)
    result, own = mixed(images, mix)
    for i, partner in ((0, 1), (1, 0), (2, 3), (3, 2)):
        torch.testing.assert_close(result[i], own[i] * images[i] + (1 - own[i]) * images[partner])
    assert own[0] == own[1]
    assert own[4] == 1
    torch.testing.assert_close(result[4], images[4])
    assert np.array_equal(mix.own, draw_mix(Recipe(mixup=0.4), 3, 5).own)
    assert not np.array_equal(mix.own, draw_mix(Recipe(mixup=0.4), 4, 5).own)
    assert draw_mix(Recipe(), 3, 5) is None


def test_cutmix_pastes_a_box_and_counts_its_pixels():
    seen = set()
    for step in range(20):
        images = torch.arange(4.0)[:, None, None, None].expand(4, 3, 10, 12).clone()
        result, own = mixed(images, draw_mix(Recipe(cutmix=1.0), step, 4))
        for i in range(4):
            assert set(result[i].unique().tolist()) <= {float(i), float(i ^ 1)}
            pasted = (result[i, 0] == (i ^ 1)).float().mean().item()
            assert own[i].item() == pytest.approx(1 - pasted, abs=1e-6)
            seen.add(round(pasted, 3))
    assert len(seen) > 10


def test_the_loss_of_mixed_pictures_is_the_mix_of_their_losses():
    logits, labels, own = torch.randn(4, 5), torch.tensor([0, 3, 2, 2]), torch.tensor([0.7, 0.7, 0.1, 0.1])
    soft = torch.zeros(4, 5)
    for i in range(4):
        soft[i, labels[i]] += own[i]
        soft[i, labels[i ^ 1]] += 1 - own[i]
    wanted = -(soft * logits.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(cross_entropy(logits, labels, own, 0.0), wanted)


def test_soft_distillation_by_hand():
    student, teacher, hot = torch.randn(3, 4), torch.randn(3, 4), 2.5
    p, q = (teacher / hot).softmax(1), (student / hot).softmax(1)
    wanted = hot**2 * (p * (p.log() - q.log())).sum(1).mean()
    torch.testing.assert_close(distillation(student, teacher, Recipe(temperature=hot)), wanted)
    assert distillation(teacher, teacher, Recipe()).abs() < 1e-6


def test_hard_distillation_takes_the_teachers_answer_for_the_label():
    student, teacher = torch.randn(3, 4), torch.eye(4)[[2, 0, 1]]
    wanted = -student.log_softmax(1)[[0, 1, 2], [2, 0, 1]].mean()
    torch.testing.assert_close(distillation(student, teacher, Recipe(distil="hard")), wanted)


@pytest.mark.parametrize(("schedule", "wanted"), [
    ("linear", [1, 0.75, 0.5, 0.25]), ("exponential", [1, 1, 0.9, 0.9]), ("constant", [1, 1, 1, 1]),
])  # fmt: skip
def test_other_schedules(schedule, wanted):
    recipe = Recipe(epochs=2, lr=1, schedule=schedule, gamma=0.9, warmup_epochs=0)
    assert [recipe.lr_at(step, 2) for step in range(4)] == pytest.approx(wanted)


def test_the_heads_epochs_come_before_warm_up_and_schedule():
    plain, with_head = (Recipe(epochs=n, head_epochs=h, lr=1, warmup_epochs=1) for n, h in ((10, 0), (12, 2)))
    rates = [with_head.lr_at(step, 5) for step in range(60)]
    assert rates[:10] == [1] * 10
    assert rates[10:] == [plain.lr_at(step, 5) for step in range(50)]


@pytest.mark.parametrize("name", NAMED)
def test_named_recipes_say_what_they_are(name):
    assert NAMED[name].name == name
    assert NAMED[name].purpose
    assert NAMED[name].source
    assert named(name) == NAMED[name].recipe


def test_a_recipe_nobody_knows():
    with pytest.raises(DataError, match="no recipe 'mobilnet_v1'; closest: mobilenet_v1"):
        named("mobilnet_v1")


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
    pixels = crop_of(tmp_path / "big.jpg", Recipe(augment="photo"), 0, 0)
    assert np.abs(pixels.astype(int) - COLOURS["green"]).max() <= 3  # JPEG rounds
