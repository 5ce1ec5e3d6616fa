"""The choices for a kernel besides what it computes: register tiles, rows per strip, shares of the lanes.

The plan chooses by a cost model, whose numbers were measured on one thread of a Zen 3 (32 KiB first-level cache, 16
registers of 8 floats); `tune` by timing.
"""

from dataclasses import dataclass

from smallcnn.compiler.specs import Machine, Tile
from smallcnn.compiler.storage import up

_PANEL = 28_000
"""Bytes of a tile's weights that stay in the first-level cache across pixels; beyond that they come from the second
level, and wide tiles cost more than they save."""


@dataclass(frozen=True)
class Choice:
    """A tile for each layer of a call, in order: sums in registers; for depthwise layers, neighbours x 1 vector.

    The output is computed in strips of `rows` (0: no strips). Threads share the lanes in `shares` groups, or pixels
    if there is one.
    """

    tiles: tuple[Tile, ...] = ()
    rows: int = 0
    shares: int = 1


def best_tiles(pixels: int, lanes: int, depth: int, machine: Machine) -> list[Tile]:
    """Register tiles for `pixels` x `lanes` sums of `depth` terms, least estimated work first."""
    vectors = lanes // machine.vector

    def work(tile: tuple[int, int]) -> float:
        p, v = tile
        products = p * v
        loads = 1.6 * p + 0.75 * v  # in multiply-adds: 13x1 runs at 62 % of the peak
        far = 3.2 * v if 4 * v * depth * machine.vector > _PANEL else 0.0
        busy = max(products, loads, far, 9.3 if products < 10 else 0)  # 8 sums do not hide the latency
        return -(-pixels // p) * -(-vectors // v) * (busy * depth + 2 * products + 10)

    def fits(p: int, v: int) -> bool:
        return p <= pixels and v <= vectors and p * v + v + 1 <= machine.registers

    tiles = [(p, v) for p in range(1, machine.registers) for v in range(1, 13) if fits(p, v)]
    unroll = next(u for u in (4, 3, 2, 1) if depth % u == 0)
    return [Tile(p, v, unroll) for p, v in sorted(tiles, key=work)]


def neighbours(width: int) -> Tile:
    """Pixels of a row that a depthwise kernel computes together: up to 7, with the least overlap at the row's end."""
    return Tile(min(width, min((7, 6, 5, 4), key=lambda pixels: up(width, pixels) * (pixels + 2) / pixels)), 1)


def strip_rows(height: int, fitting: int, threads: int) -> int:
    """Rows per strip, at most `fitting`: first minimises the busiest thread's work, then maximises rows."""
    most = max(1, min(fitting, -(-height // threads)))

    def longest(rows: int) -> int:
        return -(-height // (rows * threads)) * rows

    return min(range(max(1, most // 2), most + 1), key=lambda rows: (longest(rows), -rows))
