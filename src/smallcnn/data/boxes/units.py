"""Whether sides are fractions of the image or pixels, where a format does not say."""

import numpy as np

_MOST = 2.0  # a fraction may lie beyond the image's edge; boxes of two pixels are none


def in_pixels(sides: np.ndarray) -> bool:
    """Whether most boxes (n, 4), or outlines of more numbers, reach beyond what fractions may be."""
    known = sides[np.isfinite(sides).all(1)]
    return bool(len(known)) and 2 * int((np.abs(known).max(1) > _MOST).sum()) > len(known)
