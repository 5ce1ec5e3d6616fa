"""The images that a report shows are those that the network was given, to the grey level."""

import numpy as np
import pytest
import torch

from artifacts import colour_photos
from networks import tiny
from smallcnn.data.sources import open_source
from smallcnn.image.fit import Preprocessing
from smallcnn.train import learner
from smallcnn.train.recipe import Recipe
from smallcnn.train.run import train
from smallcnn.train.sight import first_images


@pytest.mark.parametrize("augment", ["none", "small", "photo"])
@pytest.mark.parametrize("mix", [{}, {"mixup": 0.4}, {"cutmix": 1.0}], ids=str)
def test_they_are_those_of_the_first_step(tmp_path, monkeypatch, augment, mix):
    photos = colour_photos(tmp_path / "photos", per_class=12)
    recipe = Recipe(epochs=1, batch_size=8, augment=augment, mirror=True, jitter=0.4, train_scale=1.5, **mix)
    given = []

    def spied(*arguments):
        result = real(*arguments)
        given.append(result)
        return result

    real = learner.augmented
    monkeypatch.setattr(learner, "augmented", spied)
    train(tiny(), photos, tmp_path / "run", recipe=recipe, workers=1)
    images, own = given[0]
    split = open_source(photos).splits["train"]
    seen = first_images(split, recipe, Preprocessing((8, 8), crop=1.0), 6)
    want = (images[:6] * 255).round().clamp(0, 255).permute(0, 2, 3, 1)
    assert seen.images.shape == (6, 12, 12, 3)
    np.testing.assert_array_equal(seen.images, want)
    np.testing.assert_array_equal(seen.own, torch.ones(6) if own is None else own[:6])


def test_an_image_that_cannot_be_decoded_is_left_out(tmp_path):
    photos = colour_photos(tmp_path / "photos", per_class=3)
    for path in sorted(photos.rglob("*.png"))[::2]:
        path.write_bytes(b"no image")
    split = open_source(photos).splits["train"]
    good = sum(path.read_bytes() != b"no image" for path in split.images)
    for mix in ({}, {"mixup": 0.4}):
        seen = first_images(split, Recipe(augment="photo", mirror=True, **mix), Preprocessing((8, 8)), 64)
        assert len(seen.images) == len(seen.targets) == len(seen.own) == len(seen.partners) == good
