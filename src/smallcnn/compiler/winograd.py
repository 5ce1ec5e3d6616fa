"""Winograd's minimal filtering: 3x3 convolutions in fewer multiplications (Lavin & Gray 2016, 1509.09308, section 4).

    outputs = A.T [(G w G.T) * (B.T pixels B)] A

for `side` x `side` outputs of one channel, from (side + 2) x (side + 2) pixels, where * multiplies number by number.
The products of all channels are added up before A, so each number of a tile is a matrix product of its own. A filter
has then (side + 2)**2 numbers instead of 9, and an output takes (side + 2)**2 / side**2 multiplications: 4 or 2.25.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np

KERNEL = 3
"""Side of the filters."""
_POINTS = {2: (0.0, 1.0, -1.0), 4: (0.0, 0.5**0.5, -(0.5**0.5), 2.0**0.5, -(2.0**0.5))}
"""Where the polynomials are taken, by side; infinity is one more. With 0, +-1 and +-2, side 4 errs twice as much."""
_DIGITS = 12
"""Decimals of the transforms that kernels compute: of roots enough for float32, and whole numbers come out whole."""
SIDES = tuple(_POINTS)
"""Sides of tiles."""


@dataclass(frozen=True, eq=False)
class Transform:
    """`outputs` is A.T (side, size), `filters` G (size, 3), `pixels` B.T (size, size); `size` is `side` + 2."""

    outputs: np.ndarray
    filters: np.ndarray
    pixels: np.ndarray

    @property
    def size(self) -> int:
        """Numbers along a side of a transformed tile."""
        return len(self.pixels)

    def filtered(self, weight: np.ndarray) -> np.ndarray:
        """Filters (..., 3, 3) as (..., size, size), float32."""
        return (self.filters @ weight.astype(np.float64) @ self.filters.T).astype(np.float32)


@cache
def transform(side: int) -> Transform:
    """The matrices for tiles of `side` x `side` outputs, by the algorithm of Toom and Cook."""
    points = _POINTS[side]
    size = len(points) + 1
    outputs, filters, pixels = np.zeros((side, size)), np.zeros((size, KERNEL)), np.zeros((size, size))
    for i, point in enumerate(points):
        others = [other for other in points if other != point]
        outputs[:, i] = point ** np.arange(side)
        filters[i] = point ** np.arange(KERNEL) / np.prod([point - other for other in others])
        pixels[i, :-1] = np.poly(others)[::-1]
    outputs[-1, -1] = filters[-1, -1] = 1
    pixels[-1] = np.poly(points)[::-1]
    return Transform(outputs.round(_DIGITS), filters, pixels.round(_DIGITS))
