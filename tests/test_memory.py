"""Small pictures held in memory: shifted and mirrored a batch at a time."""

import numpy as np
import pytest

from smallcnn.data.crops import shifted


@pytest.mark.parametrize("shape", [(9, 8, 8, 1), (5, 6, 11, 3)], ids=str)
@pytest.mark.parametrize("pad", [0, 1, 5])
def test_shifting_is_cropping_a_padded_picture(shape, pad):
    rng = np.random.default_rng(0)
    count, height, width, _ = shape
    images = rng.integers(0, 256, shape, np.uint8)
    indices = rng.integers(0, count, 40)
    dy, dx = rng.integers(-pad, pad + 1, (2, 40))
    mirrored = rng.random(40) < 0.5
    got = shifted(images, indices, dy, dx, mirrored)
    assert (got.shape, got.dtype) == ((40, *shape[1:]), np.uint8)
    for b, i in enumerate(indices):
        padded = np.pad(images[i], ((pad, pad), (pad, pad), (0, 0)), mode="reflect")
        top, left = pad + dy[b], pad + dx[b]
        want = padded[top : top + height, left : left + width]
        np.testing.assert_array_equal(got[b], want[:, ::-1] if mirrored[b] else want)
