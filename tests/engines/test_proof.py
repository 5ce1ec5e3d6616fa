"""An engine's proof on the probe image: how large an error rounding explains."""

import numpy as np
import pytest

from smallcnn.engines.proof import Proof
from smallcnn.engines.session import Session
from smallcnn.errors import AnswerError
from smallcnn.ir.types import Tensor
from smallcnn.model.probe import INTEGER_TOLERANCE, TOLERANCE, probe_image, rounding

SHAPE = (32, 32, 3)
WANTED = {"logits": np.array([0.2, -1.0, 0.5])}


def proof(error, *, integer, rounding=None):
    """Of a session that is off by so much of its largest output."""
    answer = WANTED["logits"] + [0, 0, error]
    session = Session(SHAPE, {"logits": Tensor((3,))}, {}, lambda images: {"logits": answer[None]})
    return Proof(session, "file", "engine", lambda: WANTED, lambda: WANTED, integer=integer, rounding=rounding)


def never():
    raise AssertionError


@pytest.mark.parametrize(("error", "explained"), [(0.2, 0.3), (INTEGER_TOLERANCE + 0.01, INTEGER_TOLERANCE + 0.02)])
def test_what_rounding_explains_is_right(error, explained):
    one = proof(error, integer=True, rounding=lambda: explained)
    one.check()
    assert one.error() == pytest.approx(error)
    assert one.allowed == explained


@pytest.mark.parametrize(
    "one",
    [
        proof(0.2, integer=True, rounding=lambda: 0.19),
        proof(0.2, integer=True),
        proof(2 * TOLERANCE, integer=False, rounding=never),  # real numbers are not rounded to bytes
    ],
)
def test_more_is_wrong(one):
    with pytest.raises(AnswerError, match=r"engine gives a wrong answer on the probe image"):
        one.check()


def test_a_usual_error_needs_no_further_look():
    proof(INTEGER_TOLERANCE - 0.01, integer=True, rounding=never).check()


def test_rounding_is_read_from_images_that_differ_by_ones():
    image, seen = probe_image(SHAPE)[0].astype(int), []

    def run(images):
        away = np.abs(images[0].astype(int) - image)
        seen.append((int(away.max()), int(away.sum())))
        return {"logits": np.array([[2.0, 0.1 * away.sum()]])}

    found = rounding(run, SHAPE)
    first, *others = seen
    assert first == (0, 0)
    assert len(others) == 8
    assert all(most == 1 and 0 < steps < 20 for most, steps in others)
    assert found == pytest.approx(1.5 * 0.1 * max(steps for _, steps in others) / 2.0)
