"""Random shifts and mirroring of a whole batch of small images, with a few numpy operations and no loop."""

import numpy as np


def shifted(
    images: np.ndarray, indices: np.ndarray, dy: np.ndarray, dx: np.ndarray, mirrored: np.ndarray
) -> np.ndarray:
    """The images `indices` of uint8 (N, H, W, C), each seen through a window moved `dy` down and `dx` right.

    The image is reflected at its border without repeating the edge, as `np.pad` does in mode "reflect"; shifts must be
    smaller than the image. Where `mirrored` is true, the result is flipped left to right. The four vectors have one
    entry per image of the result, uint8 (B, H, W, C).
    """
    _, height, width, channels = images.shape
    rows = _reflected(np.arange(height) + dy[:, None], height)  # (B, H)
    across = np.arange(width)
    columns = _reflected(np.where(mirrored[:, None], across[::-1], across) + dx[:, None], width)  # (B, W)
    rows += (np.asarray(indices) * height)[:, None]
    pixels = np.ascontiguousarray(images).view(f"V{channels}").reshape(-1)
    return (
        pixels.take(rows[:, :, None] * width + columns[:, None, :]).view(np.uint8).reshape(-1, height, width, channels)
    )


def _reflected(positions: np.ndarray, length: int) -> np.ndarray:
    """Positions from 1 - length to 2 * length - 2, folded back into 0 .. length - 1."""
    return length - 1 - np.abs(length - 1 - np.abs(positions))
