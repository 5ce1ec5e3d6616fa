"""EffNet: Freeman et al. 2018, "EffNet: An Efficient Structure for Convolutional Neural Networks", arXiv 1801.06434.

Input (resolution, resolution, channels); output (classes,) logits. `effnet_cifar` has the paper's CIFAR-10 networks
(Table 1) and its revised block (section 6.2); `effnet` is an ImageNet-sized network of our own made of its blocks.

Where the paper is silent or contradicts itself: batch norm (epsilon 0.001) comes between every convolution and its
activation; ReLU follows every convolution, the depthwise ones too, which section 4.2 calls linear and section 6.2 gives
a ReLU, but not the depthwise one of the ShuffleNet block, which is linear in its own paper; the pool halves the width
and the 2x1 convolution the height, as Table 1's output sizes need (section 3 turns the pool the other way); the leaky
ReLU's slope is TensorFlow's 0.2. The paper's FLOPs are twice the Mult-Adds.
"""

from typing import Annotated, Literal, Unpack

from smallcnn.errors import GraphError
from smallcnn.ir.builder import Builder, Size
from smallcnn.ir.graph import Graph, Node
from smallcnn.zoo.heads import classified, pooled
from smallcnn.zoo.options import Common, multiplier, one_of
from smallcnn.zoo.registry import register
from smallcnn.zoo.rounding import rounded

_CIFAR = (64, 128, 256)  # output channels of the three blocks, Table 1
_LARGE = {  # ours: widths that match the cost in Table 2 within 0.2 %
    "mobilenet": (104, 208, 416),
    "shufflenet": (132, 272, 544),
    "effnet": (174, 348, 696),
}
_IMAGENET = ((32, 1), (64, 2), (128, 3), (256, 6), (768, 2))  # ours: output channels, blocks; the first one halves
_EPSILON = 0.001
_SLOPE = 0.2


@register(resolution=32, classes=10)
def effnet_cifar(
    g: Builder,
    *,
    block: Literal["baseline", "mobilenet", "shufflenet", "effnet", "revised"] = "effnet",
    large: bool = False,
    expansion: Annotated[int, one_of(2, 4, 6)] = 6,
    **common: Unpack[Common],
) -> Graph:
    """The CIFAR-10 networks of Table 1, three blocks of one kind, and the revised EffNet of section 6.2.

    `large` is a wider variant at the cost of Table 2's large network; the paper gives only the cost, so the widths are
    ours. `expansion` (2, 4 or 6) applies to block=revised, whose first block is Table 1's with depth
    multiplier 2. This matches the cost in Table 5, while the plain first layer of section 6.2 would cost 1.4
    MFLOPs less.

    Raises GraphError if an option is out of range or does not apply to `block`.
    """
    if large and block not in _LARGE:
        raise GraphError(f"large requires block={', '.join(_LARGE)}, not {block}: the paper has no such network")
    if expansion != 6 and block != "revised":
        raise GraphError(f"expansion requires block=revised, not {block}")
    x = g.input
    for i, out in enumerate(_LARGE[block] if large else _CIFAR, start=1):
        name = f"block{i}"
        match block:
            case "effnet":
                x = _effnet(g, x, _bottleneck(out), out, name)
            case "revised":
                width = _bottleneck(out) if i == 1 else x.shape[2] * expansion // 2
                x = _effnet(g, x, width, out, name, multiplier=2, leaky=True)
            case "mobilenet" if i > 1:
                x = _mobilenet(g, x, out, name)
            case "shufflenet" if i > 1:
                x = _shufflenet(g, x, out, name)
            case _:
                x = _conv(g, x, out, 3, f"{name}.conv3x3")
                x = g.max_pool(x, kernel=2, stride=2, name=f"{name}.pool")
    return classified(g, x, g.flatten(x, name="flatten"), common["classes"])


@register
def effnet(
    g: Builder,
    *,
    width: Annotated[float, multiplier(1)] = 1.0,
    small_input: bool = False,
    **common: Unpack[Common],
) -> Graph:
    """An ImageNet-sized network of EffNet blocks, of our own design; no figures are published for it.

    Five stages start with the paper's block, which halves the plane; the other blocks of a stage have neither pool nor
    stride, a 1x1 in place of the 2x1 convolution, and a shortcut. `width` is a width multiplier; widths are rounded to
    multiples of 8. `small_input` keeps the first block from halving, for images of 28 to 64 pixels.

    Raises GraphError if an option is out of range.
    """
    x = g.input
    blocks = [(rounded(out * width), i == 0) for out, count in _IMAGENET for i in range(count)]
    for i, (out, halves) in enumerate(blocks, start=1):
        x = _effnet(g, x, _bottleneck(out), out, f"block{i}", halves=halves and not (small_input and i == 1))
    return pooled(g, x, common["classes"])


def _bottleneck(out: int) -> int:
    """Width inside an EffNet block: half its output, at least 6."""
    return max(out // 2, 6)


def _effnet(
    g: Builder,
    x: Node,
    width: int,
    out: int,
    name: str,
    *,
    multiplier: int = 1,
    leaky: bool = False,
    halves: bool = True,
) -> Node:
    """(H, W, C) -> (ceil(H/2), ceil(W/2), out), or (H, W, out) unless it `halves`: Figure 1a.

    1x1 to `width`, 1x3 depthwise (`multiplier` filters per channel), pool, 3x1 depthwise, 2x1 with stride 2; `leaky`
    ReLU after the first and the last.
    """
    wide = width * multiplier
    y = _conv(g, x, width, 1, f"{name}.pointwise", leaky=leaky)
    y = _conv(g, y, wide, (1, 3), f"{name}.row", groups=width)
    if halves:
        y = g.max_pool(y, kernel=(1, 2), stride=(1, 2), name=f"{name}.pool")
    y = _conv(g, y, wide, (3, 1), f"{name}.column", groups=wide)
    if halves or x.shape[2] != out:
        last = (2, 1) if halves else (1, 1)
        return _conv(g, y, out, last, f"{name}.project", stride=last, leaky=leaky)
    y = g.conv_bn(y, out, epsilon=_EPSILON, activation=None, name=f"{name}.project")
    return g.activation(g.add(x, y, name=f"{name}.add"), "relu", name=f"{name}.act")


def _mobilenet(g: Builder, x: Node, out: int, name: str) -> Node:
    """(H, W, C) -> (ceil(H/2), ceil(W/2), out): 3x3 depthwise with stride 2, 1x1 (Figure 1b)."""
    x = _conv(g, x, x.shape[2], 3, f"{name}.depthwise", stride=2, groups=x.shape[2])
    return _conv(g, x, out, 1, f"{name}.pointwise")


def _shufflenet(g: Builder, x: Node, out: int, name: str) -> Node:
    """(H, W, C) -> (ceil(H/2), ceil(W/2), out): 1x1 in 4 groups, shuffle, 3x3 depthwise, 1x1 in 4 groups (Fig. 1c)."""
    width = out // 4
    x = g.shuffle(_conv(g, x, width, 1, f"{name}.reduce", groups=4), 4, name=f"{name}.shuffle")
    x = g.depthwise_bn(x, kernel=3, stride=2, epsilon=_EPSILON, activation=None, name=f"{name}.depthwise")
    return _conv(g, x, out, 1, f"{name}.expand", groups=4)


def _conv(
    g: Builder, x: Node, out: int, kernel: Size, name: str, *, stride: Size = 1, groups: int = 1, leaky: bool = False
) -> Node:
    """Convolution, batch norm, ReLU or leaky ReLU."""
    x = g.conv_bn(x, out, kernel=kernel, stride=stride, groups=groups, epsilon=_EPSILON, activation=None, name=name)
    if leaky:
        return g.activation(x, "leaky_relu", slope=_SLOPE, name=f"{name}.act")
    return g.activation(x, "relu", name=f"{name}.act")
