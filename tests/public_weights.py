"""Weights and images that are a fixed function of names, shapes and a seed.

The logits in tests/public_definitions were computed with them, so nothing has to be downloaded.
"""

import zlib
from math import prod, sqrt

import numpy as np


def public_weight(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """The float32 tensor of a state-dict key; no statistic is at its initial value."""
    rng = np.random.default_rng(zlib.crc32(key.encode()))
    if key.endswith("running_var") or (len(shape) == 1 and key.endswith("weight")):
        value = rng.uniform(0.5, 1.5, shape)
    elif len(shape) == 1:  # running_mean, bias
        value = 0.2 * rng.standard_normal(shape)
    else:
        value = sqrt(2 / prod(shape[1:])) * rng.standard_normal(shape)
    return value.astype(np.float32)


def public_image(resolution: int, seed: int) -> np.ndarray:
    """One prepared image, float32 (1, 3, resolution, resolution)."""
    return np.random.default_rng(seed).standard_normal((1, 3, resolution, resolution), np.float32)
