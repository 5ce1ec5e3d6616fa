"""How far results are from what they should be: sums over batches, float64."""

from math import inf, log10

import numpy as np

Array = np.ndarray


class Noise:
    """The difference of exact and other results (N, ..., C), added batch by batch."""

    def __init__(self) -> None:
        self._count = 0
        self._sum: Array | float = 0.0  # of the difference, by channel
        self._squares: Array | float = 0.0  # of the difference, by channel
        self._signal = 0.0

    def add(self, exact: Array, near: Array) -> None:
        """Adds a batch."""
        difference = (exact.astype(np.float64) - near).reshape(-1, exact.shape[-1])
        self._count += len(difference)
        self._sum = self._sum + difference.sum(0)
        self._squares = self._squares + np.square(difference).sum(0)
        self._signal += float(np.square(exact, dtype=np.float64).sum())

    @property
    def mean(self) -> Array:
        """What the other results lack on average (C,)."""
        return np.asarray(self._sum / self._count)

    def snr(self, *, around_mean: bool = False) -> float:
        """Signal-to-noise ratio in dB: mean square of the exact results over that of the difference.

        With `around_mean`, a bias has taken up the mean of each channel. Infinite if there is no difference.
        """
        offset = self._sum * self.mean if around_mean else 0.0
        noise = float(np.sum(self._squares - offset))
        if noise <= 0:
            return inf
        return 10 * log10(self._signal / noise) if self._signal else -inf
