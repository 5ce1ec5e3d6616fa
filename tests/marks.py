"""Images with one bright mark, and where it is found again."""

import numpy as np

MARK, BACKGROUND = 250, 20


def marked(width, height, x, y, side):
    """A dark image with a bright square of `side` pixels whose centre is (x, y)."""
    pixels = np.full((height, width, 3), BACKGROUND, np.uint8)
    left, top = round(x - side / 2), round(y - side / 2)
    pixels[top : top + side, left : left + side] = MARK
    return pixels, (left + side / 2, top + side / 2)


def centroid(pixels, floor=BACKGROUND):
    """Centre of brightness above `floor` as (x, y), in pixels of the input."""
    weight = np.clip(pixels[..., 0].astype(float) - floor, 0, None)
    height, width = weight.shape
    x = (weight.sum(0) * (np.arange(width) + 0.5)).sum() / weight.sum()
    y = (weight.sum(1) * (np.arange(height) + 0.5)).sum() / weight.sum()
    return np.array([x, y])
