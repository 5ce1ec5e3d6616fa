"""What a user says about preprocessing replaces a network's own."""

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
