"""What a kernel leaves open besides what it computes: register tiles, rows of a strip, shares of the lanes."""

from dataclasses import dataclass

from smallcnn.compiler.specs import Tile


@dataclass(frozen=True)
class Choice:
    """A tile for each layer of a call, in order: sums in registers; for depthwise layers and pools, neighbours x 1
    vector.

    The output is computed in strips of `rows` (0: no strips). Threads share the lanes in `shares` groups, or pixels
    if there is one.
    """

    tiles: tuple[Tile, ...] = ()
    rows: int = 0
    shares: int = 1
