"""The anchors of the released SSD detectors, "default boxes" in the paper (Liu et al. 2016, arXiv 1512.02325, 2.2).

Sizes are fractions of the input's shorter side: a square anchor is square in the image that the network sees, as in
TensorFlow's code. Grids are centred in their cells and, unless a step says otherwise, cover the input.
"""

from collections.abc import Sequence
from itertools import pairwise
from math import sqrt

from smallcnn.ir.graph import Node
from smallcnn.ir.ops import AnchorGrid

_LEAST, _MOST = 0.2, 0.95
_RATIOS = (1.0, 2.0, 0.5, 3.0, 0.3333)  # the last as the configurations print it

# of the six maps for 300 pixels: scale in hundredths, ratios beside 1, step in pixels (0: covers the input)
_PAPER = ((7, (2,), 8), (15, (2, 3), 16), (33, (2, 3), 32), (51, (2, 3), 64), (69, (2,), 0), (87, (2,), 0))
_PAPER_LAST = 105

Pair = tuple[float, float]


def tensorflow(maps: Sequence[Node], plane: tuple[int, int]) -> tuple[AnchorGrid, ...]:
    """TensorFlow's `ssd_anchor_generator` in the released configurations: 3 anchors on the first map, 6 on the others.

    research/object_detection/anchor_generators/multiple_grid_anchor_generator.py
    """
    grids = []
    for i, (scale, following) in enumerate(pairwise(_scales(len(maps)))):
        sizes = [(scale, ratio) for ratio in _RATIOS] + [(sqrt(scale * following), 1.0)]
        if i == 0:
            sizes = [(0.1, 1.0), (scale, 2.0), (scale, 0.5)]
        grids.append(_grid(maps[i], plane, [(one * sqrt(ratio), one / sqrt(ratio)) for one, ratio in sizes]))
    return tuple(grids)


def torchvision(maps: Sequence[Node], plane: tuple[int, int]) -> tuple[AnchorGrid, ...]:
    """torchvision's `DefaultBoxGenerator` in its SSDLite: 6 anchors on each map, none larger than the input."""
    scales = pairwise(_scales(len(maps)))
    return tuple(
        _grid(one, plane, [(min(width, 1), min(height, 1)) for width, height in _paired(scale, following, (2, 3))])
        for one, (scale, following) in zip(maps, scales, strict=True)
    )


def paper(maps: Sequence[Node], plane: tuple[int, int]) -> tuple[AnchorGrid, ...]:
    """The paper's SSD300 for COCO: 4, 6, 6, 6, 4 and 4 anchors, in its first layers at fixed steps in pixels.

    Authors' ssd_coco.py in weiliu89/caffe; torchvision's `ssd300_vgg16`.
    """
    grids = []
    following = (*(scale for scale, _, _ in _PAPER[1:]), _PAPER_LAST)
    for one, (scale, ratios, pixels), after in zip(maps, _PAPER, following, strict=True):
        sizes = [(min(width, 1), min(height, 1)) for width, height in _paired(scale / 100, after / 100, ratios)]
        grids.append(_grid(one, plane, sizes, pixels))
    return tuple(grids)


def places(maps: Sequence[Node], plane: tuple[int, int], sizes: Sequence[float]) -> tuple[AnchorGrid, ...]:
    """One square in each cell, of one of these sizes on each map: what anchor-free detectors count boxes from."""
    return tuple(_grid(one, plane, [(size, size)]) for one, size in zip(maps, sizes, strict=True))


def _scales(maps: int) -> list[float]:
    """Evenly from the least to the most, and 1 after them."""
    return [_LEAST + (_MOST - _LEAST) * i / (maps - 1) for i in range(maps)] + [1.0]


def _paired(scale: float, following: float, ratios: Sequence[int]) -> list[Pair]:
    """Two squares, then for each ratio a wide anchor and a tall one: the order of the paper's authors."""
    sides = [(scale * sqrt(ratio), scale / sqrt(ratio)) for ratio in ratios]
    between = sqrt(scale * following)
    return [(scale, scale), (between, between)] + [size for wide in sides for size in (wide, wide[::-1])]


def _grid(one: Node, plane: tuple[int, int], sizes: Sequence[Pair], pixels: int = 0) -> AnchorGrid:
    rows, columns, _ = one.shape
    height, width = plane
    shorter = min(plane)
    return AnchorGrid(
        cells=(rows, columns),
        sizes=tuple((wide * shorter / width, high * shorter / height) for wide, high in sizes),
        step=(pixels / height, pixels / width) if pixels else (1 / rows, 1 / columns),
    )
