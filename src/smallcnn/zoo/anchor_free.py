"""An anchor-free detector for small backbones, put together from published parts.

Input (resolution, resolution, channels); outputs boxes, scores, classes and count of the objects found: see
`ir.ops.Detect`. Each cell of three maps has one place for an object, and a score for each class, without a background.

    neck     the backbone's two maps, joined from the top down and from the bottom up: path aggregation, Liu et al. 2018
             (arXiv 1803.01534), section 3.1; a third map at half the size of the last
    layers   depthwise 5x5 and 1x1, all with `neck` channels, as in NanoDet-Plus (RangiLyu/nanodet, v1.0.0)
    boxes    the shift of the place and the logarithm of its size, as in YOLOX: Ge et al. 2021 (arXiv 2107.08430), 2.1

With 96 channels the head over MobileNetV2 costs as much as SSDLite's.
"""

from typing import Annotated, Unpack

from smallcnn.ir.builder import Builder, PaddingLike
from smallcnn.ir.graph import Graph, Node
from smallcnn.ir.ops import Detect, Padding
from smallcnn.zoo import anchors
from smallcnn.zoo.backbones import backbone as body_of
from smallcnn.zoo.options import NETWORK, Allowed, Common
from smallcnn.zoo.registry import parse, register

_NECK = Allowed("1 to 1024", lambda value: 1 <= value <= 1024, (32, 64, 96))
_KERNEL = 5
_SIZES = (0.25, 0.45, 0.75)  # of a place on each map, where the logarithm is 0


@register(resolution=320, classes=80)
def anchor_free(
    g: Builder,
    *,
    backbone: Annotated[str, NETWORK] = "mobilenet_v2",
    neck: Annotated[int, _NECK] = 96,
    **common: Unpack[Common],
) -> Graph:
    """An anchor-free detector over a classifier.

    `backbone` and `classes` are those of `ssd`; `neck` is the number of channels of all layers after the backbone.

    Raises GraphError if an option is out of range, or the backbone has no map at half the stride of its features.
    """
    first, last = body_of(g, parse(backbone))
    coded: list[Node] = []
    scores: list[Node] = []
    maps = _neck(g, first, last, neck)
    for i, x in enumerate(maps, start=1):
        for name, columns, rows in ((f"predict{i}.code", 4, coded), (f"predict{i}.scores", common["classes"], scores)):
            y = _separable(g, x, neck, f"{name}.tower")
            y = g.depthwise_bn(y, kernel=_KERNEL, name=f"{name}.depthwise")
            rows.append(g.rows(g.conv(y, columns, name=f"{name}.conv"), columns, name=f"{name}.rows"))
    height, width, _ = g.input.shape
    detect = Detect(
        anchors=anchors.places(maps, (height, width), _SIZES), score="sigmoid", background=False, centre="linear",
        size="exp", centre_scale=0.1, size_scale=0.2, y_first=False, clip=True, across=False, threshold=0.01,
        overlap=0.6, most=100,
    )  # fmt: skip
    found = g.detections(detect, g.join(*coded, name="coded"), g.join(*scores, name="class_scores"))
    return g.graph(found, features=last, taps=(first,))


def _neck(g: Builder, first: Node, last: Node, channels: int) -> list[Node]:
    """Three maps: the size of the first, of the last, and half of that."""
    low, high = (g.conv_bn(x, channels, name=f"neck{i}.reduce") for i, x in enumerate((first, last), start=1))
    up = g.resize(high, *low.shape[:2], mode="nearest", name="neck1.up")
    low = _separable(g, g.add(low, up, name="neck1.add"), channels, "neck1.fuse")
    down = _separable(g, low, channels, "neck2.down", stride=2, padding=_padding(low, high))
    high = _separable(g, g.add(high, down, name="neck2.add"), channels, "neck2.fuse")
    return [low, high, _separable(g, high, channels, "neck3.down", stride=2)]


def _padding(low: Node, high: Node) -> Padding:
    """What makes of one map another, of half its size rounded up, or down as after a pool without padding."""
    sides = zip(low.shape[:2], high.shape[:2], strict=True)
    down, right = (max(0, 2 * (small - 1) + _KERNEL - large) for large, small in sides)
    return (down // 2, down - down // 2), (right // 2, right - right // 2)


def _separable(g: Builder, x: Node, out: int, name: str, stride: int = 1, padding: PaddingLike = "same") -> Node:
    x = g.depthwise_bn(x, kernel=_KERNEL, stride=stride, padding=padding, name=f"{name}.depthwise")
    return g.conv_bn(x, out, name=f"{name}.pointwise")
