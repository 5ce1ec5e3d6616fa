"""VGG-16: Simonyan and Zisserman 2014, "Very Deep Convolutional Networks for Large-Scale Image Recognition".

arXiv 1409.1556, Table 1, configuration D. Input (resolution, resolution, channels); output (classes,) logits. All
layers have biases and ReLU; there is no batch norm and no response normalisation.
"""

from typing import Unpack

from smallcnn.ir.builder import Builder
from smallcnn.ir.graph import Graph, Node
from smallcnn.zoo.heads import classified
from smallcnn.zoo.options import Common
from smallcnn.zoo.registry import register

# filters, 3x3 convolutions                                      Table 1, column D: a 2x2 pool ends each group
_GROUPS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))


@register
def vgg16(
    g: Builder,
    *,
    small_input: bool = False,
    **common: Unpack[Common],
) -> Graph:
    """VGG-16.

    `small_input`, for images of 32 to 64 pixels, omits the first pool. The first dense layer reads the whole last map,
    so its weights fit only this resolution.

    Raises GraphError if the image is below 32 pixels a side (16 with `small_input`).
    """
    x = g.input
    for i in range(1, len(_GROUPS) + 1):
        x = _group(g, x, i)
        if i > 1 or not small_input:
            x = g.max_pool(x, kernel=2, stride=2, padding=0, name=f"pool{i}")
    y = g.flatten(x, name="flatten")
    for name in ("fc6", "fc7"):
        y = g.activation(g.dense(y, 4096, name=f"{name}.dense"), "relu", name=f"{name}.act")
        y = g.dropout(y, 0.5, name=f"{name}.dropout")
    return classified(g, x, y, common["classes"])


def atrous(g: Builder, *, small_input: bool) -> tuple[Node, Node]:
    """The body that SSD uses (Liu et al. 2016, arXiv 1512.02325, section 3): the maps of conv4_3 and fc7.

    After the five groups, whose weights are those of `vgg16`, fc6 and fc7 are convolutions of 1,024 filters, as in
    DeepLab's large field of view; fc6 is dilated by 6, since the last pool does not halve the plane. The third pool
    rounds up.
    """
    x = g.input
    for i in range(1, len(_GROUPS)):
        x = _group(g, x, i)
        last = x
        if i > 1 or not small_input:
            x = g.max_pool(x, kernel=2, stride=2, padding="ceil" if i == 3 else 0, name=f"pool{i}")
    x = _group(g, x, len(_GROUPS))
    x = g.max_pool(x, kernel=3, stride=1, padding=1, name="pool5")
    x = g.activation(g.conv(x, 1024, kernel=3, dilation=6, padding=6, name="fc6.conv"), "relu", name="fc6.act")
    return last, g.activation(g.conv(x, 1024, name="fc7.conv"), "relu", name="fc7.act")


def _group(g: Builder, x: Node, i: int) -> Node:
    """The convolutions of group `i`, from 1: (H, W, C) -> (H, W, filters)."""
    out, count = _GROUPS[i - 1]
    for j in range(1, count + 1):
        x = g.conv(x, out, kernel=3, padding=1, name=f"conv{i}_{j}.conv")
        x = g.activation(x, "relu", name=f"conv{i}_{j}.act")
    return x
