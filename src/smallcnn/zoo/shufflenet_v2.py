"""ShuffleNetV2: Ma et al. 2018, "ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture Design".

arXiv 1807.11164. Input (resolution, resolution, channels); output (classes,) logits. Units are the paper's Figure 3
(c, d), widths its Table 5. ReLU, batch norm epsilon 1e-5 and symmetric padding as in torchvision and in the authors'
released code; the Mult-Adds of Table 8 (146, 299, 591 M) are those of that code, `shuffle` "released".
"""

from typing import Annotated, Literal, Unpack

from smallcnn.ir.builder import Builder
from smallcnn.ir.graph import Graph, Node
from smallcnn.zoo.heads import pooled
from smallcnn.zoo.options import Common, one_of
from smallcnn.zoo.registry import register

# channels of stages 2, 3, 4 and of the last convolution          Table 5
_WIDTHS = {
    0.5: (48, 96, 192, 1024),
    1.0: (116, 232, 464, 1024),
    1.5: (176, 352, 704, 1024),
    2.0: (244, 488, 976, 2048),
}
_UNITS = (4, 8, 4)  # per stage; the first of each has stride 2


@register
def shufflenet_v2(
    g: Builder,
    *,
    scale: Annotated[float, one_of(*_WIDTHS)] = 1.0,
    shuffle: Literal["paper", "released"] = "paper",
    small_input: bool = False,
    **common: Unpack[Common],
) -> Graph:
    """ShuffleNetV2.

    `scale` is 0.5, 1, 1.5 or 2. `shuffle` "paper" splits the channels in halves and shuffles them after each unit, as
    Figure 3 and torchvision do; "released" is the authors' code (megvii-model/ShuffleNet-Series): even channels are the
    shortcut and odd ones go through the branch, the shortcut of a unit of stride 2 keeps its width, and the classifier
    has no bias. `small_input`, for images of 28 to 64 pixels, gives the stem stride 1 and omits its pooling.

    Raises GraphError if an option is out of range.
    """
    stem_stride = 1 if small_input else 2
    x = g.conv_bn(g.input, 24, kernel=3, stride=stem_stride, padding="symmetric", activation="relu", name="stem")
    if not small_input:
        x = g.max_pool(x, kernel=3, stride=2, padding="symmetric", name="stem.pool")
    *stages, last = _WIDTHS[scale]
    blocks = [(out, 1 if i else 2) for out, units in zip(stages, _UNITS, strict=True) for i in range(units)]
    unit = _paper_unit if shuffle == "paper" else _released_unit
    for i, (out, stride) in enumerate(blocks, start=1):
        x = unit(g, x, out, stride, f"block{i}")
    x = g.conv_bn(x, last, activation="relu", name="last")
    return pooled(g, x, common["classes"], bias=shuffle == "paper")


def _paper_unit(g: Builder, x: Node, out: int, stride: int, name: str) -> Node:
    """(H, W, C) -> (H/stride, W/stride, out), shuffled."""
    half = out // 2
    if stride == 1:
        shortcut, x = g.split(x, (half, half), name=f"{name}.split")
    else:
        shortcut = _shortcut(g, x, half, name)
    x = g.concat(shortcut, _branch(g, x, half, half, stride, name), name=f"{name}.concat")
    return g.shuffle(x, 2, name=f"{name}.shuffle")


def _released_unit(g: Builder, x: Node, out: int, stride: int, name: str) -> Node:
    """(H, W, C) -> (H/stride, W/stride, out); the next unit shuffles."""
    half = out // 2
    if stride == 1:
        x = g.shuffle(x, half, name=f"{name}.shuffle")  # groups of two: the even channels, then the odd ones
        shortcut, x = g.split(x, (half, half), name=f"{name}.split")
        branch = _branch(g, x, half, half, stride, name)
    else:
        width = x.shape[2]
        branch = _branch(g, x, half, out - width, stride, name)
        shortcut = _shortcut(g, x, width, name)
    return g.concat(shortcut, branch, name=f"{name}.concat")


def _branch(g: Builder, x: Node, middle: int, out: int, stride: int, name: str) -> Node:
    """(H, W, C) -> (H/stride, W/stride, out): 1x1, 3x3 depthwise without activation, 1x1."""
    x = g.conv_bn(x, middle, activation="relu", name=f"{name}.branch.pointwise1")
    x = _depthwise(g, x, stride, f"{name}.branch.depthwise")
    return g.conv_bn(x, out, activation="relu", name=f"{name}.branch.pointwise2")


def _shortcut(g: Builder, x: Node, out: int, name: str) -> Node:
    """(H, W, C) -> (H/2, W/2, out)."""
    x = _depthwise(g, x, 2, f"{name}.shortcut.depthwise")
    return g.conv_bn(x, out, activation="relu", name=f"{name}.shortcut.pointwise")


def _depthwise(g: Builder, x: Node, stride: int, name: str) -> Node:
    return g.depthwise_bn(x, kernel=3, stride=stride, padding="symmetric", activation=None, name=name)
