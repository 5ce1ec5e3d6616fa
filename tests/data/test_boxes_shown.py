"""The boxes of an input: those of the image, as far as the input shows them."""

import numpy as np

from smallcnn.data.targets import AREA, BOTTOM, CLASS, CROWD, DIFFICULT, FLAG, LEFT, NO_BOX, PLAIN, RIGHT, TOP, Boxes
from smallcnn.image.geometry import Seen

# left, top, right, bottom, class, area, flag, in an image 100 wide and 80 high
ROWS = np.array([
    [10, 10, 30, 30, 2, 400, PLAIN],
    [40, 20, 90, 60, 0, 2000, DIFFICULT],  # reaches out of the right half of the window, its centre is inside
    [70, 0, 100, 20, 1, 600, PLAIN],  # centre right of the window
    [60, 0, 100, 80, 3, 3200, CROWD],  # centre right of the window, but a crowd
    [90, 70, 95, 75, 3, 25, CROWD],  # not in the window at all
])  # fmt: skip


def shown(box):
    boxes = Boxes.of([np.zeros((0, 7)), ROWS])
    return boxes.as_shown([Seen((80, 100), (64, 64), (0, 0, 100, 80)), Seen((80, 100), (64, 64), box)])


def test_what_a_crop_shows():
    nothing, found = shown((0, 0, 70, 40))
    assert (nothing[:, CLASS] == NO_BOX).all()
    np.testing.assert_allclose(found[0, :4], [10 / 70, 10 / 40, 30 / 70, 30 / 40], rtol=1e-6)
    np.testing.assert_allclose(found[1, :4], [40 / 70, 20 / 40, 1, 1], rtol=1e-6)
    np.testing.assert_allclose(found[2, :4], [60 / 70, 0, 1, 1], rtol=1e-6)
    assert found[:, CLASS].tolist() == [2, 0, 3, NO_BOX, NO_BOX]
    assert found[:3, FLAG].tolist() == [PLAIN, DIFFICULT, CROWD]
    np.testing.assert_allclose(found[1, AREA], 30 / 70 * 20 / 40, rtol=1e-6)


def test_a_mirrored_input_has_left_before_right():
    _, found = shown((100, 0, 0, 80))
    np.testing.assert_allclose(found[0, [LEFT, TOP, RIGHT, BOTTOM]], [0.7, 0.125, 0.9, 0.375], rtol=1e-6)


def test_labels_without_positions_stay_as_they_are(monkeypatch):
    from smallcnn.data.targets import Classes

    labels = np.array([3, 1, 2])
    assert Classes(labels).as_shown([]).tolist() == labels.tolist()


def test_taken_images_keep_their_boxes():
    rng = np.random.default_rng(0)
    each = [rng.random((n, 7)) for n in (2, 0, 3, 1, 0)]
    boxes = Boxes.of(each)
    taken = boxes.take([3, 1, 2, 2, 0])
    assert [rows.tolist() for rows in taken.each()] == [each[i].tolist() for i in (3, 1, 2, 2, 0)]
    assert taken.array.shape == (5, 3, 7)  # as many rows as the image with the most boxes has
    assert boxes.take([]).array.shape == (0, 3, 7)
