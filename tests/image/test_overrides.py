"""Settings given by the user replace a network's own; the default crop depends on the fit."""

import json

import pytest

from smallcnn.image.fit import Preprocessing
from smallcnn.image.overrides import Overrides


@pytest.mark.parametrize(
    ("own", "given", "want"),
    [
        (("crop", 0.875), {}, ("crop", 0.875)),
        (("letterbox", 0.9), {}, ("letterbox", 0.9)),
        (("crop", 0.875), {"crop": 0.5}, ("crop", 0.5)),
        (("crop", 0.875), {"fit": "crop"}, ("crop", 0.875)),
        (("crop", 0.875), {"fit": "letterbox"}, ("letterbox", 1.0)),
        (("crop", 0.875), {"fit": "stretch"}, ("stretch", 1.0)),
        (("crop", 0.875), {"fit": "stretch", "crop": 0.9}, ("stretch", 0.9)),
        (("letterbox", 1.0), {"crop": 0.9}, ("letterbox", 0.9)),
    ],
    ids=str,
)
def test_a_fit_alone_shows_the_whole_image(own, given, want):
    result = Overrides(**given).over(Preprocessing((8, 8), fit=own[0], crop=own[1]))
    assert (result.fit, result.crop) == want


@pytest.mark.parametrize(("fit", "crop"), [("crop", 0.875), ("stretch", 1.0), ("letterbox", 1.0)])
def test_the_default_crop_shows_the_whole_image_unless_the_fit_is_crop(fit, crop):
    assert Preprocessing((8, 8), fit=fit).crop == crop
    assert Preprocessing((8, 8), fit=fit, crop=0.5).crop == 0.5
    fields = {"size": [8, 8], "mean": [0.5], "std": [1.0], "fit": fit}
    assert Preprocessing.from_json(json.dumps(fields)).crop == crop
