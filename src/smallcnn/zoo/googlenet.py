"""GoogLeNet: Szegedy et al. 2014, "Going Deeper with Convolutions", arXiv 1409.4842, Table 1.

Input (resolution, resolution, channels); output (classes,) logits. The auxiliary classifiers, used only in
training, are not built. The paper leaves two points open: pools round up, as in the public Caffe and torchvision
models, and local response normalisation has the numbers of the public Caffe model, bvlc_googlenet.

Table 1's operations follow from its filter counts (but 5a, printed 54M, is 51M). Its parameters do so only up to
3b: those printed for 4a to 5b are up to 7 % off.
"""

from typing import Literal, Unpack

from smallcnn.ir.builder import Builder
from smallcnn.ir.graph import Graph, Node
from smallcnn.zoo.heads import pooled
from smallcnn.zoo.options import Common
from smallcnn.zoo.registry import register

# 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pool projection               Table 1, top to bottom
_MODULES = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}


@register
def googlenet(
    g: Builder,
    *,
    variant: Literal["paper", "separable_stem", "torchvision"] = "paper",
    small_input: bool = False,
    **common: Unpack[Common],
) -> Graph:
    """GoogLeNet.

    `variant` "paper" has biases, ReLU and local response normalisation; "separable_stem" makes its first layer a 7x7
    depthwise convolution with 8 filters per channel and a 1x1 one, which costs the 2.7K parameters and 34M operations
    that Table 1 prints; "torchvision" has batch norm (epsilon 0.001) in place of biases and
    normalisation, 3x3 in place of 5x5, a 2x2 last pool and half the dropout. `small_input`, for images of 28 to 64
    pixels: the first layer has stride 1 and no pool follows it.

    Raises GraphError if an option is unknown or the image is below 31 pixels a side (8 with `small_input`).
    """
    bn = variant == "torchvision"
    x = g.input
    if variant == "separable_stem":
        x = g.depthwise(
            x, kernel=7, stride=1 if small_input else 2, padding=3, multiplier=8, bias=False, name="conv1.depthwise"
        )
        x = _conv(g, x, 64, "conv1", bn=bn)
    else:
        x = _conv(g, x, 64, "conv1", bn=bn, kernel=7, stride=1 if small_input else 2)
    if not small_input:
        x = g.max_pool(x, kernel=3, stride=2, padding="ceil", name="pool1")
    if not bn:
        x = _normalised(g, x, "norm1")
    x = _conv(g, x, 64, "conv2", bn=bn)
    x = _conv(g, x, 192, "conv3", bn=bn, kernel=3)
    if not bn:
        x = _normalised(g, x, "norm2")
    x = g.max_pool(x, kernel=3, stride=2, padding="ceil", name="pool2")
    for name, widths in _MODULES.items():
        if name in ("4a", "5a"):
            kernel = 2 if bn and name == "5a" else 3
            x = g.max_pool(x, kernel=kernel, stride=2, padding="ceil", name="pool3" if name == "4a" else "pool4")
        x = _inception(g, x, widths, f"inception{name}", bn=bn)
    return pooled(g, x, common["classes"], dropout=0.2 if bn else 0.4, pool="pool5")


def _inception(g: Builder, x: Node, widths: tuple[int, ...], name: str, *, bn: bool) -> Node:
    """(H, W, C) -> (H, W, 1x1 + 3x3 + 5x5 + projection), Figure 2(b)."""
    ones, reduce3, threes, reduce5, fives, projection = widths
    branch1 = _conv(g, x, ones, f"{name}.branch1", bn=bn)
    branch2 = _conv(g, x, reduce3, f"{name}.branch2.0", bn=bn)
    branch2 = _conv(g, branch2, threes, f"{name}.branch2.1", bn=bn, kernel=3)
    branch3 = _conv(g, x, reduce5, f"{name}.branch3.0", bn=bn)
    branch3 = _conv(g, branch3, fives, f"{name}.branch3.1", bn=bn, kernel=3 if bn else 5)
    branch4 = g.max_pool(x, kernel=3, stride=1, padding=1, name=f"{name}.branch4.0")
    branch4 = _conv(g, branch4, projection, f"{name}.branch4.1", bn=bn)
    return g.concat(branch1, branch2, branch3, branch4, name=f"{name}.concat")


def _conv(g: Builder, x: Node, out: int, name: str, *, bn: bool, kernel: int = 1, stride: int = 1) -> Node:
    """Convolution with batch norm or a bias, then ReLU."""
    if bn:
        return g.conv_bn(
            x, out, kernel=kernel, stride=stride, padding="symmetric", epsilon=0.001, activation="relu", name=name
        )
    x = g.conv(x, out, kernel=kernel, stride=stride, padding="symmetric", name=f"{name}.conv")
    return g.activation(x, "relu", name=f"{name}.act")


def _normalised(g: Builder, x: Node, name: str) -> Node:
    return g.local_response_norm(x, size=5, alpha=1e-4, beta=0.75, bias=1.0, name=name)
